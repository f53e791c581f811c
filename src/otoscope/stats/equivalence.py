"""Equivalence: is a mean so close to 0 that the difference does not matter? "Not significant" does not say so.

Two one-sided tests (TOST; Schuirmann 1987): with a margin ``m`` fixed beforehand, both "the mean is at most -m" and "the mean is
at least m" are tested; the larger p value is that of the equivalence test. It holds at 5% exactly when the 90% interval lies
inside (-m, m). Either by Student's t over the units or by the bootstrap over them; values of one group (an utterance's, a
speaker's) are averaged first, since they are not independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from otoscope.stats.bootstrap import bootstrap, units_of


class Equivalence(NamedTuple):
    """What an equivalence test found."""

    mean: float
    low: float
    """the interval at level 1 - 2 alpha, whose place between the margins is the test"""
    high: float
    margin: float
    p: float
    """of the harder of the two one-sided tests"""
    n: int
    """units"""
    alpha: float = 0.05

    @property
    def equivalent(self) -> bool:
        """Whether the mean is within the margin at level ``alpha``; never so where there are fewer than two units."""
        return self.p < self.alpha


def tost(
    differences: ArrayLike,
    margin: float,
    groups: Sequence[Any] | NDArray[Any] | None = None,
    alpha: float = 0.05,
    method: Literal["t", "bootstrap"] = "t",
    seed: int = 0,
) -> Equivalence:
    """Test that the mean of paired differences lies within ``-margin`` and ``margin``.

    differences: ``[n]``, in the unit of ``margin``; divide both by a standard for a standardised test. NaNs are dropped.
    groups: ``[n]`` labels; the values of a label are averaged. With no spread at all, p is 0 inside the margin and 1 outside.

    Raises ValueError on a margin that is not positive, an alpha outside (0, .5), or an unknown method.
    """
    if not margin > 0:
        raise ValueError(f"a margin is positive, not {margin}: how large a difference would matter?")
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha is between 0 and .5, not {alpha}")
    if method not in ("t", "bootstrap"):
        raise ValueError(f"method is 't' or 'bootstrap', not {method!r}")
    values = np.asarray(differences, dtype=float)
    missing = np.isnan(values)
    units = units_of(groups, missing, int((~missing).sum()))
    means = np.array([values[~missing][unit].mean() for unit in units])
    n = len(means)
    if n < 2:
        return Equivalence(
            float(means.mean()) if n else float("nan"), float("nan"), float("nan"), margin, 1.0, n, alpha
        )
    mean = float(means.mean())
    if method == "bootstrap":
        found = bootstrap(means, level=1 - 2 * alpha, n_resamples=5000, seed=seed)
        draws = np.random.default_rng(seed).integers(0, n, size=(5000, n))
        replicates = means[draws].mean(axis=1)
        p = max(float((replicates >= margin).mean()), float((replicates <= -margin).mean()), 1 / 5001)
        return Equivalence(
            mean, found.low, found.high, margin, p if means.std() else float(abs(mean) >= margin), n, alpha
        )
    error = float(means.std(ddof=1)) / np.sqrt(n)
    if error == 0:
        return Equivalence(mean, mean, mean, margin, 0.0 if abs(mean) < margin else 1.0, n, alpha)
    reach = error * float(stats.t.ppf(1 - alpha, n - 1))
    below = float(stats.t.sf((mean + margin) / error, n - 1))  # of "the mean is at most -margin"
    above = float(stats.t.cdf((mean - margin) / error, n - 1))  # of "the mean is at least margin"
    return Equivalence(mean, mean - reach, mean + reach, margin, max(below, above), n, alpha)
