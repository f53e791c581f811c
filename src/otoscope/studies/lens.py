"""What does each layer already know? Lenses over one recording, gathered into tables."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from otoscope.audio.clip import Clip
from otoscope.engine.model import Model, load
from otoscope.errors import ModelError
from otoscope.methods.ctc_lens import ctc_lens
from otoscope.methods.encoder_lens import encoder_lens
from otoscope.methods.lens import logit_lens
from otoscope.methods.timing import word_timing
from otoscope.runs import Run
from otoscope.studies.outcome import compute_now, without_run, write_tables

Tables = dict[str, list[dict[str, Any]]]


def lens_study(
    clip: Clip,
    model: str | Model = "whisper-tiny.en",
    *,
    reference: str | None = None,
    language: str = "en",
    out: Path | None = None,
    notify: Callable[[str], None] = lambda _: None,
    **loading: Any,
) -> tuple[dict[str, Any], Tables]:
    """Every lens that the model's family has.

    Args:
        clip: one sound of at most the model's window.
        model: name, path, or a loaded model.
        reference: what was said; by default the clip's own text.
        language: what a multilingual Whisper is told.
        out: directory for the run and its report.
        notify: told what is being done.
        loading: device, dtype, revision, offline.

    Returns:
        the results object, and the tables by name (``encoder_lens``, ``words`` and ``logit_lens`` of a Whisper,
        ``ctc_lens`` of a CTC model).

    Raises:
        ModelError: the model has neither a text decoder for sound nor a CTC head.
        TaskError: the sound is longer than the model hears at once.
    """
    loaded = model if isinstance(model, Model) else load(model, progress=notify, **loading)
    if loaded.family == "language":
        raise ModelError(
            f"{loaded.name} does not listen: call otoscope.methods.lens.logit_lens on its text from Python."
        )
    clip = clip.resample(loaded.adapter.rate)
    for remark in clip.notices:
        notify(f"note: {remark}")
    asked = {
        "model": loaded.name, "revision": loading.get("revision"), "dtype": str(loaded.adapter.dtype),
        "clip": clip.digest()[:16], "reference": reference, "language": language,
    }  # fmt: skip

    def read() -> dict[str, Any]:
        metrics, tables = (
            _whisper(loaded, clip, reference, language) if loaded.family == "whisper" else _ctc(loaded, clip)
        )
        return {"metrics": metrics, "tables": tables}

    with nullcontext() if out is None else Run(out, "lens", asked) as run:
        if run:
            run.record_weights(loaded.name, loaded.weights_hash())
        notify("reading the layers")
        found = (run.step if run else compute_now)("lenses", read)
        metrics, tables = found["metrics"], found["tables"]
        if run is None:
            return without_run("lens", metrics), tables
        write_tables(run, tables)
        results = run.finish(metrics)
        notify("writing the report")
        from otoscope.studies.lens_report import write_report

        write_report(run, loaded.name, clip, metrics, tables)
        return results, tables


def _ctc(model: Model, clip: Clip) -> tuple[dict[str, Any], Tables]:
    rows = ctc_lens(model, clip).table()
    return {"layers": len(rows)}, {"ctc_lens": rows}


def _whisper(model: Model, clip: Clip, reference: str | None, language: str) -> tuple[dict[str, Any], Tables]:
    layers = encoder_lens(model, clip, reference, language=language)
    timing = word_timing(model, clip, language=language)
    tokens = [t.token for t in timing.tokens]
    start = len(model.prompt()) - 1
    lens = logit_lens(model, model.inputs(clip, tokens=[*model.prompt(), *tokens]))
    written = [
        {
            "start": t.start,
            "end": t.end,
            "token": t.text,
            "probability": float(np.exp(t.log_prob)),
            "settled_at_layer": int(lens.saturation[start + i]),
            **{f"layer_{n}": lens.texts[int(row[start + i])] for n, row in enumerate(lens.top1)},
        }
        for i, t in enumerate(timing.tokens)
    ]
    words = [{"start": w.start, "end": w.end, "word": w.text} for w in timing.words]
    n = model.stacks["decoder"].n_layers
    settled = lens.saturation[start : start + len(tokens)]
    metrics = {
        "words": len(words),
        "tokens": len(tokens),
        "mean_saturation_layer": float(np.mean(settled)) if len(settled) else None,
        "settled_before_last": float(np.mean(settled < n - 1)) if len(settled) else None,
    }
    return metrics, {"encoder_lens": layers.table(), "words": words, "logit_lens": written}
