"""Does a number tell the cases where something happened from those where it did not, within groups that are alike?

The concordance (area under the ROC curve) is the share of pairs, one case that happened and one that did not, in which
the one that happened has the larger score; ties count half. Taken within strata, only cases of one stratum are compared,
so that differences between strata cannot make it (van Elteren 1960). With ``w`` the weights of the units,

    AUC(w) = (w' C w) / (w' N w),

where ``C[u, v]`` counts the concordant and ``N[u, v]`` all pairs of a case of unit ``u`` that happened and one of unit
``v`` that did not. The bootstrap over units draws ``w``; the null shuffles what happened within strata.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from otoscope.stats import Interval

#: shuffles held at once
_BLOCK = 100


@dataclass(frozen=True)
class Concordance:
    """How well a score tells what happened.

    Attributes:
        auc: 0.5 says nothing, 1 tells all; interval over units. NaN where no stratum has both outcomes.
        p_value: two-sided, against outcomes shuffled within strata.
        shuffled: mean of the shuffled concordances.
        strata: strata with both outcomes, which alone can be compared.
        pairs: pairs compared.
    """

    auc: Interval
    p_value: float
    shuffled: float
    strata: int
    pairs: int


def concordance(
    score: ArrayLike,
    happened: ArrayLike,
    unit: ArrayLike,
    stratum: ArrayLike | None = None,
    given: ArrayLike | None = None,
    *,
    n_resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Concordance:
    """Concordance of a score with what happened; cases whose score is NaN are left out.

    Args:
        score: per case.
        happened: whether it happened, per case.
        unit: what intervals resample, per case.
        stratum: only cases of one stratum are compared; None: all are.
        given: a second score whose linear part, in ranks within strata, is taken out of the first.
        n_resamples: bootstrap draws, and shuffles.
        level: of the interval.
        seed: of both.
    """
    scores, outcome = np.asarray(score, float), np.asarray(happened, bool)
    keep = np.isfinite(scores)
    if given is not None:
        keep &= np.isfinite(np.asarray(given, float))
    scores, outcome = scores[keep], outcome[keep]
    units = np.unique(np.asarray(unit)[keep], return_inverse=True)[1]
    names = np.zeros(len(scores)) if stratum is None else np.asarray(stratum)[keep]
    groups = np.unique(names, return_inverse=True)[1]
    if given is not None:
        scores = _without(scores, np.asarray(given, float)[keep], groups)
    n_units = int(units.max()) + 1 if len(units) else 0
    concordant, pairs = _pairs(scores, outcome, units, groups, n_units)
    total = float(pairs.sum())
    nan = float("nan")
    if not total:
        return Concordance(Interval(nan, nan, nan, n_units, level), nan, nan, 0, 0)
    rng = np.random.default_rng(seed)
    value = float(concordant.sum()) / total
    interval = Interval(value, nan, nan, n_units, level)
    if n_units > 1:
        weights = rng.multinomial(n_units, np.full(n_units, 1 / n_units), size=n_resamples).astype(float)
        below = np.einsum("ru,uv,rv->r", weights, pairs, weights, optimize=True)
        above = np.einsum("ru,uv,rv->r", weights, concordant, weights, optimize=True)
        draws = above[below > 0] / below[below > 0]
        low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
        interval = Interval(value, float(low), float(high), n_units, level)
    null = _shuffled(scores, outcome, groups, n_resamples, rng)
    p = (float((np.abs(null - 0.5) >= abs(value - 0.5) - 1e-12).sum()) + 1) / (n_resamples + 1)
    both = sum(0 < outcome[groups == g].sum() < (groups == g).sum() for g in np.unique(groups))
    return Concordance(interval, p, float(null.mean()), int(both), int(total))


def ranks_within(values: Float[np.ndarray, " case"], groups: np.ndarray) -> Float[np.ndarray, " case"]:
    """Ranks within groups, from 0 to 1 and centred on 0; ties share their mean rank."""
    out = np.zeros(len(values))
    for at in _members(groups):
        _, of, counts = np.unique(values[at], return_inverse=True, return_counts=True)
        ranks = np.cumsum(counts) - (counts - 1) / 2
        out[at] = (ranks[of] - (len(at) + 1) / 2) / len(at)
    return out


def _without(scores: np.ndarray, given: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """What a regression of the one's ranks on the other's leaves, one slope for all groups."""
    x, y = ranks_within(given, groups), ranks_within(scores, groups)
    return y - x * (x @ y) / max(float(x @ x), 1e-30)


def _pairs(
    scores: np.ndarray, outcome: Bool[np.ndarray, " case"], units: np.ndarray, groups: np.ndarray, n_units: int
) -> tuple[np.ndarray, np.ndarray]:
    """Concordant pairs and all pairs, by the units of the case that happened and of the one that did not."""
    concordant, pairs = np.zeros((n_units, n_units)), np.zeros((n_units, n_units))
    for at in _members(groups):
        yes, no = at[outcome[at]], at[~outcome[at]]
        if len(yes) and len(no):
            difference = scores[yes][:, None] - scores[no][None]
            where = (units[yes][:, None], units[no][None])
            np.add.at(concordant, where, (difference > 0) + 0.5 * (difference == 0))
            np.add.at(pairs, where, np.ones_like(difference))
    return concordant, pairs


def _shuffled(
    scores: np.ndarray, outcome: np.ndarray, groups: np.ndarray, n: int, rng: np.random.Generator
) -> np.ndarray:
    """Concordances with the outcomes shuffled within groups: rank sums of Wilcoxon, added over the groups."""
    order = np.argsort(groups, kind="stable")
    groups, outcome = groups[order], outcome[order]
    ranks, constant, total = np.zeros(len(scores)), 0.0, 0.0
    for at in _members(groups):
        yes, no = int(outcome[at].sum()), int((~outcome[at]).sum())
        if yes and no:
            _, of, counts = np.unique(scores[order][at], return_inverse=True, return_counts=True)
            ranks[at] = (np.cumsum(counts) - (counts - 1) / 2)[of]
            constant += yes * (yes + 1) / 2
            total += yes * no
    sums = []
    for start in range(0, n, _BLOCK):
        drawn = rng.random((min(_BLOCK, n - start), len(scores)))
        sums.append(ranks[np.argsort(groups + drawn, axis=1)] @ outcome)
    return (np.concatenate(sums) - constant) / total


def _members(groups: np.ndarray) -> list[np.ndarray]:
    return [np.flatnonzero(groups == g) for g in np.unique(groups)]
