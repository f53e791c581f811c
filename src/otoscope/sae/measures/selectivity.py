"""Interventional selectivity: does a feature matter for the words that are said while it is active, and only for these?

A feature is set to 0 where it is active, the dictionary's error kept (:mod:`otoscope.sae.edits`). Every token of the transcript
is either *inside* (a frame in which the feature is active lies within the token's time) or *outside*. With ``c`` the change of a
token's log-probability under teacher forcing,

    ``selectivity = mean |c| inside / mean |c| outside``,

over features and tokens inside, each against the mean token outside of its own recording. Any edit is felt most near to where
it is made, so 1 is not what it must be compared with:

* ``other``: the same of another feature that is active about as often, in its own frames;
* ``elsewhere``: the feature's own edit at other frames of the recording (moved round by a random quarter to three quarters of
  its length), asked about the tokens that the feature marks: without selectivity these lose what all tokens lose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from otoscope.sae.edits import active_in, matched, written
from otoscope.sae.measures.forced import Listening
from otoscope.sae.measures.frames import Label, Reading
from otoscope.sae.measures.sparsity import firing_rates
from otoscope.stats import Interval, bootstrap_sums

ARMS = ("own", "other", "elsewhere")
#: columns of the sums: per side, of |c|, of -c, of tokens no longer the most likely, of tokens that were, and of tokens
_COLUMNS = 5


class Selectivity(NamedTuple):
    """Intervals over recordings.

    ``ratio``, and the same of ``other`` features and ``elsewhere``; ``inside``, ``outside``: rise of the cross-entropy per
    token (nats) by ablating one feature; ``lost_inside``, ``lost_outside``: share of the tokens that were the most likely ones
    and no longer are; ``rows``: one per feature, plain data.
    """

    ratio: Interval
    other: Interval
    elsewhere: Interval
    inside: Interval
    outside: Interval
    lost_inside: Interval
    lost_outside: Interval
    rows: list[dict[str, Any]]


def features_of(
    reading: Reading, label: Label, n: int, rows: Bool[np.ndarray, " frame"] | None = None, seed: int = 0
) -> list[tuple[int, str]]:
    """The feature that tells each of the commonest values of a label best, by difference of means, each taken once.

    Args:
        reading: codes of frames.
        label: of the frames; without names, features that are active in 0.2% to 10% of the frames are drawn.
        n: how many.
        rows: frames to look at (the search half); None for all.
        seed: of the draw.

    Returns:
        pairs of feature and value.
    """
    where = np.ones(len(label.codes), bool) if rows is None else rows
    rates = firing_rates(reading.codes[np.flatnonzero(where)])
    known = np.flatnonzero(where & (label.codes >= 0))
    if not len(known):
        usual = np.flatnonzero((rates > 0.002) & (rates < 0.1))
        return [(int(f), "") for f in np.random.default_rng(seed).permutation(usual)[:n]]
    counts = np.bincount(label.codes[known], minlength=len(label.names))
    chosen = np.sort(np.random.default_rng(seed).permutation(known)[:6000])
    dense = np.asarray(reading.codes[chosen].todense(), np.float32)
    found: list[tuple[int, str]] = []
    for value in np.argsort(-counts, kind="stable"):
        inside = label.codes[chosen] == value
        if len(found) == n or not inside.any() or inside.all():
            break
        means = dense[inside].mean(0) - dense[~inside].mean(0)
        means[[f for f, _ in found]] = -np.inf
        found.append((int(means.argmax()), label.names[value]))
    return found


def selectivity(
    heard: Sequence[Listening],
    read: Callable[[Float[np.ndarray, "frame d"]], Reading],
    features: Sequence[tuple[int, str]],
    rates: Float[np.ndarray, " feature"],
    *,
    progress: Callable[[int, int], None] | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Selectivity:
    """Selectivity of some features, together and one by one.

    Args:
        heard: recordings with the times of their tokens.
        read: the dictionary, from frames to what it makes of them.
        features: number and name of each feature that is ablated.
        rates: share of frames in which each feature of the dictionary is active.
        progress: called with recordings done and their number.
        n_resamples, seed: of the intervals and draws.

    Returns:
        NaN where no feature is active beside some tokens and not beside others.
    """
    numbers = [f for f, _ in features]
    others = matched(rates, numbers, seed)
    rng = np.random.default_rng(seed)
    sums = np.zeros((len(heard), len(features), len(ARMS), 2, _COLUMNS))
    for u, one in enumerate(heard):
        made = read(one.x)
        assert made.decoder is not None
        asked: list[tuple[int, int, Bool[np.ndarray, " token"]]] = []
        edited = [np.asarray(one.x)]
        for i, feature in enumerate(numbers):
            own = np.zeros(len(one.spans), bool)
            for arm, which in (("own", feature), ("other", int(others[i]) if i < len(others) else None)):
                if which is None:
                    continue
                inside = marked(active_in(made.codes, [which]), one.spans)
                own = inside if arm == "own" else own
                if inside.any() and not inside.all():
                    asked.append((i, ARMS.index(arm), inside))
                    edited.append(one.x - written(made.codes, made.decoder, [which]))
            if own.any() and not own.all():
                n = len(one.x)
                moved = np.roll(
                    written(made.codes, made.decoder, [feature]), int(rng.integers(n // 4, 3 * n // 4 + 1)), 0
                )
                asked.append((i, ARMS.index("elsewhere"), own))
                edited.append(one.x - moved)
        if asked:
            scores = one.scores(edited)
            for row, (i, arm, inside) in enumerate(asked, 1):
                sums[u, i, arm] += _sums(scores.log_probs[[0, row]], scores.right[[0, row]], inside)
        if progress:
            progress(u + 1, len(heard))

    def interval(statistic: Callable[[np.ndarray], float], chosen: np.ndarray = sums) -> Interval:
        return bootstrap_sums(chosen, statistic, n_resamples, seed=seed)

    rows = [
        _row(sums[:, i], *features[i], int(others[i]) if i < len(others) else -1, interval)
        for i in range(len(features))
    ]
    ratios = [interval(lambda t, a=a: _ratio(t.sum(0)[a])) for a in range(len(ARMS))]
    rises = [interval(lambda t, s=s: _mean(t.sum(0)[0, s], 1, 4)) for s in (0, 1)]
    lost = [interval(lambda t, s=s: _mean(t.sum(0)[0, s], 2, 3)) for s in (0, 1)]
    return Selectivity(ratios[0], ratios[1], ratios[2], rises[0], rises[1], lost[0], lost[1], rows)


def marked(active: Bool[np.ndarray, " frame"], spans: Int[np.ndarray, "token 2"]) -> Bool[np.ndarray, " token"]:
    """Whether an active frame lies within each token's time; a token of no length has the frame at which it starts."""
    before = np.concatenate([[0], np.cumsum(active)])
    first = np.clip(spans[:, 0], 0, len(active) - 1)
    last = np.clip(np.maximum(spans[:, 1], first + 1), 0, len(active))
    return before[last] > before[first]


def _sums(log_probs: np.ndarray, right: np.ndarray, inside: np.ndarray) -> Float[np.ndarray, "side column"]:
    change = log_probs[1] - log_probs[0]
    lost = right[0] & ~right[1]
    per = np.stack([np.abs(change), -change, lost, right[0], np.ones(len(change))], axis=1)
    # a recording in which the feature is active often has more tokens inside and feels more of the edit everywhere: each
    # token inside is compared with the mean token outside of its own recording
    return np.stack([per[inside].sum(0), per[~inside].mean(0) * inside.sum()])


def _mean(side: np.ndarray, column: int, over: int) -> float:
    return float(side[column] / side[over]) if side[over] else float("nan")


def _ratio(sides: Float[np.ndarray, "side column"]) -> float:
    outside = _mean(sides[1], 0, 4)
    return _mean(sides[0], 0, 4) / outside if outside > 0 else float("nan")


def _row(sums: np.ndarray, feature: int, name: str, other: int, interval: Callable[..., Interval]) -> dict[str, Any]:
    found = {"feature": feature, "tells": name, "other_feature": other}
    for i, arm in enumerate(ARMS):
        ratio = interval(_ratio, sums[:, i])
        found |= {arm: ratio.value, f"{arm}_low": ratio.low, f"{arm}_high": ratio.high}
    total = sums[:, 0].sum(0)
    return found | {
        "inside": _mean(total[0], 1, 4), "outside": _mean(total[1], 1, 4),
        "tokens": int(total[0, 4]),
    }  # fmt: skip
