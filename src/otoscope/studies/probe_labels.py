"""What is probed for: recordings and their labels, from a folder of corpora or from a manifest of one's own.

``sex``, ``speaker``, ``phone``, ``word`` and ``noise`` are made from LibriSpeech and Speech Commands below the data folder. Any
other label is a column of the ``manifest.tsv`` in that folder (``path``, the label, and ``speaker``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from otoscope.audio.align import align
from otoscope.audio.clip import Clip, Span
from otoscope.audio.corruptions.registry import apply
from otoscope.audio.files import MANIFEST, manifest_rows, read
from otoscope.errors import AudioError, TaskError
from otoscope.models.mini_labels import COMMANDS
from otoscope.tasks.corpora import librispeech, speech_commands
from otoscope.tasks.recordings import Recording

#: labels that are made from corpora
LABELS = ("sex", "speaker", "phone", "word", "noise")
#: corpora of which a folder may hold either
_SPEAKERS = ("librispeech_speakers", *librispeech.FOLDERS)
NOISE, SNR = "pink_noise", 10.0


@dataclass(frozen=True, eq=False)
class Labelled:
    """Recordings and what is to be read from them.

    Attributes:
        label: what is probed for.
        clips: recordings.
        values: the label of each; empty where it is one of frames.
        speakers: of each.
        spans: per recording the labelled stretches of time (frames), else empty.
        types: per recording the stretches that get one random label each in the control task (words), else empty.
        notes: what a reader of the result must know.
    """

    label: str
    clips: tuple[Clip, ...]
    values: tuple[str, ...]
    speakers: tuple[str, ...]
    spans: tuple[tuple[Span, ...], ...] = ()
    types: tuple[tuple[Span, ...], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def of_frames(self) -> bool:
        """Whether frames are labelled, not recordings."""
        return bool(self.spans)

    @property
    def groups(self) -> tuple[str, ...]:
        """What is kept on one side of every split: the speaker, or the recording where the speaker is the label."""
        if self.label == "speaker":
            return tuple(f"recording {i}" for i in range(len(self.clips)))
        return self.speakers

    def digest(self) -> str:
        """Changes with any sound or label."""
        import hashlib

        h = hashlib.sha256(self.label.encode())
        for clip, value, speaker in zip(self.clips, self.values or [""] * len(self.clips), self.speakers):
            h.update(f"{clip.digest()}{value}{speaker}{clip.phones}".encode())
        return h.hexdigest()


def labelled(
    label: str,
    data: Path,
    n: int = 136,
    seed: int = 0,
    *,
    noise: str = NOISE,
    snr_db: float = SNR,
    notify: Callable[[str], None] = lambda _: None,
) -> Labelled:
    """The recordings of a label.

    Args:
        label: one of ``LABELS``, or a column of the folder's manifest.
        data: folder with the corpora, or with a manifest of its own.
        n: recordings at most, drawn evenly over labels and speakers.
        seed: of the draw, and of noise.
        noise: corruption that is added for ``noise``.
        snr_db: at this signal-to-noise ratio.
        notify: told what is being done.

    Raises:
        TaskError: the folder or the label is not there, or fewer than two labels are.
        AudioError: a recording cannot be read, or the alignment that ``phone`` needs is not installed.
    """
    data = Path(data)
    if not data.is_dir():
        raise TaskError(
            f"the folder '{data}' is not there: give --data the folder of LibriSpeech, or of your manifest.tsv."
        )
    if (data / MANIFEST).is_file() and label in manifest_rows(data)[1][0][1]:
        return _of_manifest(label, data, n, seed)
    if label not in LABELS:
        raise TaskError(
            f"there is no label '{label}': choose {', '.join(LABELS)}, or give --data a folder whose manifest.tsv has that column."
        )
    if label == "word":
        words = [r for r in speech_commands.recordings(_corpus(data, speech_commands.FOLDERS), COMMANDS) if r.unit]
        return _of_recordings(label, _drawn(words, lambda r: r.label, n, seed), lambda r: r.label)
    if label == "speaker":
        spoken = librispeech.recordings(_corpus(data, _SPEAKERS))
        made = _of_recordings(label, _drawn(spoken, lambda r: r.unit, n, seed), lambda r: r.unit)
        note = "recordings of one speaker are of one session, so that part of what is read may be the microphone and the room"
        return Labelled(label, made.clips, made.values, made.speakers, notes=(note,))
    spoken = librispeech.recordings(_corpus(data, librispeech.FOLDERS))
    if label == "sex":
        known = [r for r in spoken if r.labels.get("sex")]
        return _of_recordings(label, _drawn(known, lambda r: r.unit, n, seed), lambda r: r.labels["sex"])
    if label == "noise":
        return _noisy(_drawn(spoken, lambda r: r.unit, n // 2, seed), noise, snr_db, seed)
    return _phones([r for r in _drawn(spoken, lambda r: r.unit, n, seed) if r.text], notify)


def _corpus(data: Path, names: Sequence[str]) -> Path:
    folder = next((data / name for name in names if (data / name).is_dir()), data)
    if not any(folder.iterdir()):
        raise TaskError(f"the folder '{folder}' is empty: expected the corpus {names[0]}.")
    return folder


def _drawn(recordings: Sequence[Recording], key: Callable[[Recording], str], n: int, seed: int) -> list[Recording]:
    """At most ``n``, round after round one more of every label, in an order that the seed draws."""
    rng = np.random.default_rng(seed)
    order = [recordings[i] for i in rng.permutation(len(recordings))]
    seen: dict[str, int] = {}
    rounds = []
    for recording in order:
        rounds.append(seen.get(key(recording), 0))
        seen[key(recording)] = rounds[-1] + 1
    best = sorted(range(len(order)), key=lambda i: rounds[i])[:n]
    return sorted((order[i] for i in best), key=lambda r: r.name)


def _of_recordings(label: str, chosen: Sequence[Recording], value: Callable[[Recording], str]) -> Labelled:
    made = Labelled(
        label,
        tuple(r.clip() for r in chosen),
        tuple(value(r) for r in chosen),
        tuple(r.unit or r.name for r in chosen),
    )
    _check(made)
    return made


def _of_manifest(label: str, folder: Path, n: int, seed: int) -> Labelled:
    rows = [row for _, row in manifest_rows(folder)[1] if row.get(label)]
    recordings = [
        Recording(row["path"], row[label], row.get("speaker", ""), lambda p=folder / row["path"]: read(p))
        for row in rows
    ]
    made = _of_recordings(label, _drawn(recordings, lambda r: r.label, n, seed), lambda r: r.label)
    if label != "speaker" and not any(row.get("speaker") for row in rows):
        note = (
            f"{folder / MANIFEST} has no column speaker, so recordings are held out but speakers may be on both sides"
        )
        return Labelled(label, made.clips, made.values, made.speakers, notes=(note,))
    return made


def _noisy(chosen: Sequence[Recording], noise: str, snr_db: float, seed: int) -> Labelled:
    clean = [r.clip() for r in chosen]
    noisy = [apply(noise, clip, seed=seed + i, snr_db=snr_db).clip for i, clip in enumerate(clean)]
    # equal levels: noise adds power, and a louder recording would be enough to know it
    noisy = [b.replace(samples=(b.samples * (a.rms / b.rms)).astype(np.float32)) for a, b in zip(clean, noisy)]
    speakers = [r.unit for r in chosen]
    name = f"{noise.removesuffix('_noise')} noise at {snr_db:g} dB"
    return Labelled(
        "noise", (*clean, *noisy), ("clean",) * len(clean) + ("noisy",) * len(noisy), (*speakers, *speakers),
        notes=(f"noise is {name}, added to half of the recordings at their own level",),
    )  # fmt: skip


def _phones(chosen: Sequence[Recording], notify: Callable[[str], None]) -> Labelled:
    clips, speakers, failed = [], [], 0
    notify(f"aligning the phones of {len(chosen)} recordings")
    for recording in chosen:
        try:
            clips.append(align(recording.clip()))
            speakers.append(recording.unit)
        except AudioError as error:
            if "pocketsphinx" in str(error):
                raise
            failed += 1
    if not clips:
        raise TaskError("no recording of LibriSpeech could be aligned with its text: give a folder with transcripts.")
    notes = (f"{failed} recordings could not be aligned and are left out",) if failed else ()
    return Labelled(
        "phone", tuple(clips), (), tuple(speakers), tuple(c.phones for c in clips), tuple(c.words for c in clips), notes
    )


def _check(made: Labelled) -> None:
    found = sorted(set(made.values))
    if len(found) < 2:
        raise TaskError(
            f"all {len(made.clips)} recordings have the {made.label} '{found[0] if found else ''}': at least two labels are needed."
        )
