"""What does a model hear, how fast, and how often is it wrong?"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from otoscope.audio.clip import Clip
from otoscope.audio.files import read, read_manifest
from otoscope.engine.model import Model, load
from otoscope.errors import AudioError
from otoscope.models.transcribe import transcribe
from otoscope.models.wer import score
from otoscope.runs import Run
from otoscope.stats import bootstrap, ratio_of_sums
from otoscope.studies.outcome import Step, compute_now, without_run, write_tables

_ENDINGS = {".wav", ".flac", ".ogg", ".mp3"}
#: of an item, what its table and the report show
COLUMNS = ("path", "text", "reference", "wer", "seconds_of_sound")

Item = dict[str, Any]


def gather(paths: Sequence[Path]) -> list[Clip]:
    """Clips of files, of folders with a ``manifest.tsv``, and of folders of sound files (in the order of their names).

    Raises:
        AudioError: a path is missing, a folder holds no sound, or a file cannot be read.
    """
    clips: list[Clip] = []
    for path in paths:
        if not path.is_dir():
            clips.append(read(path))
        elif (path / "manifest.tsv").exists():
            clips += read_manifest(path)
        else:
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in _ENDINGS)
            if not found:
                raise AudioError(
                    f"{path} holds no sound: expected {', '.join(sorted(_ENDINGS))} files or a manifest.tsv."
                )
            clips += [read(p) for p in found]
    return clips


def transcribe_study(
    paths: Sequence[Path],
    model: str | Model = "whisper-tiny.en",
    *,
    language: str | None = None,
    batch_size: int = 8,
    out: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    notify: Callable[[str], None] = lambda _: None,
    **loading: Any,
) -> tuple[dict[str, Any], list[Item]]:
    """Transcribe, time, and score where references are known.

    Args:
        paths: files and folders.
        model: name, path, or a loaded model.
        language: of a multilingual Whisper.
        batch_size: recordings decoded together.
        out: directory for the run and its report; a run that was stopped goes on from there.
        progress: called with recordings done and their total.
        notify: told what is being done.
        loading: device, dtype, revision, offline.

    Returns:
        the results object, and one dictionary per recording (``path``, ``text``, ``reference``, ``wer``, ...).

    Raises:
        AudioError: a recording cannot be read.
        ModelError: the model cannot be loaded, or does not transcribe.
    """
    clips = gather(paths)
    loaded = model if isinstance(model, Model) else load(model, progress=notify, **loading)
    clips = [clip.resample(loaded.adapter.rate) for clip in clips]
    asked = {
        "model": loaded.name, "revision": loading.get("revision"), "dtype": str(loaded.adapter.dtype),
        "language": language, "clips": [_key(clip) for clip in clips],
    }  # fmt: skip
    with nullcontext() if out is None else Run(out, "transcribe", asked) as run:
        if run:
            run.record_weights(loaded.name, loaded.weights_hash())
        notify(f"transcribing {len(clips)} recording{'s' if len(clips) > 1 else ''}")
        step = run.step if run else compute_now
        items = _heard(loaded, clips, language, batch_size, progress, step)
        metrics = _metrics(clips, items, language)
        if run is None:
            return without_run("transcribe", metrics), items
        write_tables(run, {"transcripts": [{key: item[key] for key in COLUMNS} for item in items]})
        results = run.finish(metrics)
        notify("writing the report")
        from otoscope.studies.transcribe_report import write_report

        write_report(run, loaded.name, clips, items, results)
        return results, items


def _heard(
    model: Model,
    clips: Sequence[Clip],
    language: str | None,
    batch_size: int,
    progress: Callable[[int, int], None] | None,
    step: Step,
) -> list[Item]:
    """One item per clip, in order; every batch is a step of the run, so that a stopped run loses one batch."""
    # clips of like length share a batch, because a batch decodes until its longest sentence is done
    order = sorted(range(len(clips)), key=lambda i: clips[i].duration)
    items: list[Item] = [{} for _ in clips]
    for start in range(0, len(order), batch_size):
        members = order[start : start + batch_size]

        def compute(members: list[int] = members) -> list[Item]:
            heard = transcribe(model, [clips[i] for i in members], batch_size, language)
            return [
                {
                    "text": t.text, "seconds_of_sound": t.seconds_of_sound, "seconds_of_computing": t.seconds_of_computing,
                    "notices": list(t.notices),
                }
                for t in heard
            ]  # fmt: skip

        batch = hashlib.sha256("".join(_key(clips[i]) for i in members).encode()).hexdigest()
        for i, item in zip(members, step(f"batch {batch[:24]}", compute), strict=True):
            items[i] = {
                "path": clips[i].name, "reference": clips[i].text, "wer": None, **item,
                "notices": [*clips[i].notices, *item["notices"]],
            }  # fmt: skip
        if progress:
            progress(min(start + batch_size, len(order)), len(order))
    return items


def _metrics(clips: Sequence[Clip], items: list[Item], language: str | None) -> dict[str, Any]:
    """Metrics over all recordings; writes each scored item's ``wer``."""
    sound = sum(item["seconds_of_sound"] for item in items)
    metrics: dict[str, Any] = {
        "recordings": len(items),
        "seconds_of_sound": sound,
        "real_time_factor": sum(item["seconds_of_computing"] for item in items) / sound,
        "wer": None,
    }
    known = [i for i, clip in enumerate(clips) if clip.text]
    if not known:
        return metrics
    english = language in (None, "en")
    result = score([items[i]["text"] for i in known], [clips[i].text or "" for i in known], english)
    for i, scored in zip(known, result.items):
        items[i]["wer"] = scored.wer
    rows = np.array([[item.errors, item.words] for item in result.items], dtype=float)
    speakers = [clips[i].speaker or str(i) for i in known]
    return metrics | {
        "wer": bootstrap(rows, ratio_of_sums, groups=speakers), "substitutions": result.substitutions,
        "deletions": result.deletions, "insertions": result.insertions, "words": result.words,
    }  # fmt: skip


def _key(clip: Clip) -> str:
    return clip.digest()[:16]
