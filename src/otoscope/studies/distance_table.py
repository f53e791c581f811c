"""What the maps of the out-of-distribution study say: rates and distances by cell, and whether the one predicts the other.

A row is one map: one corruption of one sentence, localised by one kind of patch. The sentence is the unit of every
interval. Maps that are silent count in no rate of false ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from otoscope.methods.concordance import Concordance, concordance, ranks_within
from otoscope.methods.false_localisation import ALARM, rate
from otoscope.stats import Interval, bootstrap

Row = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """Maps of one corruption, one kind of patch, or both.

    Attributes:
        maps: how many, and ``silent`` the share that names nothing.
        false, wrong, alarm: shares of the others, with exact intervals.
        effect: mean largest effect.
        distance: mean distance of all windows left behind; ``put_in`` of what was put in.
        named: mean distance of the named windows; ``flagged`` the share of them beyond natural ones.
    """

    maps: int
    silent: Interval
    false: Interval
    wrong: Interval
    alarm: Interval
    effect: Interval
    distance: Interval
    put_in: Interval
    named: Interval
    flagged: Interval


def cell(rows: Sequence[Row]) -> Cell:
    """Summarise maps."""
    speak = speaking(rows)
    of, names = [r["sentence"] for r in rows], [r["sentence"] for r in speak]

    def mean(key: str, some: Sequence[Row], groups: Sequence[str]) -> Interval:
        return bootstrap([r[key] for r in some], groups=groups)

    shares = {key: rate([r[key] for r in speak], names) for key in ("false", "wrong", "alarm", "flagged")}
    return Cell(
        len(rows), rate([r["silent"] for r in rows], of), shares["false"], shares["wrong"], shares["alarm"],
        mean("effect", speak, names), mean("mean_distance", rows, of), mean("mean_put_in", rows, of),
        mean("distance", speak, names), shares["flagged"],
    )  # fmt: skip


def speaking(rows: Sequence[Row]) -> list[Row]:
    """Maps that name a place."""
    return [r for r in rows if not r["silent"]]


def by(rows: Sequence[Row], *keys: str) -> dict[tuple[str, ...], list[Row]]:
    """Rows by the values of some columns, in order of first appearance."""
    out: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        out.setdefault(tuple(row[k] for k in keys), []).append(row)
    return out


# -- does distance predict? ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Relation:
    """Whether distance predicts falseness.

    Attributes:
        within: among maps of one corruption and one kind of patch, by the distance of the named window.
        given_effect: the same with the effect size taken out of the distance.
        put_in: the same by the distance of what was put in.
        pooled: among all maps.
        windows: among control windows of one corruption and one kind: distance against an effect of ``ALARM`` or more.
        across: rank correlation over cells of mean distance and share of false maps.
        gain: share of false maps among flagged ones less that among the others.
    """

    within: Concordance
    given_effect: Concordance
    put_in: Concordance
    pooled: Concordance
    windows: Concordance
    across: Interval
    gain: Interval


def relation(rows: Sequence[Row], seed: int = 0, n_resamples: int = 2000) -> Relation:
    """Relate distance to falseness.

    Args:
        rows: maps.
        seed: of resampling and shuffling.
        n_resamples: how often each is done.
    """
    speak = speaking(rows)
    false, units = [r["false"] for r in speak], [r["sentence"] for r in speak]
    cells = [f"{r['corruption']} {r['kind']}" for r in speak]
    distance = [r["distance"] for r in speak]
    far = [
        (d, e >= ALARM, r["sentence"], f"{r['corruption']} {r['kind']}")
        for r in speak
        for d, e in zip(r["far_distance"], r["far_effect"])
    ]
    columns = [list(column) for column in zip(*far)] if far else [[], [], [], []]
    options: dict[str, int] = {"seed": seed, "n_resamples": n_resamples}
    return Relation(
        concordance(distance, false, units, cells, **options),
        concordance(distance, false, units, cells, [r["effect"] for r in speak], **options),
        concordance([r["put_in"] for r in speak], false, units, cells, **options),
        concordance(distance, false, units, **options),
        concordance(*columns, **options),
        across_cells(speak, **options),
        flagged_gain(speak, **options),
    )  # fmt: skip


def across_cells(rows: Sequence[Row], seed: int = 0, n_resamples: int = 2000) -> Interval:
    """Rank correlation, over corruption x kind, of the mean distance of named windows and the share of false maps.

    Its interval draws sentences, and computes both numbers of every cell again.
    """
    nan = float("nan")
    cells, of = np.unique([f"{r['corruption']} {r['kind']}" for r in rows], return_inverse=True)
    names, unit = np.unique([r["sentence"] for r in rows], return_inverse=True)
    if len(cells) < 3 or not np.isfinite([r["distance"] for r in rows]).any():
        return Interval(nan, nan, nan, len(names))
    sums = np.zeros((3, len(names), len(cells)))
    for part, key in enumerate(("distance", "false")):
        np.add.at(sums[part], (unit, of), [float(r[key]) for r in rows])
    np.add.at(sums[2], (unit, of), 1.0)

    def rho(weights: np.ndarray) -> float:
        distance, false, n = weights @ sums
        there = n > 0
        if there.sum() < 3:
            return nan
        return _rank_correlation(distance[there] / n[there], false[there] / n[there])

    value = rho(np.ones(len(names)))
    if len(names) < 2:
        return Interval(value, nan, nan, len(names))
    rng = np.random.default_rng(seed)
    draws = np.array([rho(w) for w in rng.multinomial(len(names), np.full(len(names), 1 / len(names)), n_resamples)])
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return Interval(value, nan, nan, len(names))
    low, high = np.quantile(draws, (0.025, 0.975))
    return Interval(value, float(low), float(high), len(names))


def _rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    a, b = (ranks_within(v, np.zeros(len(v))) for v in (x, y))
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else float("nan")


def flagged_gain(rows: Sequence[Row], seed: int = 0, n_resamples: int = 2000) -> Interval:
    """Share of false maps among those whose named window leaves the natural states, less that among the others."""

    def gain(values: np.ndarray) -> float:
        flagged = values[:, 0] > 0
        if flagged.all() or not flagged.any():
            return float("nan")
        return float(values[flagged, 1].mean() - values[~flagged, 1].mean())

    pairs = np.array([[r["flagged"], r["false"]] for r in rows], float).reshape(-1, 2)
    return bootstrap(pairs, gain, groups=[r["sentence"] for r in rows], n_resamples=n_resamples, seed=seed)
