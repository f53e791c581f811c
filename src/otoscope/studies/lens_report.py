"""The report of the lenses: the sound, its token line, what every layer would write, and when each token is settled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from otoscope.audio.clip import Clip
from otoscope.report.blocks import Figure, Note, Reproduce, Section, Sound, Table, Token, Tokens
from otoscope.report.lens import Line, lens
from otoscope.report.page import Report
from otoscope.runs import Run

_TITLES = {
    "encoder_lens": ("Encoder lens", "What the decoder would write if the encoder stopped after each layer."),
    "ctc_lens": ("CTC lens", "What the CTC head would write if the encoder stopped after each layer."),
    "words": ("Words", "When each word was said, from the decoder's cross-attention."),
    "logit_lens": ("Logit lens", "The most likely token of each decoder layer, at the place of each token it wrote."),
}


def write_report(
    run: Run, model: str, clip: Clip, metrics: dict[str, Any], tables: dict[str, list[dict[str, Any]]]
) -> Path:
    """Write ``report.html`` with its figure; returns the path of the page.

    Args:
        run: the run it belongs to.
        model: name of the model.
        clip: the sound.
        metrics: of the results object.
        tables: rows by the lens's name.
    """
    layers = tables.get("encoder_lens") or tables["ctc_lens"]
    text = layers[-1]["text"]
    report = Report(
        f"What does each layer of {model} know?",
        headline=_headline(layers, metrics),
        subtitle=f"{clip.name or 'one recording'}, {clip.duration:.2f} s",
    )
    report.add(Section("The sound"), Sound("sound", clip.name or "sound", clip, text))
    report.add(*(Note(remark, "warning") for remark in clip.notices))
    written = tables.get("logit_lens", [])
    if written:
        tokens = [Token(row["token"], row["start"], row["end"], float(row["settled_at_layer"])) for row in written]
        report.add(
            Tokens("tokens", tokens, "decoder layer from which on the token no longer changes", "Settled at", "sound")
        )
    values = np.array([row["log_prob_per_token"] for row in layers], dtype=float)
    drawing = lens(
        "log-prob", [Line("what the whole model writes", values, "answer")], [str(row["layer"]) for row in layers],
        label="log-probability per token (nats)", title="read from each encoder layer",
    )  # fmt: skip
    report.add(Section("By layer"), Figure(drawing, "How likely the final transcript is after each encoder layer"))
    for name, rows in tables.items():
        title, meaning = _TITLES[name]
        report.add(Section(title, meaning))
        if rows:
            report.add(Table({key.replace("_", " "): [row[key] for row in rows] for key in rows[0]}))
    report.add(
        Section("Reproduce"), Reproduce(run.info, ["This folder also holds results.json, tables/ and figures/."])
    )
    report.save(run)
    return run.path / "report.html"


def _headline(layers: list[dict[str, Any]], metrics: dict[str, Any]) -> str:
    text = layers[-1]["text"]
    first = next(row["layer"] for row in layers if row["text"] == text)
    said = f"“{text}” is what the model writes from encoder layer {first} of 0 to {len(layers) - 1}"
    settled = metrics.get("mean_saturation_layer")
    return said + ("." if settled is None else f"; its tokens settle at decoder layer {settled:.1f} on average.")
