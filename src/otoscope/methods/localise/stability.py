"""How stable a method's ranking of places is: over resampled items, and over seeds.

Two measures of how alike two rankings are: Spearman's rho of all places, and the Jaccard index of the three that rank
first, ``|A and B| / |A or B|``. A ranking that is stable need not be right; one that is not cannot be.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from otoscope.errors import TaskError
from otoscope.methods.localise.case import Case, scored
from otoscope.methods.localise.registry import Score
from otoscope.stats.ranking import mean_score, mid_ranks

#: how many first places are compared
FIRST = 3


@dataclass(frozen=True)
class Stability:
    """How alike rankings are.

    Attributes:
        spearman: mean rank correlation of all places; NaN where a ranking is one tie.
        jaccard: mean overlap of the first three places; ties are broken at random, for each ranking anew.
        n: pairs of rankings compared.
    """

    spearman: float
    jaccard: float
    n: int


def over_items(score: Score, case: Case, n_halves: int = 20, seed: int = 0) -> Stability:
    """Stability over items: two halves that share no item, each resampled with replacement, many times.

    Args:
        score: the method. Where it scores items one by one, it is asked once; where it pools them, once per different half.
        case: of at least two items.
        n_halves: divisions of the items.
        seed: of the divisions.

    Raises:
        TaskError: fewer than two items.
    """
    if case.n_items < 2:
        raise TaskError(f"the case '{case.name}' has {case.n_items} item: two halves need at least 2.")
    rng = np.random.default_rng(seed)
    rows = scored(score, case)
    pooled = {} if len(rows) != case.n_items else None

    def of(items: np.ndarray) -> np.ndarray:
        if pooled is None:
            return mean_score(rows[items])
        key = tuple(sorted(items.tolist()))
        if key not in pooled:
            part = copy.copy(case)
            part.items = [case.items[i] for i in key]
            pooled[key] = mean_score(scored(score, part))
        return pooled[key]

    pairs = []
    for _ in range(n_halves):
        order = rng.permutation(case.n_items)
        halves = order[: len(order) // 2], order[len(order) // 2 :]
        first, second = (of(rng.choice(half, len(half))) for half in halves)
        pairs.append((first, second))
    return _alike(pairs, rng)


def over_seeds(score: Score, case: Case, seeds: Sequence[int] = (0, 1, 2)) -> Stability:
    """Stability over seeds: the method is asked once per seed, and every two answers are compared.

    Args:
        score: the method.
        case: the case; its own seed is replaced.
        seeds: at least two.

    Raises:
        TaskError: fewer than two seeds.
    """
    if len(seeds) < 2:
        raise TaskError(f"{len(seeds)} seed cannot be compared: give at least 2.")
    found = []
    for seed in seeds:
        again = copy.copy(case)
        again.seed = seed
        found.append(mean_score(scored(score, again)))
    return _alike(list(combinations(found, 2)), np.random.default_rng(0))


def _alike(pairs: Sequence[tuple[np.ndarray, np.ndarray]], rng: np.random.Generator) -> Stability:
    rho, overlap = [], []
    for first, second in pairs:
        a, b = mid_ranks(first), mid_ranks(second)
        if a.std() and b.std():
            rho.append(float(((a - a.mean()) * (b - b.mean())).mean() / (a.std() * b.std())))
        tops = [set(_first(ranks, rng)) for ranks in (a, b)]
        overlap.append(len(tops[0] & tops[1]) / len(tops[0] | tops[1]))
    return Stability(float(np.mean(rho)) if rho else float("nan"), float(np.mean(overlap)), len(pairs))


def _first(ranks: np.ndarray, rng: np.random.Generator) -> list[int]:
    shuffled = rng.permutation(len(ranks))
    return shuffled[np.argsort(ranks[shuffled], kind="stable")][:FIRST].tolist()
