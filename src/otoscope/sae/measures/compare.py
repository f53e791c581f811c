"""Is one kind of dictionary better than another? Intervals over recordings and trainings at once.

A measure that is a function of sums over recordings (see :func:`otoscope.stats.bootstrap_sums`) is computed for every training
of a kind on the same recordings. A resample draws recordings with replacement, the same for both kinds, so that the
comparison is paired; and trainings of each kind with replacement, so that a lucky seed is no difference. The value is the
difference of the means over trainings. Few trainings understate how much trainings vary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from otoscope.errors import TaskError
from otoscope.stats import Interval

Statistic = Callable[[np.ndarray], float]


def pooled(sums: Sequence[np.ndarray], statistic: Statistic, *, n_resamples: int = 1000, seed: int = 0) -> Interval:
    """Mean of a statistic over trainings.

    Args:
        sums: of each training, ``[recording, *columns]``, recordings in the same order.
        statistic: from totals ``[*columns]`` to a number.
        n_resamples, seed: of the interval.
    """
    value, draws = _means(sums, statistic, n_resamples, seed, 1)
    return _interval(value, draws, _there(sums))


def difference(
    first: Sequence[np.ndarray],
    second: Sequence[np.ndarray],
    statistic: Statistic,
    *,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Mean over the first kind's trainings minus that over the second's, on the same recordings.

    Raises:
        TaskError: the two were not measured on the same recordings.
    """
    if {s.shape for s in first} != {s.shape for s in second}:
        raise TaskError("two kinds of dictionaries can only be compared on the same recordings: measure both again.")
    a, draws_a = _means(first, statistic, n_resamples, seed, 1)
    b, draws_b = _means(second, statistic, n_resamples, seed, 2)
    return _interval(a - b, draws_a - draws_b, _there(first))


def _there(sums: Sequence[np.ndarray]) -> int:
    return int((np.abs(np.asarray(sums[0])).reshape(len(sums[0]), -1).sum(1) > 0).sum())


def _means(sums: Sequence[np.ndarray], statistic: Statistic, n: int, seed: int, kind: int) -> tuple[float, np.ndarray]:
    stacked = np.asarray(sums, float)
    n_kinds, n_units = stacked.shape[:2]
    value = float(np.mean([statistic(one.sum(0)) for one in stacked]))
    draws = np.random.default_rng(seed).multinomial(n_units, np.full(n_units, 1 / n_units), size=n).astype(float)
    trainings = np.random.default_rng([seed, kind]).integers(0, n_kinds, (n, n_kinds))
    each = np.empty((n_kinds, n))
    for i, one in enumerate(stacked):
        totals = draws @ one.reshape(n_units, -1)
        each[i] = [statistic(row.reshape(stacked.shape[2:])) for row in totals]
    return value, np.take_along_axis(each, trainings.T, axis=0).mean(axis=0)


def _interval(value: float, draws: np.ndarray, n: int) -> Interval:
    draws = draws[~np.isnan(draws)]
    if n < 2 or np.isnan(value) or not len(draws):
        return Interval(value, float("nan"), float("nan"), n)
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(value, float(low), float(high), n)
