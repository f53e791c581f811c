"""Strict phone purity: of all entries that are active while a phone is said, the share whose feature belongs to it.

A feature belongs to the phone in which most of its active frames lie; this is learnt on half of the recordings and asked of
the other half, and the other way round. AudioSAE (arXiv 2602.05027) counts a frame as right if *any* active feature fits,
which dozens of random features achieve; here *every* active entry counts. Both are given.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from otoscope.sae.measures.frames import Sparse, active, csr, membership, numbered
from otoscope.stats import Interval, bootstrap_sums

#: features that are active in fewer frames of a half belong to no phone
FEWEST = 5


class Purity(NamedTuple):
    """``strict``: share of active entries that fit; ``lenient``: share of frames in which a feature with a majority fits."""

    strict: Interval
    lenient: Interval


def phone_of_features(
    codes: Sparse, phone: Int[np.ndarray, " frame"], n_phones: int, fewest: int = FEWEST
) -> tuple[Int[np.ndarray, " feature"], Float[np.ndarray, " feature"]]:
    """The phone in which each feature is active most often, and the share of its active frames that lie in it.

    Features active in fewer than ``fewest`` frames with a phone have -1 and 0.
    """
    counts = np.asarray((membership(phone, n_phones) @ active(codes)).todense())
    total = counts.sum(axis=0)
    share = counts.max(axis=0) / np.maximum(total, 1)
    often = total >= fewest
    return np.where(often, counts.argmax(axis=0), -1), np.where(often, share, 0.0)


def halves(utterance: Int[np.ndarray, " frame"], seed: int) -> np.ndarray:
    """Whether a frame's recording is in the first of two random halves of the recordings."""
    number, n = numbered(utterance)
    first = np.random.default_rng(seed).permutation(n) < (n + 1) // 2
    return first[number]


def phone_purity(
    codes: Sparse,
    utterance: Int[np.ndarray, " frame"],
    phone: Int[np.ndarray, " frame"],
    n_phones: int,
    *,
    fewest: int = FEWEST,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Purity:
    """Purity over all features, interval over recordings.

    Args:
        codes: ``[frame, feature]``.
        utterance, phone: of each frame; frames with phone -1 are left out.
        n_phones: number of phones.
        fewest: features active in fewer frames of a half belong to no phone, and their entries do not count.
        n_resamples, seed: of the interval and of the halves.
    """
    number, n = numbered(utterance)
    first = halves(utterance, seed)
    sums = np.zeros((n, 4))
    for learn, ask in ((first, ~first), (~first, first)):
        learn, ask = np.flatnonzero(learn & (phone >= 0)), np.flatnonzero(ask & (phone >= 0))
        if not len(learn) or not len(ask):
            continue
        own, share = phone_of_features(csr(codes[learn]), phone[learn], n_phones, fewest)
        entries = active(csr(codes[ask])).tocoo()
        frame, feature = entries.coords
        known = own[feature] >= 0
        frame, feature = frame[known], feature[known]
        fits = own[feature] == phone[ask][frame]
        np.add.at(sums[:, 0], number[ask][frame], fits)
        np.add.at(sums[:, 1], number[ask][frame], 1)
        right = np.zeros(len(ask), bool)
        right[frame[fits & (share[feature] > 0.5)]] = True
        np.add.at(sums[:, 2], number[ask], right)
        np.add.at(sums[:, 3], number[ask], 1)
    strict = bootstrap_sums(sums[:, :2], _ratio, n_resamples, seed=seed)
    return Purity(strict, bootstrap_sums(sums[:, 2:], _ratio, n_resamples, seed=seed))


def _ratio(total: np.ndarray) -> float:
    return float(total[0] / total[1]) if total[1] else float("nan")
