"""A method's own verdict "there is no fault": its highest score is no higher than healthy models give it.

The threshold is set by split conformal prediction (Papadopoulos et al. 2002; Lei et al. 2018, section 2.2). Of ``n`` healthy
cases take the highest score of each; the threshold is the

    k-th smallest of them,  k = ceil((n + 1) (1 - alpha)),

and a case is called faulty when its highest score exceeds it. If a new healthy case is exchangeable with the ``n``, it is
called healthy with a probability of at least ``k / (n + 1)``, whatever the scores are. Where ``n`` is too small for
``alpha`` (``k > n``), the threshold is the largest of the ``n`` and the level that is left is ``n / (n + 1)``; the verdict
says which level it holds.

The probability is one over calibration and new case together. With one calibration at hand, the share of healthy cases
that is called healthy is spread around it: Beta(k, n + 1 - k) for scores without ties. Cases that share items are not
exchangeable with cases of other items, and then the level is no guarantee but an estimate.
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
    if not 0 < alpha < 1:
        raise TaskError(f"alpha is {alpha:g}: give the share of healthy cases that may be called faulty, such as 0.02.")
    n = len(healthy)
    if n == 0:
        raise TaskError("there is no healthy case to set the threshold by: give the scores of at least one.")
    tops = np.sort([top_score(scores) for scores in healthy])
    k = min(n, math.ceil((n + 1) * (1 - alpha) - 1e-9))
    return Verdict(float(tops[k - 1]), n, k / (n + 1))


def top_score(scores: Float[np.ndarray, "*item place"]) -> float:
    """The highest score of one case; minus infinity where nothing is said of any place."""
    mean = mean_score(scores)
    return -math.inf if np.isnan(mean).all() else float(np.nanmax(mean))
