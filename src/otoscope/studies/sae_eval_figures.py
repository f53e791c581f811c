"""Figures and tables of the measures that ask the model: selectivity by feature, curves of steering, pairs by distinction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from otoscope.report.blocks import Block, Figure, Table
from otoscope.report.effects import Bar, effects
from otoscope.report.page import bounds, number
from otoscope.report.scatter import Point, scatter
from otoscope.stats import Interval
from otoscope.studies.sae_eval import Found

Row = Mapping[str, Any]


def more(found: Found, title: str) -> list[Block]:
    """What a section shows beside its numbers; nothing where nothing was asked."""
    made = {"Selectivity": ("selectivity", _selectivity), "Erasure and steering": ("steering", _steering),
            "Minimal pairs": ("pairs", _pairs)}  # fmt: skip
    name, draw = made.get(title, ("", None))
    rows = found.tables.get(name, ())
    return [] if draw is None or not rows else draw(rows)


def _selectivity(rows: Sequence[Row]) -> list[Block]:
    own = [row for row in rows if row["subject"] == "dictionary"]
    columns: dict[str, list[Any]] = {
        "feature": [str(row["feature"]) for row in own], "tells": [row["tells"] or "–" for row in own],
        "selectivity": [_cell(row, "own") for row in own], "another feature": [_cell(row, "other") for row in own],
        "elsewhere": [_cell(row, "elsewhere") for row in own], "nats inside": [row["inside"] for row in own],
        "nats outside": [row["outside"] for row in own], "tokens inside": [row["tokens"] for row in own],
    }  # fmt: skip
    return [Table(columns, "By feature")]


def _steering(rows: Sequence[Row]) -> list[Block]:
    blocks: list[Block] = []
    own = [row for row in rows if row["subject"] == "dictionary"]
    for i, target in enumerate(dict.fromkeys(row["target"] for row in own)):
        part = [row for row in own if row["target"] == target]
        words = part[0]["effect"] == "words"
        effect = "words written on sounds" if words else "balanced accuracy"
        points = [
            Point(f"{row['factor']:g}x", row["arm"], _interval(row, "ce"), _interval(row, "value"), named=True)
            for row in part
            if row["arm"] in ("own", "null", "inserted")
        ]
        points = [p if np.isfinite(p.x.value) else Point(p.label, p.role, _ZERO, p.y, True) for p in points]
        drawing = scatter(f"steering-{i}", points, x_label="cost on speech, nats per token", y_label=effect)
        caption = (
            "Every point multiplies the codes of five features by the number beside it. own: the target's features, the "
            "dictionary's error kept; null: others that are active about as often; inserted: the reconstruction in place of "
            "the frames. 95% intervals over recordings."
        )
        blocks.append(Figure(drawing, target, caption))
        columns: dict[str, list[Any]] = {
            "arm": [row["arm"] for row in part], "factor": [float(row["factor"]) for row in part],
            effect: [_cell(row, "value") for row in part], "called so": [row["called"] for row in part],
            "nats per token": [_cell(row, "ce") for row in part], "WER": [_cell(row, "wer") for row in part],
        }  # fmt: skip
        if words:
            del columns["called so"]
        blocks.append(Table(columns, target))
    return blocks


def _pairs(rows: Sequence[Row]) -> list[Block]:
    own = [row for row in rows if row["subject"] == "dictionary"]
    factors = list(dict.fromkeys(row["factor"] for row in own))
    bars = [
        Bar(
            factor,
            _interval(_one(own, factor, "own"), "cause"),
            {row["arm"]: _interval(row, "cause") for row in own if row["factor"] == factor and row["arm"] != "own"},
        )
        for factor in factors
    ]
    columns: dict[str, list[Any]] = {
        "distinction": [row["factor"] for row in own], "exchanged": [row["arm"] for row in own],
        "cause": [_cell(row, "cause") for row in own], "isolate": [_cell(row, "isolate") for row in own],
        "features": [row["features"] for row in own], "pairs": [row["pairs"] for row in own],
    }  # fmt: skip
    drawing = effects("pairs", bars, label="cause: how far the answer follows")
    caption = (
        "The features of each distinction, exchanged on its own held-out pairs; 95% intervals over pairs of words."
    )
    return [Figure(drawing, "What an exchange moves", caption), Table(columns, "By distinction")]


def _one(rows: Sequence[Row], factor: str, arm: str) -> Row:
    return next(row for row in rows if row["factor"] == factor and row["arm"] == arm)


_ZERO = Interval(0.0, np.nan, np.nan, 0)


def _interval(row: Row, name: str) -> Interval:
    parts = [np.nan if row[key] is None else float(row[key]) for key in (name, f"{name}_low", f"{name}_high")]
    return Interval(parts[0], parts[1], parts[2], int(row.get("pairs") or 0))


def _cell(row: Row, name: str) -> str:
    value = _interval(row, name)
    if np.isnan(value.value):
        return "–"
    return number(value.value) + ("" if np.isnan(value.low) else f" {bounds((value.low, value.high))}")
