"""A method's own verdict "there is no fault": its highest score is no higher than healthy models give it.

The threshold is set by split conformal prediction (Papadopoulos et al. 2002; Lei et al. 2018, section 2.2). Of ``n`` healthy
cases take the highest score of each; the threshold is the

    k-th smallest of them,  k = ceil((n + 1) (1 - alpha)),

and a case is called faulty when its highest score exceeds it. If a new healthy case is exchangeable with the ``n``, it is
called healthy with a probability of at least ``k / (n + 1)``, whatever the scores are. Where ``n`` is too small for
``alpha`` (``k > n``), the threshold is the largest of the ``n`` and the level that is left is ``n / (n + 1)``; the verdict
says which level it holds.

The probability is one over calibration and new case together. With one calibration at hand, the share of healthy cases
that is called healthy is spread around it: Beta(k, n + 1 - k) for scores without ties.

Cases that share items are *not* exchangeable with cases of other items: one item with large scores lifts many sets of the
calibration, or of the new cases, at once, and the level is lost. :func:`calibrated_by_item` counts items instead. A mean
over ``m`` items exceeds a threshold only where an item does, and ``m`` new items stay below the k-th smallest of ``n`` with
the probability

    k (k + 1) ... (k + m - 1) / ((n + 1) (n + 2) ... (n + m))

(all orders of ``n + m`` exchangeable values are equally likely), ``n / (n + m)`` for the largest. That is a guarantee for
cases of ``m`` new items, and a cautious one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from otoscope.errors import TaskError
from otoscope.stats.ranking import mean_score


@dataclass(frozen=True)
class Verdict:
    """A threshold between "no fault" and "fault".

    Attributes:
        threshold: the highest score that is still called healthy.
        n_calibration: healthy cases it was set by.
        level: probability, at least, that a healthy case like them is called healthy.
    """

    threshold: float
    n_calibration: int
    level: float

    def says_fault(self, scores: Float[np.ndarray, "*item place"]) -> bool:
        """Whether the scores of one case are called a fault.

        Args:
            scores: ``[place]``, or ``[item, place]`` of which the mean over items is taken. Scores that are all NaN or 0
                say nothing, and are no fault whatever the threshold.
        """
        top = top_score(scores)
        return top > self.threshold and bool(np.nan_to_num(np.asarray(scores, dtype=float)).any())


def calibrated(healthy: Sequence[Float[np.ndarray, "*item place"]], alpha: float = 0.02) -> Verdict:
    """The verdict whose level is ``1 - alpha``.

    Args:
        healthy: scores of cases without a fault, each ``[place]`` or ``[item, place]``.
        alpha: share of healthy cases that may be called faulty.

    Raises:
        TaskError: no healthy case, or ``alpha`` is no share.
    """
    tops = _tops(healthy, alpha)
    n = len(tops)
    k = min(n, math.ceil((n + 1) * (1 - alpha) - 1e-9))
    return Verdict(float(tops[k - 1]), n, k / (n + 1))


def calibrated_by_item(rows: Float[np.ndarray, "item place"], n_items: int, alpha: float = 0.02) -> Verdict:
    """The verdict for cases of ``n_items`` new items each, whose scores are means over items.

    Use it where healthy cases would have to share items. It does not hold for methods that score all items at once.

    Args:
        rows: scores of the healthy model, one row per item; no two rows of one item.
        n_items: items of a case that is judged.
        alpha: share of healthy cases that may be called faulty.

    Raises:
        TaskError: no row, a case of no items, or ``alpha`` is no share.
    """
    if n_items < 1:
        raise TaskError(f"a case of {n_items} items cannot be judged: give how many items a case has, at least 1.")
    tops = _tops(list(rows), alpha)
    n = len(tops)

    def level(k: int) -> float:
        return math.prod((k + j) / (n + 1 + j) for j in range(n_items))

    k = next((k for k in range(1, n + 1) if level(k) >= 1 - alpha - 1e-9), n)
    return Verdict(float(tops[k - 1]), n, level(k))


def top_score(scores: Float[np.ndarray, "*item place"]) -> float:
    """The highest score of one case; minus infinity where nothing is said of any place."""
    mean = mean_score(scores)
    return -math.inf if np.isnan(mean).all() else float(np.nanmax(mean))


def _tops(healthy: Sequence[Float[np.ndarray, "*item place"]], alpha: float) -> Float[np.ndarray, " case"]:
    """The highest scores of the healthy cases, from the smallest to the largest."""
    if not 0 < alpha < 1:
        raise TaskError(f"alpha is {alpha:g}: give the share of healthy cases that may be called faulty, such as 0.02.")
    if len(healthy) == 0:
        raise TaskError("there is no healthy case to set the threshold by: give the scores of at least one.")
    return np.sort([top_score(scores) for scores in healthy])
