"""Bootstrap intervals over the units that vary: pairs, utterances or speakers, never frames.

Percentile and BCa intervals after Efron & Tibshirani, *An Introduction to the Bootstrap* (1993), chapters 13 and 14.
Values that share a unit (two utterances of one speaker) are drawn together, because they are not independent.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

Statistic = Callable[[NDArray[Any]], Any]


class Interval(NamedTuple):
    """An estimate and how far it can be trusted.

    ``low`` and ``high`` are NaN when fewer than two units were seen: one pair says nothing about the next.
    """

    value: float
    low: float
    high: float
    n: int
    """Units resampled (groups when groups were given), after missing values were dropped."""
    level: float = 0.95
    dropped: int = 0
    """Values left out because they were NaN."""


def ratio_of_sums(rows: NDArray[Any]) -> float:
    """Sum of column 0 over sum of column 1; the statistic of a word error rate (errors, words) per utterance.

    rows: ``[n, 2]``. NaN when the denominator is 0.
    """
    below = float(rows[:, 1].sum())
    return float(rows[:, 0].sum()) / below if below else float("nan")


def bootstrap(
    values: ArrayLike,
    statistic: Statistic = np.mean,
    groups: Sequence[Any] | NDArray[Any] | None = None,
    n_resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    method: Literal["percentile", "bca"] = "percentile",
) -> Interval:
    """Interval of ``statistic`` over units drawn with replacement.

    values: ``[n]``, or ``[n, columns]`` for a statistic of several columns (``ratio_of_sums``); a row with a NaN is
    dropped and counted. groups: ``[n]`` labels; rows with one label are drawn together. With fewer than about 15 units
    percentile intervals are too short (at n=10 a 95% one covers about 90%); BCa helps skewed statistics, not small n.

    Raises ValueError on mismatched lengths, an unknown method or a level outside (0, 1).
    """
    rows = np.asarray(values, dtype=float)
    if rows.ndim == 0:
        raise ValueError("bootstrap needs a sequence of values, one per unit, not a single number")
    if not 0 < level < 1:
        raise ValueError(f"level is a share between 0 and 1, not {level}")
    if method not in ("percentile", "bca"):
        raise ValueError(f"method is 'percentile' or 'bca', not {method!r}")
    missing = np.asarray(np.isnan(rows.reshape(len(rows), -1)).any(axis=1)) if len(rows) else np.zeros(0, bool)
    rows = rows[~missing]
    units = units_of(groups, missing, len(rows))
    n, dropped = len(units), int(missing.sum())
    if n == 0:
        return Interval(float("nan"), float("nan"), float("nan"), 0, level, dropped)
    value = float(statistic(rows))
    if n < 2:
        return Interval(value, float("nan"), float("nan"), n, level, dropped)
    replicates = _replicates(rows, statistic, units, groups is not None, n_resamples, seed)
    replicates = replicates[~np.isnan(replicates)]
    if replicates.size == 0:
        return Interval(value, float("nan"), float("nan"), n, level, dropped)
    shares = np.array([(1 - level) / 2, (1 + level) / 2])
    if method == "bca":
        shares = _bca_shares(rows, statistic, units, value, replicates, shares)
    low, high = np.quantile(replicates, shares)
    return Interval(value, float(low), float(high), n, level, dropped)


def bootstrap_map(
    values: ArrayLike,
    groups: Sequence[Any] | NDArray[Any] | None = None,
    n_resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Mean and percentile interval of every cell of a map at once: ``[n, *cells]`` -> three arrays ``[*cells]``.

    The same resamples serve all cells. NaN values are left out cell by cell; a cell with fewer than two units has NaN
    bounds. The intervals are per cell; for "which cells are significant" use ``sign_flip_map``, which is family-wise.
    """
    rows = np.asarray(values, dtype=float)
    n, cells = len(rows), rows.shape[1:]
    flat = rows.reshape(n, -1)
    units = units_of(groups, np.zeros(n, bool), n)
    member = np.zeros((len(units), n))
    for i, index in enumerate(units):
        member[i, index] = 1.0
    there = ~np.isnan(flat)
    sums, counts = member @ np.where(there, flat, 0.0), member @ there.astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = sums.sum(0) / counts.sum(0)
    low, high = np.full(flat.shape[1], np.nan), np.full(flat.shape[1], np.nan)
    enough = (counts > 0).sum(0) >= 2
    if enough.any():
        rng = np.random.default_rng(seed)
        draws = rng.multinomial(len(units), np.full(len(units), 1 / len(units)), size=n_resamples).astype(float)
        wanted = np.flatnonzero(enough)
        block = max(1, int(2e6 // n_resamples))
        for start in range(0, len(wanted), block):
            at = wanted[start : start + block]
            with np.errstate(invalid="ignore", divide="ignore"):
                replicates = (draws @ sums[:, at]) / (draws @ counts[:, at])
            low[at], high[at] = np.nanquantile(replicates, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return mean.reshape(cells), low.reshape(cells), high.reshape(cells)


def bootstrap_sums(
    sums: ArrayLike,
    statistic: Statistic,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of a statistic of totals, for what is a function of sums over units.

    Thousands of frames per unit then cost no more than one row: an explained variance, a variance ratio of each of
    thousands of features, or a balanced accuracy are functions of a few sums per utterance.

    sums: ``[unit, *columns]``, each unit's own sums. statistic: from totals ``[*columns]`` to a number; NaN where it is not
    defined. A unit whose sums are all 0 contributes nothing and is not counted.
    """
    rows = np.asarray(sums, dtype=float)
    columns = rows.shape[1:]
    flat = rows.reshape(len(rows), -1)
    flat = flat[(flat != 0).any(axis=1)]
    n = len(flat)
    value = float(statistic(flat.sum(axis=0).reshape(columns)))
    if n < 2 or np.isnan(value):
        return Interval(value, float("nan"), float("nan"), n, level)
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_resamples).astype(float)
    replicates = np.empty(n_resamples)
    block = max(1, int(4e6 // flat.shape[1]))
    for start in range(0, n_resamples, block):
        totals = draws[start : start + block] @ flat
        replicates[start : start + block] = [float(statistic(row.reshape(columns))) for row in totals]
    replicates = replicates[~np.isnan(replicates)]
    if replicates.size == 0:
        return Interval(value, float("nan"), float("nan"), n, level)
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), n, level)


def units_of(groups: Any, missing: NDArray[Any], n: int) -> list[NDArray[Any]]:
    """Row indices of each unit, in order of first appearance so that a relabelling changes nothing."""
    if groups is None:
        return [np.array([i]) for i in range(n)]
    labels = np.asarray(groups)
    if labels.shape != missing.shape:
        raise ValueError(f"groups has {labels.size} labels for {missing.size} values: give one label per value")
    _, first, inverse = np.unique(labels[~missing], return_index=True, return_inverse=True)
    return [np.flatnonzero(inverse == g) for g in np.argsort(first)]


def _replicates(
    rows: NDArray[Any], statistic: Statistic, units: list[NDArray[Any]], grouped: bool, n_resamples: int, seed: int
) -> NDArray[Any]:
    n = len(units)
    draws = np.random.default_rng(seed).integers(0, n, size=(n_resamples, n))
    if statistic is np.mean and rows.ndim == 1:
        sums = np.array([rows[u].sum() for u in units])
        sizes = np.array([len(u) for u in units], dtype=float)
        return sums[draws].sum(1) / sizes[draws].sum(1)
    if statistic is np.median and rows.ndim == 1 and not grouped:
        return np.median(rows[draws], axis=1)
    return np.array([float(statistic(rows[np.concatenate([units[i] for i in draw])])) for draw in draws])


def _bca_shares(
    rows: NDArray[Any],
    statistic: Statistic,
    units: list[NDArray[Any]],
    value: float,
    replicates: NDArray[Any],
    shares: NDArray[Any],
) -> NDArray[Any]:
    """Quantiles to read instead of the plain ones: corrected for bias and acceleration (Efron 1987, equation 14.10)."""
    below = ((replicates < value).mean() + (replicates <= value).mean()) / 2
    if not 0 < below < 1:
        return shares
    bias = ndtri(below)
    left_out = np.array([float(statistic(np.delete(rows, unit, axis=0))) for unit in units])
    away = left_out.mean() - left_out
    spread = (away**2).sum()
    acceleration = (away**3).sum() / (6 * spread**1.5) if spread > 0 else 0.0
    z = bias + ndtri(shares)
    return ndtr(bias + z / (1 - acceleration * z))
