"""Alignment of features across dictionaries of different seeds, layers or models: by how they are active over common frames.

Decoder rows of two models lie in different spaces, so partners are matched by the Pearson correlation of their activations
over the same frames, one to one (the assignment with the largest sum). With thousands of candidates the best of them
correlates somewhat by chance. The null turns the frames of the second dictionary round within each recording by a random
quarter to three quarters of its length, which keeps each feature's own rate and rhythm, and matches again.

    ``aligned = share of the alive features of the first whose partner correlates above the null's 99th percentile and above 0.5``

The second bound is because two readings of the same frames share something even where their features are random. What
survives is told by phones: of the features that have a partner and of those that have none, the mean share of active frames
that lie in one phone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

from otoscope.errors import TaskError
from otoscope.sae.measures.frames import Label, Sparse, csr, membership, numbered
from otoscope.sae.measures.purity import phone_of_features
from otoscope.sae.measures.sparsity import firing_rates
from otoscope.stats import Interval, bootstrap_sums

#: a partner's correlation must be above this quantile of the null's partners, and above this number
QUANTILE, LEAST = 0.99, 0.5
#: features active in fewer frames cannot be matched
FEWEST = 10


class Alignment(NamedTuple):
    """What two dictionaries share.

    ``aligned``: share with a partner, interval over recordings with the partners fixed; ``correlation``: mean of all partners;
    ``null``: mean of the null's partners; ``threshold``: above which a partner counts; ``pure_aligned``, ``pure_rest``: mean
    share of active frames in one phone, of features with a partner and without; ``partners``: ``[pair, 2]`` features of both;
    ``strength``: their correlation.
    """

    aligned: Interval
    correlation: float
    null: float
    threshold: float
    pure_aligned: float
    pure_rest: float
    partners: Int[np.ndarray, "pair 2"]
    strength: Float[np.ndarray, " pair"]


def alignment(
    a: Sparse,
    b: Sparse,
    utterance: Int[np.ndarray, " frame"],
    phone: Label | None = None,
    *,
    fewest: int = FEWEST,
    n_resamples: int = 300,
    seed: int = 0,
) -> Alignment:
    """Match the features of two dictionaries.

    Args:
        a, b: codes of the same frames, in the order of time within each recording.
        utterance: recording of each frame.
        phone: of each frame, to say what survives.
        fewest: features active in fewer frames are left out.
        n_resamples, seed: of the interval and the null.

    Raises:
        TaskError: the codes are of different frames.
    """
    if a.shape[0] != b.shape[0]:
        raise TaskError(
            f"codes of {a.shape[0]} and {b.shape[0]} frames cannot be matched: give those of the same frames."
        )
    n = a.shape[0]
    alive_a, alive_b = (np.flatnonzero(firing_rates(codes) * n >= fewest) for codes in (a, b))
    nan = float("nan")
    if not len(alive_a) or not len(alive_b):
        nothing = Interval(nan, nan, nan, 0)
        return Alignment(nothing, nan, nan, nan, nan, nan, np.zeros((0, 2), np.int64), np.zeros(0))
    own_a, own_b = (csr(codes[:, alive]).astype(np.float64) for codes, alive in ((a, alive_a), (b, alive_b)))
    r = correlations(own_a, own_b)
    rows, columns = linear_sum_assignment(r, maximize=True)
    turned = correlations(own_a, csr(own_b[turned_round(utterance, seed)]))
    null = turned[linear_sum_assignment(turned, maximize=True)]
    threshold = max(float(np.quantile(null, QUANTILE)), LEAST)
    sums = _sums(own_a[:, rows], own_b[:, columns], utterance)

    def share(total: Float[np.ndarray, "column pair"]) -> float:
        return float((_pearson(total) > threshold).sum() / len(alive_a))

    strength = r[rows, columns]
    kept = np.zeros(len(alive_a), bool)
    kept[rows[strength > threshold]] = True
    pure_aligned = pure_rest = nan
    if phone is not None and phone.names:
        purest = phone_of_features(own_a, phone.codes, len(phone.names))
        known = purest[0] >= 0
        pure_aligned, pure_rest = (_mean(purest[1][known & side]) for side in (kept, ~kept))
    return Alignment(
        bootstrap_sums(sums, share, n_resamples, seed=seed), float(strength.mean()), float(null.mean()), threshold,
        pure_aligned, pure_rest, np.stack([alive_a[rows], alive_b[columns]], axis=1), strength,
    )  # fmt: skip


def correlations(a: Sparse, b: Sparse) -> Float[np.ndarray, "first second"]:
    """Pearson correlation of every feature of one with every feature of the other; 0 for one that does not vary."""
    n = a.shape[0]
    mean_a, mean_b = (np.asarray(codes.mean(axis=0)).ravel() for codes in (a, b))
    spread = [
        np.sqrt(np.maximum(np.asarray(c.multiply(c).mean(axis=0)).ravel() - m**2, 0))
        for c, m in ((a, mean_a), (b, mean_b))
    ]
    both = np.asarray((a.T @ b).todense()) / n - np.outer(mean_a, mean_b)
    scale = np.outer(*spread)
    return np.divide(both, scale, out=np.zeros_like(both), where=scale > 1e-12)


def turned_round(utterance: Int[np.ndarray, " frame"], seed: int = 0) -> Int[np.ndarray, " frame"]:
    """Frames in an order in which each recording is turned round by a random quarter to three quarters of its length."""
    rng, order = np.random.default_rng(seed), np.arange(len(utterance))
    edges = np.flatnonzero(np.diff(utterance)) + 1
    for own in np.split(order.copy(), edges):
        order[own] = np.roll(own, int(rng.integers(len(own) // 4, 3 * len(own) // 4 + 1)))
    return order


def _mean(values: Float[np.ndarray, " feature"]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _sums(a: Sparse, b: Sparse, utterance: Int[np.ndarray, " frame"]) -> Float[np.ndarray, "unit column pair"]:
    """Per recording: frames, sums, squares and products of each pair of partners."""
    member = membership(*numbered(utterance))
    parts = [np.asarray((member @ part).todense()) for part in (a, b, a.multiply(a), b.multiply(b), a.multiply(b))]
    count = np.asarray(member.sum(axis=1)).ravel()
    return np.stack([np.repeat(count[:, None], a.shape[1], axis=1), *parts], axis=1)


def _pearson(total: Float[np.ndarray, "column pair"]) -> Float[np.ndarray, " pair"]:
    n, a, b, aa, bb, ab = total
    scale = np.sqrt(np.maximum(aa / n - (a / n) ** 2, 0) * np.maximum(bb / n - (b / n) ** 2, 0))
    return np.divide(ab / n - a * b / n**2, scale, out=np.zeros_like(scale), where=scale > 1e-12)
