"""What to patch with: the kind of patch and the corruption with the fewest false maps at natural distance.

The choice is made on every other sentence; its numbers come from the rest, so that luck in choosing does not flatter them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from otoscope.stats import Interval
from otoscope.studies.distance_grid import Kind
from otoscope.studies.distance_pairs import CORRUPTIONS
from otoscope.studies.distance_table import Cell, Row, by, cell, speaking

#: a kind of patch is at natural distance where at most this share of its named windows leaves the natural states
NATURAL = 0.1
#: a kind of patch that names nothing more often than this is not recommended
MOST_SILENT = 0.5


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


def short_sentence(found: Recommended, kinds: Sequence[Kind]) -> str:
    """The recommendation as a sentence, with its numbers."""
    words = {kind.name: kind.words for kind in kinds}
    change = CORRUPTIONS[found.corruption][0] if found.corruption in CORRUPTIONS else found.corruption
    return (
        f"Put in {words.get(found.kind, found.kind)}, and compare with {change}: on sentences that took no part in the choice, "
        f"{_share(found.by_kind.false)} of this patch's maps and {_share(found.by_corruption.false)} of this corruption's are "
        f"false, against {_share(found.everything.false)} of all."
    )


def sentence_of(found: Recommended, kinds: Sequence[Kind]) -> str:
    """The same with how natural the patch is, and what to distrust."""
    words = {kind.name: kind.words for kind in kinds}
    return (
        f"{short_sentence(found, kinds)} {_share(found.by_kind.flagged)} of the windows that the patch names leave the natural "
        f"states. Distrust {words.get(found.worst, found.worst)}: {_share(found.worst_cell.false)} false."
    )


def _share(x: Interval) -> str:
    return f"{x.value:.0%} [{x.low:.0%}, {x.high:.0%}]"
