"""Tests that ask little of the data: sign flips for paired differences, exact binomial, rank correlation, and the
corrections for asking many questions at once.

A paired difference has, under the null, a sign that could as well be the other one; flipping signs gives the null
exactly, whatever the shape of the values (Fisher 1935). The map test takes the largest cell of every flipped map, so
that the chance of *any* false cell is bounded (Westfall & Young 1993, step-down maxT; Nichols & Holmes 2002 for maps).
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from otoscope.stats.bootstrap import Interval, bootstrap, units_of

Alternative = Literal["two-sided", "greater", "less"]
_TIE = 1e-9  # sums of the same numbers in another order must count as equal


def sign_flip(
    differences: ArrayLike,
    alternative: Alternative = "two-sided",
    groups: Sequence[Any] | NDArray[Any] | None = None,
    n_permutations: int = 10_000,
    seed: int = 0,
) -> float:
    """p value of "the mean paired difference is 0", by flipping the sign of each unit. NaN when nothing is left.

    differences: ``[n]``; NaNs are dropped. groups: ``[n]``, labels of units that flip together. Exact (all 2^n flips)
    whenever 2^n <= n_permutations, else sampled, with the observed arrangement counted among the samples. The smallest
    p that n units can give is 2 / 2^n (two-sided): below 6 units nothing can be significant at 5%.
    """
    p = sign_flip_map(np.asarray(differences, float)[:, None], alternative, groups, n_permutations, seed)
    return float(p[0])


def sign_flip_map(
    values: ArrayLike,
    alternative: Alternative = "two-sided",
    groups: Sequence[Any] | NDArray[Any] | None = None,
    n_permutations: int = 10_000,
    seed: int = 0,
    statistic: Literal["mean", "t"] = "mean",
    floor: float = 0.0,
) -> NDArray[Any]:
    """Family-wise p value of every cell of a map: ``[n_pairs, *cells]`` -> ``[*cells]``.

    A cell with p < .05 is one that chance would make *any* cell of the map reach less than 5% of the time. Step-down,
    so a strong cell does not hide a weaker one more than it must.

    statistic: ``"mean"`` where the cells share a scale (patching effects do) keeps its power with few pairs and many
    cells; ``"t"`` gives cells of unequal variance an equal chance but needs more pairs. floor: values within +-floor
    are taken as 0; rounding noise keeps its sign from pair to pair and would otherwise be "significant".
    NaN values count as 0 and cells that are NaN for every pair stay NaN.
    """
    raw = np.asarray(values, dtype=float)
    if raw.ndim < 2:
        raise ValueError("a map is [n_pairs, *cells]: give at least two dimensions, or use sign_flip")
    cells = raw.shape[1:]
    flat = raw.reshape(len(raw), -1)
    empty = np.isnan(flat).all(axis=0) if len(flat) else np.ones(flat.shape[1], bool)
    present = ~np.asarray(
        np.isnan(flat).all(axis=1)
    )  # a pair with no value at all must not enlarge the number of flips
    units = units_of(groups, ~present, int(present.sum()))
    flat = np.where(np.isnan(flat) | (np.abs(flat) <= floor), 0.0, flat)[present]
    out = np.full(flat.shape[1], np.nan)
    wanted = np.flatnonzero(~empty)
    if len(units) == 0 or len(wanted) == 0:
        return out.reshape(cells)
    sums = np.stack([flat[u].sum(axis=0) for u in units])[:, wanted]
    scale = np.full(len(wanted), float(len(flat)))
    if statistic == "t":  # S / sqrt(sum of squares) is a monotone function of t, and finite where all values agree
        scale = np.sqrt((sums**2).sum(axis=0))
        scale[scale == 0] = 1.0
    out[wanted] = _step_down(sums / scale, alternative, n_permutations, seed)
    return out.reshape(cells)


def _step_down(x: NDArray[Any], alternative: Alternative, n_permutations: int, seed: int) -> NDArray[Any]:
    """Step-down maxT p values of the column sums of ``x [units, cells]`` under sign flips."""
    sign = {"two-sided": np.abs, "greater": np.asarray, "less": np.negative}[alternative]
    observed = sign(x.sum(axis=0))
    order = np.argsort(observed, kind="stable")  # ascending: a running maximum then covers "this cell and weaker ones"
    x, observed = x[:, order], observed[order]
    slack = _TIE * max(float(np.abs(x).sum(axis=0).max()), np.finfo(float).tiny)
    n, exact = len(x), 2 ** min(len(x), 62) <= n_permutations
    rng = np.random.default_rng(seed)
    total = 2**n if exact else n_permutations
    hits = np.zeros(x.shape[1])
    block = max(1, int(4e6 // max(x.shape[1], 1)))
    for start in range(0, total, block):
        size = min(block, total - start)
        if exact:
            flips = ((np.arange(start, start + size)[:, None] >> np.arange(n)) & 1) * 2.0 - 1.0
        else:
            flips = rng.integers(0, 2, size=(size, n)) * 2.0 - 1.0
        largest = np.maximum.accumulate(sign(flips @ x), axis=1)
        hits += (largest >= observed - slack).sum(axis=0)
    p = hits / total if exact else (hits + 1) / (total + 1)
    p = np.maximum.accumulate(p[::-1])[::-1]  # a weaker cell is never more significant than a stronger one
    out = np.empty_like(p)
    out[order] = np.minimum(p, 1.0)
    return out


def holm(p_values: ArrayLike) -> NDArray[Any]:
    """Holm's step-down adjusted p values (family-wise), same shape. NaNs stay NaN and are not counted as tests."""
    return _adjust(p_values, lambda p, m: np.maximum.accumulate(p * (m - np.arange(m))))


def benjamini_hochberg(p_values: ArrayLike) -> NDArray[Any]:
    """Benjamini-Hochberg adjusted p values (false discovery rate), same shape. NaNs stay NaN and are not counted."""
    return _adjust(p_values, lambda p, m: np.minimum.accumulate((p * m / np.arange(1, m + 1))[::-1])[::-1])


def _adjust(p_values: ArrayLike, rule: Any) -> NDArray[Any]:
    p = np.asarray(p_values, dtype=float)
    flat, out = p.ravel(), np.full(p.size, np.nan)
    there = np.flatnonzero(~np.isnan(flat))
    order = there[np.argsort(flat[there], kind="stable")]
    if len(order):
        out[order] = np.minimum(rule(flat[order], len(order)), 1.0)
    return out.reshape(p.shape)


def clopper_pearson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Exact interval of a share: successes of n (Clopper & Pearson 1934). NaN everywhere when n is 0."""
    from scipy.special import betaincinv

    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} is not possible")
    if n == 0:
        return Interval(float("nan"), float("nan"), float("nan"), 0, level)
    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else float(betaincinv(successes, n - successes + 1, tail))
    high = 1.0 if successes == n else float(betaincinv(successes + 1, n - successes, 1 - tail))
    return Interval(successes / n, low, high, n, level)


def binomial_test(successes: int, n: int, share: float = 0.5, alternative: Alternative = "two-sided") -> float:
    """Exact p value of "the true share is ``share``". NaN when n is 0."""
    from scipy.stats import binomtest

    return float(binomtest(successes, n, share, alternative).pvalue) if n else float("nan")


class Correlation(NamedTuple):
    """Rank correlation, its interval over units, and the permutation p value of "no association"."""

    rho: Interval
    p_value: float


def spearman(x: ArrayLike, y: ArrayLike, n_resamples: int = 2000, level: float = 0.95, seed: int = 0) -> Correlation:
    """Spearman's rho of ``x [n]`` and ``y [n]``, with a bootstrap interval over pairs and a two-sided permutation p.

    Ties get mean ranks; a pair with a NaN is dropped. NaN when either side is constant or fewer than 3 pairs are left.
    """
    both = np.stack([np.asarray(x, float).ravel(), np.asarray(y, float).ravel()], axis=1)
    dropped = int(np.isnan(both).any(axis=1).sum())
    both = both[~np.isnan(both).any(axis=1)]
    nan = float("nan")
    if len(both) < 3:
        return Correlation(Interval(nan, nan, nan, len(both), level, dropped), nan)
    interval = bootstrap(both, _rank_correlation, None, n_resamples, level, seed)._replace(dropped=dropped)
    if np.isnan(interval.value):
        return Correlation(interval, nan)
    rng = np.random.default_rng(seed)
    ranks = [_ranks(column) for column in both.T]
    standard = [(r - r.mean()) / r.std() for r in ranks]
    null = np.array([rng.permutation(standard[0]) @ standard[1] for _ in range(n_resamples)]) / len(both)
    hits = int((np.abs(null) >= abs(interval.value) - _TIE).sum())
    return Correlation(interval, (hits + 1) / (n_resamples + 1))


def _ranks(values: NDArray[Any]) -> NDArray[Any]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def _rank_correlation(rows: NDArray[Any]) -> float:
    a, b = _ranks(rows[:, 0]), _ranks(rows[:, 1])
    if a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(((a - a.mean()) * (b - b.mean())).mean() / (a.std() * b.std()))
