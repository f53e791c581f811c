"""Temporal consistency: does a feature stay what it is while one phone is said? ``TCS(F) = within / across``.

Aligned boundaries cut every recording into phone tokens. For feature ``f`` with the value ``f_t`` in frame ``t`` of token
``s``, of ``n_s`` frames and mean ``m_s``:

    ``within = sum_s sum_t (f_t - m_s)^2``,   ``across = sum_s n_s (m_s - m)^2``,   ``TCS = within / across``

so that ``within + across`` is the whole variance about the mean ``m`` over the frames of all tokens. Lower is more
consistent: 0 for a feature that is constant in every token. A feature without any order in time has ``(N - S) / (S - 1)``
for ``S`` tokens of ``N`` frames, and the same frames in shuffled order are measured beside it, because neighbouring frames
of most encoders overlap and some smoothness is free. The median over features is reported: the mean is ruled by features
that hardly ever are active.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from otoscope.sae.measures.frames import Sparse, active, csr, membership, numbered
from otoscope.stats import Interval, bootstrap_sums

#: features that are active in fewer frames of tokens than this say nothing about time
FEWEST = 20


def tokens(utterance: Int[np.ndarray, " frame"], phone: Int[np.ndarray, " frame"]) -> Int[np.ndarray, " frame"]:
    """The phone token of each frame: a run of one phone within one recording; -1 where there is no phone."""
    starts = np.ones(len(phone), bool)
    starts[1:] = (phone[1:] != phone[:-1]) | (utterance[1:] != utterance[:-1])
    number = np.cumsum(starts & (phone >= 0)) - 1
    return np.where(phone >= 0, number, -1)


def ratios(codes: Sparse, token: Int[np.ndarray, " frame"], fewest: int = FEWEST) -> Float[np.ndarray, " feature"]:
    """TCS of each feature; NaN for those that are active in fewer than ``fewest`` frames of tokens."""
    group = np.zeros(len(token), np.int64)
    total = _sums(codes, token, group)[0]
    return _ratios(total, _often(codes, token, fewest))


def tcs(
    codes: Sparse,
    utterance: Int[np.ndarray, " frame"],
    phone: Int[np.ndarray, " frame"],
    *,
    shuffled: bool = False,
    fewest: int = FEWEST,
    n_resamples: int = 300,
    seed: int = 0,
) -> Interval:
    """Median TCS over features, interval over recordings.

    Args:
        codes: ``[frame, feature]``, frames in the order of time.
        utterance, phone: of each frame; phone -1 where there is none.
        shuffled: with the frames of each recording in random order, those without a phone left out: what is free.
        fewest: features that are active in fewer frames are left out.
        n_resamples, seed: of the interval and of the order.

    Returns:
        NaN where no feature is active often enough, or no phone is known.
    """
    known = np.flatnonzero(phone >= 0)
    if not len(known):
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    token = tokens(utterance, phone)[known]
    if shuffled:
        rng = np.random.default_rng(seed)
        order = np.lexsort((rng.random(len(known)), numbered(utterance[known])[0]))
        # the tokens keep their lengths; which frame falls into which is drawn anew
        by_time = np.argsort(numbered(utterance[known])[0], kind="stable")
        shuffled_token = np.empty_like(token)
        shuffled_token[order] = token[by_time]
        token = shuffled_token
    part = csr(codes[known])
    often = _often(part, token, fewest)
    if not often.any():
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    part = csr(part[:, np.flatnonzero(often)])
    every = np.ones(part.shape[1], bool)
    sums = _sums(part, token, numbered(utterance[known])[0])
    return bootstrap_sums(sums, lambda total: float(np.nanmedian(_ratios(total, every))), n_resamples, seed=seed)


def _often(codes: Sparse, token: Int[np.ndarray, " frame"], fewest: int) -> np.ndarray:
    inside = csr(active(codes)[np.flatnonzero(token >= 0)])
    return np.asarray(inside.sum(axis=0)).ravel() >= fewest


def _sums(
    codes: Sparse, token: Int[np.ndarray, " frame"], group: Int[np.ndarray, " frame"]
) -> Float[np.ndarray, "group 4 feature"]:
    """Per group: sum of f, of f^2, of ``n_s m_s^2``, and the number of frames, which is the same for every feature."""
    n_groups = int(group.max()) + 1
    inside = np.flatnonzero(token >= 0)
    squares = codes.copy()
    squares.data = np.square(codes.data.astype(np.float64))
    member = membership(np.where(token >= 0, group, -1), n_groups)
    number, n_tokens = numbered(token[inside])
    by_token = csr(membership(number, n_tokens) @ codes[inside].astype(np.float64))
    lengths = np.bincount(number, minlength=n_tokens)
    owner = np.zeros(n_tokens, np.int64)
    owner[number] = group[inside]
    by_token.data = np.square(by_token.data) / np.repeat(lengths, np.diff(by_token.indptr))
    frames = np.asarray(member.sum(axis=1)).ravel()
    return np.stack(
        [
            np.asarray((member @ codes.astype(np.float64)).todense()),
            np.asarray((member @ squares).todense()),
            np.asarray((membership(owner, n_groups) @ by_token).todense()),
            np.repeat(frames[:, None], codes.shape[1], axis=1),
        ],
        axis=1,
    )


def _ratios(total: Float[np.ndarray, "4 feature"], often: np.ndarray) -> Float[np.ndarray, " feature"]:
    within = total[1] - total[2]
    across = total[2] - np.square(total[0]) / np.maximum(total[3], 1)
    usable = often & (across > 1e-12 * np.maximum(total[1], 1e-300))
    return np.where(usable, within / np.where(usable, across, 1.0), np.nan)
