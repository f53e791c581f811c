"""Does a way of corrupting break only the factor that it is meant to break?

Each of n utterances is corrupted, and a yardstick per factor says how far that factor moved. With ``u_g`` the natural
difference of factor g (its yardstick's mean distance between unrelated utterances),

    ``e_gi = |moved_gi| / u_g``                        effect on factor g in utterance i: 1 is as much as another utterance
    **changed**: the 95% interval of mean_i e_gi lies above ``MARGIN``
    **kept**: mean_i e_gi is within ``MARGIN`` by an equivalence test at 5% (``stats.tost``)
    **undecided**: neither
    ``isolation(f) = mean_i min(1, e_fi) * min_g share_i(e_gi <= MARGIN)``    g over the reliable factors other than f

Isolation is 1 where f moves as far as it does between people and sentences, and nothing else moves in any utterance; the worst
leak counts, since a pair with one confound is confounded. Distances have no sign, so that shifts to opposite sides do not cancel.
A factor that another one consists of cannot be held while that one changes, so it does not count as a leak (``ENTAILS``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from otoscope.stats import Interval, bootstrap
from otoscope.stats.equivalence import Equivalence, tost

#: Largest effect that counts as kept, as a share of the natural difference.
MARGIN = 0.25
#: Isolation from which a corruption is said to isolate a factor.
ISOLATES = 0.5
#: A change of the first cannot be without a change of the others: words consist of phones, and what lasts longer, ends later.
ENTAILS: dict[str, tuple[str, ...]] = {"words": ("phones",), "duration": ("rhythm",)}

Verdict = Literal["changed", "kept", "undecided", "unreliable"]
Effects = Mapping[str, Float[np.ndarray, " n"]]
Groups = Sequence[Any] | NDArray[Any] | None


class Cell(NamedTuple):
    """What a corruption did to one factor."""

    effect: Interval
    """mean effect, in natural differences"""
    share_kept: float
    """of the utterances: those whose effect is within the margin"""
    equivalence: Equivalence
    verdict: Verdict


def judge(
    effects: Float[np.ndarray, " n"],
    groups: Groups = None,
    *,
    reliable: bool = True,
    margin: float = MARGIN,
    seed: int = 0,
) -> Cell:
    """Effect of one factor with its interval, and whether it changed or was kept.

    Args:
        effects: of each utterance, in natural differences; NaNs (the factor was not there) are left out.
        groups: of each utterance, such as its speaker: intervals are over groups.
        reliable: whether the yardstick tells anything here; the verdict is ``unreliable`` otherwise.
        margin: largest effect that counts as kept.
        seed: of the bootstrap.
    """
    effects = np.abs(np.asarray(effects, dtype=float))
    interval = bootstrap(effects, groups=groups, seed=seed)
    test = tost(effects, margin, groups)
    known = effects[~np.isnan(effects)]
    share = float((known <= margin).mean()) if len(known) else float("nan")
    verdict: Verdict = "undecided"
    if not reliable:
        verdict = "unreliable"
    elif interval.low > margin:
        verdict = "changed"
    elif test.equivalent:
        verdict = "kept"
    return Cell(interval, share, test, verdict)


def leaks(factor: str, factors: Sequence[str]) -> tuple[str, ...]:
    """The factors that must not move when only ``factor`` is to: all others but those that it entails."""
    return tuple(g for g in factors if g != factor and g not in ENTAILS.get(factor, ()))


def isolation(
    effects: Effects,
    factor: str,
    groups: Groups = None,
    *,
    reliable: Sequence[str] | None = None,
    margin: float = MARGIN,
    seed: int = 0,
) -> Interval:
    """How far ``factor`` moves alone, in [0, 1], with an interval over utterances (or groups).

    Args:
        effects: factor -> effect of each utterance, in natural differences, all of one length.
        factor: the one that is meant to move.
        groups: of each utterance.
        reliable: factors whose yardsticks count as leaks; None is all. NaN where that of ``factor`` itself does not.
        margin: largest effect that counts as kept.
        seed: of the bootstrap.
    """
    n = len(effects[factor])
    counted = tuple(effects) if reliable is None else tuple(g for g in effects if g in reliable)
    if factor not in counted:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    hit = np.minimum(1.0, np.abs(effects[factor]))
    others = [np.abs(effects[g]) for g in leaks(factor, counted)]
    # NaN where the factor was not there to begin with: it can then not have moved
    within = np.array([np.where(np.isnan(e), np.nan, e <= margin) for e in others]).reshape(len(others), n)

    def score(rows: NDArray[Any]) -> float:
        chosen = rows.astype(int)
        strength = _mean(hit[chosen])
        shares = [_mean(row[chosen]) for row in within]
        known = [share for share in shares if not np.isnan(share)]
        return strength * min(known, default=1.0)

    return bootstrap(np.arange(n), score, groups=groups, n_resamples=1000, seed=seed)


def _mean(values: Float[np.ndarray, " n"]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
