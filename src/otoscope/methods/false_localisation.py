"""Is the place that a map names the place where the sounds differ?

A map over time is the effect of patching each window of a sound. Where the span of the change is known, the map is

* **silent** where its largest effect stays below :data:`SPEAKS`, or the two runs hardly differ (:data:`MARGIN`);
* **wrong** where the window of the largest effect is not in place: it touches the span, or its middle lies within
  :data:`TOLERANCE` of it;
* an **alarm** where a control window, at least :data:`FAR` from the span, has an effect of :data:`ALARM` or more.

A map that speaks is **false** when it is wrong or an alarm. The window of the largest effect is what a user of patching
reports; the alarm is what would be reported beside it. That corruption, direction and value change what patching
localises: Zhang and Nanda 2024 (arXiv 2309.16042).

Rates over several answers per sentence have exact intervals with the effective sample size of Korn and Graubard 1998
(*Survey Methodology* 24, 193-201): ``n* = p (1 - p) / var(p)``, the variance being that between sentences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import betaincinv

from otoscope.stats import Interval

#: seconds by which the middle of a named window may miss the span
TOLERANCE = 0.1
#: seconds between a control window and the span
FAR = 0.3
#: the largest effect of a map that names a place
SPEAKS = 0.1
#: effect of a control window that is a false alarm
ALARM = 0.25
#: nats by which the answers of the two runs must differ, so that there is something to find
MARGIN = 0.5


@dataclass(frozen=True)
class Judged:
    """What one map says, against the span of the change.

    Attributes:
        named: window of the largest effect; None where the map is silent.
        effect: that effect; NaN where no window has one.
        wrong: whether the named window is out of place; False where the map is silent.
        alarm: whether a control window has an effect of :data:`ALARM` or more; False where the map is silent.
        control: largest effect of a control window; NaN where none is far enough.
        far: which windows are control windows.
        chance: share of windows that would be in place.
    """

    named: int | None
    effect: float
    wrong: bool
    alarm: bool
    control: float
    far: Bool[np.ndarray, " window"]
    chance: float

    @property
    def false(self) -> bool:
        """Whether the map speaks and is wrong, or an alarm."""
        return self.wrong or self.alarm


def judge(
    effects: Float[np.ndarray, " window"],
    starts: Float[np.ndarray, " window"],
    ends: Float[np.ndarray, " window"],
    span: tuple[float, float],
    margin: float,
) -> Judged:
    """Judge a map.

    Args:
        effects: effect of each window; NaN where there is none.
        starts, ends: of the windows, in seconds.
        span: where the sounds differ, in seconds.
        margin: ``|m_donor - m_base|``, in nats.
    """
    there = in_place(starts, ends, span)
    away = np.maximum(span[0] - ends, starts - span[1])
    far = away >= FAR
    some = np.isfinite(effects)
    control = float(effects[far & some].max()) if (far & some).any() else float("nan")
    effect = float(effects[some].max()) if some.any() else float("nan")
    if not (margin >= MARGIN and effect >= SPEAKS):
        return Judged(None, effect, False, False, control, far, float(there.mean()))
    named = int(np.nanargmax(effects))
    return Judged(named, effect, not there[named], control >= ALARM, control, far, float(there.mean()))


def in_place(
    starts: Float[np.ndarray, " window"], ends: Float[np.ndarray, " window"], span: tuple[float, float]
) -> Bool[np.ndarray, " window"]:
    """Windows that touch the span, or whose middle lies within :data:`TOLERANCE` of it."""
    middles = (starts + ends) / 2
    touches = (starts < span[1]) & (ends > span[0])
    return touches | ((middles >= span[0] - TOLERANCE) & (middles <= span[1] + TOLERANCE))


def rate(happened: Sequence[bool] | np.ndarray, units: Sequence[str] | np.ndarray, level: float = 0.95) -> Interval:
    """A share with an exact interval, where several answers may come from one unit (a sentence).

    With one answer per unit this is the interval of Clopper and Pearson. Otherwise the effective sample size takes the
    place of the number of answers; it is at least the number of units where the share is 0 or 1, and never more than
    the number of answers. NaN where there is no answer.

    Args:
        happened: per answer.
        units: the unit of each answer.
        level: of the interval.
    """
    x = np.asarray(happened, float)
    nan = float("nan")
    if not len(x):
        return Interval(nan, nan, nan, 0, level)
    names, of = np.unique(np.asarray(units), return_inverse=True)
    share = float(x.mean())
    size = float(len(names))
    residuals = np.bincount(of, x - share, len(names)) / len(x)
    variance = float((residuals**2).sum()) * len(names) / max(len(names) - 1, 1)
    if 0 < share < 1 and variance > 0:
        size = share * (1 - share) / variance
    if len(names) == len(x):
        size = float(len(x))
    size = min(size, float(len(x)))
    hits, tail = share * size, (1 - level) / 2
    low = 0.0 if share == 0 else float(betaincinv(hits, size - hits + 1, tail))
    high = 1.0 if share == 1 else float(betaincinv(hits + 1, size - hits, 1 - tail))
    return Interval(share, low, high, len(names), level)
