"""What the maps of the out-of-distribution study say: rates and distances by cell, whether the one predicts the other, and
what to patch with.

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
from otoscope.runs import Claim, Control, Threshold
from otoscope.stats import Interval, bootstrap
from otoscope.studies.distance_grid import Kind
from otoscope.studies.distance_pairs import CORRUPTIONS

Row = dict[str, Any]

#: at most this share of the maps of a trustworthy kind of patch is false; 24 sentences without a false map can show it
TRUSTED = 0.15
#: a kind of patch is at natural distance where at most this share of its named windows leaves the natural states
NATURAL = 0.1
#: a kind of patch that names nothing more often than this is not recommended
MOST_SILENT = 0.5
#: share of maps that may name a place where there is nothing to find
BY_CHANCE = 0.05
#: p value of a concordance against shuffled outcomes
ALPHA = 0.05


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


# -- what to patch with --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recommended:
    """The choice, made on every other sentence and judged on the rest.

    Attributes:
        corruption, kind: what was chosen.
        by_kind, by_corruption: maps of the sentences that took no part in the choice: of that kind, of that corruption.
        everything: all maps of those sentences.
        worst: the kind with the most false maps among them.
        worst_cell: its maps.
    """

    corruption: str
    kind: str
    by_kind: Cell
    by_corruption: Cell
    everything: Cell
    worst: str
    worst_cell: Cell


def recommend(rows: Sequence[Row]) -> Recommended | None:
    """Choose the kind of patch and the corruption with the fewest false maps at natural distance.

    Of the kinds whose named windows are natural (at most :data:`NATURAL` of them flagged) and which speak, the one with
    the lowest upper bound of its share of false maps; among equals, the one with the largest effect. The corruption
    likewise, over all kinds that put in states of the other run. None where nothing speaks in either half.
    """
    order = {name: i for i, name in enumerate(dict.fromkeys(r["sentence"] for r in rows))}
    chosen_on = [r for r in rows if order[r["sentence"]] % 2 == 0]
    judged_on = [r for r in rows if order[r["sentence"]] % 2 == 1]
    # a choice that the other half cannot judge would be no recommendation
    kinds = _best(chosen_on, judged_on, "kind")
    states = [r for r in chosen_on if r["kind"].endswith(("-donor", "-half"))]
    corruptions = _best(states or chosen_on, judged_on, "corruption")
    if kinds is None or corruptions is None:
        return None
    worst, of_worst = max(
        ((name, cell(group)) for (name,), group in by(judged_on, "kind").items()),
        key=lambda item: (np.nan_to_num(item[1].false.value, nan=-1.0), item[1].false.low, item[0]),
    )
    return Recommended(
        corruptions, kinds, cell([r for r in judged_on if r["kind"] == kinds]),
        cell([r for r in judged_on if r["corruption"] == corruptions]), cell(judged_on), worst, of_worst,
    )  # fmt: skip


def _best(rows: Sequence[Row], others: Sequence[Row], key: str) -> str | None:
    known = {r[key] for r in speaking(others)}
    cells = [(name, cell(group)) for (name,), group in by(rows, key).items() if name in known]
    cells = [(name, c) for name, c in cells if c.silent.value <= MOST_SILENT and not np.isnan(c.false.value)]
    natural = [(name, c) for name, c in cells if c.flagged.value <= NATURAL]
    if not natural and cells:
        least = min(c.flagged.value for _, c in cells)
        natural = [(name, c) for name, c in cells if c.flagged.value == least]
    if not natural:
        return None
    return min(natural, key=lambda item: (round(item[1].false.high, 2), -item[1].effect.value, item[0]))[0]


def sentence_of(found: Recommended, kinds: Sequence[Kind]) -> str:
    """The recommendation as a sentence, with its numbers."""
    words = {kind.name: kind.words for kind in kinds}
    by_kind, by_corruption = found.by_kind, found.by_corruption
    change = CORRUPTIONS[found.corruption][0] if found.corruption in CORRUPTIONS else found.corruption
    return (
        f"Put in {words.get(found.kind, found.kind)}, and compare with {change}: on sentences that took no part in the choice, "
        f"{_share(by_kind.false)} of this patch's maps and {_share(by_corruption.false)} of this corruption's are false, "
        f"against {_share(found.everything.false)} of all. {_share(by_kind.flagged)} of the windows that the patch names leave "
        f"the natural states. Distrust {words.get(found.worst, found.worst)}: {_share(found.worst_cell.false)} false."
    )


def _share(x: Interval) -> str:
    return f"{x.value:.0%} [{x.low:.0%}, {x.high:.0%}]"


# -- claims and metrics --------------------------------------------------------------------------------------------------


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
