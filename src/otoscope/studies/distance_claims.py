"""Claims, metrics and tables of the out-of-distribution study, from its maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from otoscope.methods.concordance import concordance
from otoscope.methods.false_localisation import rate
from otoscope.runs import Claim, Control, Threshold
from otoscope.stats import Interval
from otoscope.studies.distance_choice import Recommended, sentence_of
from otoscope.studies.distance_grid import Kind
from otoscope.studies.distance_table import Cell, Relation, Row, by, cell, speaking

#: at most this share of the maps of a trustworthy kind of patch is false; 24 sentences without a false map can show it
TRUSTED = 0.15
#: share of maps that may name a place where there is nothing to find
BY_CHANCE = 0.05
#: p value of a concordance against shuffled outcomes
ALPHA = 0.05


def claims(
    rows: Sequence[Row], nulls: Sequence[Row], found: Relation, choice: Recommended | None, kinds: Sequence[Kind]
) -> list[Claim]:
    """Claims against the thresholds of this file.

    Args:
        rows: maps.
        nulls: maps where there is nothing to find; their ``corruption`` names the null.
        found: from :func:`relation`.
        choice: from :func:`recommend`.
        kinds: the grid.
    """
    plain = [r for r in rows if r["kind"].startswith("input-") and r["kind"].endswith("-donor")]
    silent = {
        f"{name} names a place": Control.of(rate([not r["silent"] for r in group], [r["sentence"] for r in group]).value,
                                            Threshold("<=", BY_CHANCE))
        for (name,), group in by(nulls, "corruption").items()
    }  # fmt: skip
    chance = Control.of(float(1 - np.mean([r["chance"] for r in plain]))) if plain else None
    made = [
        Claim.of(
            "reference",
            "Where the other run's states are put in at the input, maps that name a place are seldom false.",
            Threshold("<=", TRUSTED),
            cell(plain).false,
            {**silent, **({"a window drawn by chance": chance} if chance else {})},
        ),
        Claim.of(
            "within",
            "Among maps of one corruption and one kind of patch, those whose named window lies farther from natural states "
            "are more often false.",
            Threshold(">", 0.5),
            found.within.auc,
            {
                "p against shuffled outcomes": Control.of(found.within.p_value, Threshold("<=", ALPHA)),
                "effect size taken out": Control.of(found.given_effect.auc, Threshold(">", 0.5)),
                "distance of what was put in": Control.of(found.put_in.auc),
                "all maps pooled": Control.of(found.pooled.auc),
            },
            unit="concordance",
        ),
        Claim.of(
            "windows",
            "Among control windows of one corruption and one kind of patch, those that lie farther from natural states more "
            "often move the answer.",
            Threshold(">", 0.5),
            found.windows.auc,
            {"p against shuffled outcomes": Control.of(found.windows.p_value, Threshold("<=", ALPHA))},
            unit="concordance",
        ),
        Claim.of(
            "across",
            "Over corruptions and kinds of patch, a larger mean distance goes with more false maps.",
            Threshold(">", 0.0),
            found.across,
            unit="rank correlation",
        ),
        Claim.of(
            "flag",
            "Maps whose named window leaves the natural states are more often false than the others.",
            Threshold(">", 0.0),
            found.gain,
            unit="difference of shares",
        ),
    ]
    if choice is not None:
        made.append(
            Claim.of("recommendation", sentence_of(choice, kinds), Threshold("<=", TRUSTED), choice.by_kind.false)
        )
    return made


def metrics(rows: Sequence[Row], nulls: Sequence[Row], found: Relation) -> dict[str, Any]:
    """Flat, with intervals: rates by corruption, by kind, and overall; the relation; what the nulls name."""
    whole = cell(rows)
    out: dict[str, Any] = {
        "maps": len(rows), "sentences": len({r["sentence"] for r in rows}), "silent": whole.silent,
        "false": whole.false, "wrong": whole.wrong, "alarm": whole.alarm, "flagged": whole.flagged,
        "auc.within": found.within.auc, "auc.within.p": found.within.p_value,
        "auc.within.given_effect": found.given_effect.auc, "auc.within.put_in": found.put_in.auc,
        "auc.pooled": found.pooled.auc, "auc.windows": found.windows.auc, "auc.windows.p": found.windows.p_value,
        "rho.cells": found.across, "flagged.gain": found.gain,
    }  # fmt: skip
    for key in ("corruption", "kind"):
        for (name,), group in by(rows, key).items():
            of = cell(group)
            out |= {f"false.{name}": of.false, f"distance.{name}": of.distance, f"flagged.{name}": of.flagged}
    for (name,), group in by(nulls, "corruption").items():
        out[f"named.{name}"] = rate([not r["silent"] for r in group], [r["sentence"] for r in group])
    return out


def tables(rows: Sequence[Row], nulls: Sequence[Row]) -> dict[str, list[Row]]:
    """All numbers as rows: every map, every cell, both margins, the nulls."""
    made = {"maps": [_flat(r) for r in rows], "nulls": [_flat(r) for r in nulls]}
    for name, keys in (("cells", ("corruption", "kind")), ("kinds", ("kind",)), ("corruptions", ("corruption",))):
        made[name] = [{**dict(zip(keys, values)), **_cell_row(cell(g))} for values, g in by(rows, *keys).items()]
    made["cells"] = [
        {**row, "auc": concordance(*_columns(group)).auc.value}
        for row, group in zip(made["cells"], by(rows, "corruption", "kind").values())
    ]
    return made


def _columns(rows: Sequence[Row]) -> tuple[list[float], list[bool], list[str]]:
    speak = speaking(rows)
    return [r["distance"] for r in speak], [r["false"] for r in speak], [r["sentence"] for r in speak]


def _cell_row(of: Cell) -> Row:
    out: Row = {"maps": of.maps}
    for name in ("silent", "false", "wrong", "alarm", "effect", "distance", "put_in", "named", "flagged"):
        value: Interval = getattr(of, name)
        out |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
    return out


def _flat(row: Row) -> Row:
    return {k: v for k, v in row.items() if not isinstance(v, list)}
