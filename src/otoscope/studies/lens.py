"""What does each layer already know? Lenses over one recording, gathered into tables."""

from __future__ import annotations

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

Tables = dict[str, list[dict[str, Any]]]


def lens_study(
    clip: Clip,
    model: str = "whisper-tiny.en",
    *,
    reference: str | None = None,
    language: str = "en",
    out: Path | None = None,
    **loading: Any,
) -> tuple[dict[str, Any], Tables]:
    """Every lens that the model's family has.

    Args:
        clip: one sound of at most the model's window.
        model: name or path.
        reference: what was said.
        language: what a multilingual Whisper is told.
        out: directory for the run.
        loading: device, dtype, revision, offline.

    Returns:
        the results object, and the tables by name.

    Raises:
        ModelError: the model has neither a text decoder for sound nor a CTC head.
    """
    loaded = load(model, **loading)
    if loaded.family == "whisper":
        metrics, tables = _whisper(loaded, clip, reference, language)
    elif loaded.family == "language":
        raise ModelError(
            f"{loaded.name} does not listen: call otoscope.methods.lens.logit_lens on its text from Python."
        )
    else:
        found = ctc_lens(loaded, clip)
        tables = {"CTC lens": found.table()}
        metrics = {"layers": len(tables["CTC lens"])}
    if out is None:
        from otoscope import __version__

        head = {"command": "lens", "version": __version__, "run": None}
        return {**head, "metrics": metrics, "intervals": {}, "claims": []}, tables
    config = {"model": loaded.name, "clip": clip.digest(), "reference": reference, "language": language}
    with Run(out, "lens", config) as run:
        run.record_weights(loaded.name, loaded.weights_hash())
        for name, rows in tables.items():
            columns = {key: [row[key] for row in rows] for key in (rows[0] if rows else ())}
            run.table(name.replace(" ", "_").lower(), columns)
        return run.finish(metrics), tables


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
            "settled at layer": int(lens.saturation[start + i]),
            **{f"layer {n}": lens.texts[int(row[start + i])] for n, row in enumerate(lens.top1)},
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
    return metrics, {"encoder lens": layers.table(), "words": words, "logit lens": written}
