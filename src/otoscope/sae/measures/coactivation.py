"""Spurious co-activation: features of phones that have nothing in common, active in the same frame.

A feature belongs to the phone in which it is active most, if that is at least three times as often as in any frame; this is
learnt on one half of the recordings. In the other half, of all pairs of different
such features that are active together in a frame, the share that belongs to two *unrelated* phones is measured. Frames next to a
phone boundary are left out, where two phones are truly there at once. Beside it stands what pairs drawn without regard to
frames would give (``expected``): a dictionary whose features know nothing of phones has as many.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from otoscope.sae.measures.frames import Sparse, active, csr, membership, numbered
from otoscope.sae.measures.purity import FEWEST, halves, phone_of_features
from otoscope.stats import Interval, bootstrap_sums

#: a feature belongs to a phone if it is active in it so many times as often as anywhere
LIFT = 3.0


class Coactivation(NamedTuple):
    """``unrelated``: share of pairs active together; ``expected``: of pairs of entries drawn at random."""

    unrelated: Interval
    expected: Interval


def inner(utterance: Int[np.ndarray, " frame"], phone: Int[np.ndarray, " frame"]) -> Bool[np.ndarray, " frame"]:
    """Whether both neighbours of a frame are of the same phone and recording."""
    same = (phone[1:] == phone[:-1]) & (utterance[1:] == utterance[:-1]) & (phone[1:] >= 0)
    edge = np.zeros(1, bool)
    return np.concatenate([edge, same]) & np.concatenate([same, edge])


def coactivation(
    codes: Sparse,
    utterance: Int[np.ndarray, " frame"],
    phone: Int[np.ndarray, " frame"],
    unrelated: Bool[np.ndarray, "phone phone"],
    *,
    fewest: int = FEWEST,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Coactivation:
    """Share of pairs of features active together that belong to unrelated phones, interval over recordings.

    Args:
        codes: ``[frame, feature]``, frames in the order of time.
        utterance, phone: of each frame.
        unrelated: whether two phones have nothing in common; symmetric.
        fewest: features active in fewer frames of a half belong to no phone.
        n_resamples, seed: of the interval and of the halves.
    """
    n_phones = len(unrelated)
    number, n = numbered(utterance)
    first, usable = halves(utterance, seed), inner(utterance, phone)
    sums = np.zeros((n, 2 + n_phones))
    for learn, ask in ((first, ~first), (~first, first)):
        learn, ask = np.flatnonzero(learn & (phone >= 0)), np.flatnonzero(ask & usable)
        if not len(learn) or not len(ask):
            continue
        own, share = phone_of_features(csr(codes[learn]), phone[learn], n_phones, fewest)
        usual = np.bincount(phone[learn], minlength=n_phones) / len(learn)
        own = np.where(share >= LIFT * usual[own], own, -1)
        counts = np.asarray((active(csr(codes[ask])) @ membership(own, n_phones).T).todense(), np.float64)
        total = counts.sum(axis=1)
        spurious = ((counts @ unrelated) * counts).sum(axis=1) / 2
        per = np.stack([spurious, total * (total - 1) / 2], axis=1)
        np.add.at(sums[:, :2], number[ask], per)
        np.add.at(sums[:, 2:], number[ask], counts)

    def expected(total: Float[np.ndarray, " column"]) -> float:
        share = total[2:] / max(total[2:].sum(), 1)
        return float(share @ unrelated @ share) if total[2:].any() else float("nan")

    def ratio(total: Float[np.ndarray, " column"]) -> float:
        return float(total[0] / total[1]) if total[1] else float("nan")

    return Coactivation(
        bootstrap_sums(sums, ratio, n_resamples, seed=seed), bootstrap_sums(sums, expected, n_resamples, seed=seed)
    )
