"""The recordings of a harvest: found in files, folders and manifests, and described before any sound is decoded.

Labels come from the columns of a ``manifest.tsv``, times of words and phones from a TextGrid beside a file, from
``words.tsv`` and ``phones.tsv`` in its folder (columns ``utt``, ``start``, ``end`` in seconds, and ``word`` or ``phone``),
or from the manifest's columns ``phn`` and ``phn_end_samples``. Silences that aligners write are left out.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import soundfile

from otoscope.audio.clip import Clip, Span
from otoscope.audio.files import MANIFEST, manifest_rows, read
from otoscope.audio.textgrid import SILENCES, with_textgrid
from otoscope.errors import AudioError

#: endings of sound files
ENDINGS = (".wav", ".flac", ".ogg", ".mp3")
#: a longer recording is taken in parts of at most this, seconds: none of them is large in memory or in a file
PART_SECONDS = 300.0
#: annotators and decoders disagree on where a file ends by less than this, seconds
_END_SLACK = 0.05
#: columns of a manifest that are no labels
_NO_LABELS = ("path", "dur", "text", "speaker", "phn", "phn_end_samples")
#: a transcript beside a sound file is no longer than this, bytes
_LONGEST_TEXT = 20_000


@dataclass(frozen=True)
class Recording:
    """What is known of one sound file, or of one part of a long one, before it is decoded.

    Attributes:
        path: the file.
        name: its path within its corpus, without the ending; a part has ``@START-END`` (seconds) after it.
        corpus: what it was found in.
        rate, n_samples: of the file, as its header says.
        text, speaker, labels: as the manifest says.
        words, phones: with start and end in seconds of the file.
        textgrid: a TextGrid that gives words and phones instead.
        part: start and end in seconds of the part that is taken; None for all of it.
    """

    path: Path
    name: str
    corpus: str
    rate: int
    n_samples: int
    text: str | None = None
    speaker: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    words: tuple[Span, ...] = ()
    phones: tuple[Span, ...] = ()
    textgrid: Path | None = None
    part: tuple[float, float] | None = None

    @property
    def start(self) -> float:
        """Where it starts in its file, seconds."""
        return self.part[0] if self.part else 0.0

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.part[1] - self.part[0] if self.part else self.n_samples / self.rate

    def samples_at(self, rate: int) -> int:
        """How many samples it has at another rate, as ``clip().resample(rate)`` makes them."""
        n = self.n_samples
        if self.part:
            n = round(self.part[1] * self.rate) - round(self.part[0] * self.rate)
        # halves go up, as in the resampler
        return n if rate == self.rate else (2 * n * rate + self.rate) // (2 * self.rate)

    def clip(self) -> Clip:
        """The sound with what is known of it; times count from its own start.

        Raises:
            AudioError: the file cannot be read, or words or phones lie beyond its end.
        """
        clip = read(self.path).replace(name=self.name, text=self.text, speaker=self.speaker, labels=dict(self.labels))
        clip = clip.replace(words=_ended(self.words, clip.duration), phones=_ended(self.phones, clip.duration))
        if self.textgrid:
            clip = with_textgrid(clip, self.textgrid)
        return clip.slice(*self.part) if self.part else clip

    def described(self) -> dict[str, object]:
        """What tells two recordings apart, as plain data: if it changes, so may what is computed."""
        size = os.stat(self.path).st_size
        spans = [[(s.start, s.end, s.text) for s in kind] for kind in (self.words, self.phones)]
        return {
            "path": str(self.path), "bytes": size, "name": self.name, "corpus": self.corpus, "text": self.text,
            "speaker": self.speaker, "labels": dict(self.labels), "spans": spans, "part": self.part,
            "textgrid": self.textgrid.read_text(errors="replace") if self.textgrid else None,
        }  # fmt: skip


def find(paths: Path | Sequence[Path], corpus: str | None = None) -> list[Recording]:
    """The recordings of sound files, of folders with a ``manifest.tsv``, of manifests, and of folders of sound files.

    Only headers are read. The order is that of the manifest, or of the files' names.

    Args:
        paths: one or several.
        corpus: what to call where they come from; None for each folder's own name.

    Raises:
        AudioError: a path is missing, a folder holds no sound, a manifest or a table of times is malformed, or a file is
            no sound.
    """
    found: list[Recording] = []
    for path in [paths] if isinstance(paths, Path) else paths:
        found += _found_in(path, corpus)
    return [part for recording in found for part in _parts(recording)]


def _found_in(path: Path, corpus: str | None) -> list[Recording]:
    if path.is_file() and path.suffix.lower() == ".tsv":
        return _of_manifest(path, corpus or path.resolve().parent.name)
    if not path.is_dir():
        return [_of_file(path, path.stem, corpus or path.resolve().parent.name)]
    if (path / MANIFEST).is_file():
        return _of_manifest(path / MANIFEST, corpus or path.resolve().name)
    sounds = sorted(p for p in path.rglob("*") if p.suffix.lower() in ENDINGS and not p.name.startswith("."))
    if not sounds:
        raise AudioError(f"{path} holds no sound: expected {', '.join(sorted(ENDINGS))} files or a {MANIFEST}.")
    times = _Times(path)
    return [
        times.given(_of_file(p, p.relative_to(path).with_suffix("").as_posix(), corpus or path.resolve().name))
        for p in sounds
    ]


def _of_manifest(manifest: Path, corpus: str) -> list[Recording]:
    manifest, rows = manifest_rows(manifest)
    times, found = _Times(manifest.parent), []
    for number, row in rows:
        path = manifest.parent / row["path"]
        if not path.exists():
            raise AudioError(
                f"Row {number} of {manifest} names {row['path']!r}, which is not there; paths are relative to the "
                "manifest's folder."
            )
        recording = _of_file(path, Path(row["path"]).with_suffix("").as_posix(), corpus)
        labels = {key: value for key, value in row.items() if key not in _NO_LABELS and value}
        recording = replace(
            recording, text=row.get("text") or recording.text, speaker=row.get("speaker") or None, labels=labels
        )
        if row.get("phn") and row.get("phn_end_samples"):
            recording = replace(recording, phones=_phones_of_row(row, recording.rate, f"Row {number} of {manifest}"))
        found.append(times.given(recording))
    return found


def _of_file(path: Path, name: str, corpus: str) -> Recording:
    try:
        header = soundfile.info(path)
        rate, n_samples = header.samplerate, header.frames
    except (soundfile.LibsndfileError, OSError, TypeError):
        clip = read(path)  # says in one sentence what is wrong
        rate, n_samples = clip.rate, len(clip)
    if not n_samples:
        read(path)
    grid, text = path.with_suffix(".TextGrid"), path.with_suffix(".txt")
    said = None
    if text.is_file() and text.stat().st_size <= _LONGEST_TEXT:
        said = " ".join(text.read_text(encoding="utf-8", errors="replace").split()) or None
    return Recording(path, name, corpus, rate, n_samples, said, textgrid=grid if grid.is_file() else None)


def _parts(recording: Recording) -> Iterable[Recording]:
    n = math.ceil(recording.seconds / PART_SECONDS)
    if n <= 1:
        return [recording]
    step = recording.seconds / n
    edges = [round(i * step * recording.rate) / recording.rate for i in range(n + 1)]
    return [
        replace(recording, part=(start, end), name=f"{recording.name}@{start:.0f}-{end:.0f}")
        for start, end in zip(edges[:-1], edges[1:])
    ]


class _Times:
    """``words.tsv`` and ``phones.tsv`` of a folder."""

    def __init__(self, folder: Path):
        self._spans = {kind: _table(folder / f"{kind}s.tsv", kind) for kind in ("word", "phone")}

    def given(self, recording: Recording) -> Recording:
        """The recording with its times, where the tables have any."""
        stem = recording.path.stem
        words, phones = (self._spans[kind].get(stem, ()) for kind in ("word", "phone"))
        return replace(recording, words=words or recording.words, phones=phones or recording.phones)


def _table(path: Path, kind: str) -> dict[str, tuple[Span, ...]]:
    """Utterance -> its spans in the order of time; empty where there is no such table."""
    if not path.is_file():
        return {}
    found: dict[str, list[Span]] = {}
    with path.open(encoding="utf-8-sig", newline="") as lines:
        table = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        wanted = ("utt", "start", "end", kind)
        if missing := [c for c in wanted if c not in (table.fieldnames or ())]:
            raise AudioError(f"{path} has no column '{missing[0]}': expected {', '.join(wanted)}, separated by tabs.")
        for number, row in enumerate(table, start=2):
            try:
                span = Span(float(row["start"]), float(row["end"]), row[kind].strip())
            except (TypeError, ValueError, AttributeError, AudioError) as error:
                raise AudioError(
                    f"Row {number} of {path} has no span from {row['start']!r} to {row['end']!r} s: expected seconds "
                    "with 0 <= start <= end."
                ) from error
            if span.text.lower() not in SILENCES:
                found.setdefault(row["utt"], []).append(span)
    return {name: tuple(sorted(spans)) for name, spans in found.items()}


def _phones_of_row(row: Mapping[str, str], rate: int, where: str) -> tuple[Span, ...]:
    phones, ends = row["phn"].split(), row["phn_end_samples"].split()
    try:
        edges = [0.0, *(int(end) / rate for end in ends)]
        if len(phones) != len(ends):
            raise ValueError
        spans = [Span(start, end, phone) for phone, start, end in zip(phones, edges[:-1], edges[1:])]
    except (ValueError, AudioError) as error:
        raise AudioError(
            f"{where} has {len(phones)} phones and {len(ends)} ends: expected as many rising samples in phn_end_samples."
        ) from error
    return tuple(span for span in spans if span.text.lower() not in SILENCES)


def _ended(spans: tuple[Span, ...], end: float) -> tuple[Span, ...]:
    """What ends shortly after the sound ends with it."""
    return tuple(
        replace(span, start=min(span.start, end), end=end) if end < span.end <= end + _END_SLACK else span
        for span in spans
    )
