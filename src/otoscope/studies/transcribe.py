"""What does a model hear, how fast, and how often is it wrong?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from otoscope.audio.clip import Clip
from otoscope.audio.files import read, read_manifest
from otoscope.engine.model import load
from otoscope.errors import AudioError
from otoscope.models.transcribe import transcribe
from otoscope.models.wer import score
from otoscope.runs import Run
from otoscope.stats import bootstrap, ratio_of_sums

_ENDINGS = {".wav", ".flac", ".ogg", ".mp3"}


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
    model: str = "whisper-tiny.en",
    *,
    language: str | None = None,
    batch_size: int = 8,
    out: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    **loading: Any,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Transcribe, time, and score where references are known.

    Args:
        paths: files and folders.
        model: name or path.
        language: of a multilingual Whisper.
        batch_size: windows decoded together.
        out: directory for the run.
        progress: called with windows done and their total.
        loading: device, dtype, revision, offline.

    Returns:
        the results object, and one dictionary per recording (``path``, ``text``, ``reference``, ``wer``, ...).
    """
    clips = gather(paths)
    loaded = load(model, **loading)
    heard = transcribe(loaded, clips, batch_size, language, progress)
    items: list[dict[str, Any]] = [
        {
            "path": clip.name, "text": t.text, "reference": clip.text, "wer": None, "seconds_of_sound": t.seconds_of_sound,
            "notices": [*clip.notices, *t.notices],
        }
        for clip, t in zip(clips, heard)
    ]  # fmt: skip
    sound = sum(t.seconds_of_sound for t in heard)
    metrics: dict[str, Any] = {
        "recordings": len(clips),
        "seconds_of_sound": sound,
        "real_time_factor": sum(t.seconds_of_computing for t in heard) / sound,
        "wer": None,
    }
    known = [i for i, clip in enumerate(clips) if clip.text]
    if known:
        english = language in (None, "en")
        result = score([heard[i].text for i in known], [clips[i].text or "" for i in known], english)
        for i, item in zip(known, result.items):
            items[i]["wer"] = item.wer
        rows = np.array([[item.errors, item.words] for item in result.items], dtype=float)
        speakers = [clips[i].speaker or str(i) for i in known]
        metrics |= {
            "wer": bootstrap(rows, ratio_of_sums, groups=speakers), "substitutions": result.substitutions,
            "deletions": result.deletions, "insertions": result.insertions, "words": result.words,
        }  # fmt: skip
    if out is None:
        return _plain(metrics), items
    config = {
        "model": loaded.name,
        "language": language,
        "clips": [clip.digest()[:16] for clip in clips],
        **_named(loading),
    }
    with Run(out, "transcribe", config) as run:
        run.record_weights(loaded.name, loaded.weights_hash())
        run.table("transcripts", {key: [item[key] for item in items] for key in ("path", "text", "reference", "wer")})
        return run.finish(metrics), items


def _named(loading: dict[str, Any]) -> dict[str, Any]:
    return {key: str(value) for key, value in loading.items() if key in ("dtype", "revision")}


def _plain(metrics: dict[str, Any]) -> dict[str, Any]:
    from otoscope import __version__
    from otoscope.stats import Interval

    return {
        "command": "transcribe", "version": __version__, "run": None,
        "metrics": {k: v.value if isinstance(v, Interval) else v for k, v in metrics.items()},
        "intervals": {k: [v.low, v.high] for k, v in metrics.items() if isinstance(v, Interval)}, "claims": [],
    }  # fmt: skip
