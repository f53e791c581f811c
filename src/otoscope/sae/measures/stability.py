"""Stability over training seeds: do two trainings find the same features?

By what they do: ``IoU(a, b) = |frames with both active| / |frames with either|`` (AudioSAE, arXiv 2602.05027, which counts a
feature of one as found again if *any* feature of the other has IoU > 0.5). Here partners are matched one to one, by the
assignment with the largest sum, so that one broad feature cannot serve many. By what they write: cosine of the decoder's
rows, again one to one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

from otoscope.errors import TaskError
from otoscope.sae.measures.frames import Sparse, active, csr, membership, numbered
from otoscope.sae.measures.geometry import unit_rows
from otoscope.sae.measures.sparsity import firing_rates
from otoscope.stats import Interval, bootstrap_sums

#: two features are the same if they are active together in more than this share of the frames of either
SAME = 0.5
#: and write the same if the cosine of their rows is above this
ALIKE = 0.7


class Stability(NamedTuple):
    """``firing``: share of the alive features of the first that have a partner of their own with IoU > 0.5, interval over
    recordings with the partners fixed; ``coverage``: the same without one-to-one matching; ``writing``: share with a partner
    of their own at a decoder cosine above 0.7; ``mean_cosine``: of those partners."""

    firing: Interval
    coverage: float
    writing: float
    mean_cosine: float


def iou(a: Sparse, b: Sparse) -> Float[np.ndarray, "first second"]:
    """IoU of the active frames of every pair of features; 0 for two that are never active."""
    on_a, on_b = active(a), active(b)
    both = np.asarray((on_a.T @ on_b).todense(), np.float64)
    n_a, n_b = np.asarray(on_a.sum(axis=0)).ravel(), np.asarray(on_b.sum(axis=0)).ravel()
    either = n_a[:, None] + n_b[None] - both
    return both / np.maximum(either, 1)


def stability(
    a: Sparse,
    b: Sparse,
    utterance: Int[np.ndarray, " frame"],
    decoder_a: Float[np.ndarray, "first d"],
    decoder_b: Float[np.ndarray, "second d"],
    *,
    n_resamples: int = 300,
    seed: int = 0,
) -> Stability:
    """How many features of one training another has too.

    Args:
        a, b: codes of the same frames.
        utterance: recording of each frame.
        decoder_a, decoder_b: what the features write.
        n_resamples, seed: of the interval.

    Raises:
        TaskError: the codes are of different frames.
    """
    if a.shape[0] != b.shape[0]:
        raise TaskError(
            f"codes of {a.shape[0]} and {b.shape[0]} frames cannot be compared: give those of the same frames."
        )
    alive_a, alive_b = np.flatnonzero(firing_rates(a) > 0), np.flatnonzero(firing_rates(b) > 0)
    nan = float("nan")
    if not len(alive_a) or not len(alive_b):
        return Stability(Interval(nan, nan, nan, 0), nan, nan, nan)
    a, b = csr(a[:, alive_a]), csr(b[:, alive_b])
    overlap = iou(a, b)
    rows, columns = linear_sum_assignment(overlap, maximize=True)
    member = membership(*numbered(utterance))
    on_a, on_b = active(a)[:, rows], active(b)[:, columns]
    both = on_a.multiply(on_b)
    sums = np.stack([np.asarray((member @ part).todense()) for part in (both, on_a + on_b)], axis=1)

    def found_again(total: Float[np.ndarray, "2 pair"]) -> float:
        either = np.maximum(total[1] - total[0], 1)
        return float((total[0] / either > SAME).sum() / len(alive_a))

    cosines = unit_rows(decoder_a[alive_a]) @ unit_rows(decoder_b[alive_b]).T
    matched = cosines[linear_sum_assignment(cosines, maximize=True)]
    return Stability(
        bootstrap_sums(sums, found_again, n_resamples, seed=seed),
        float((overlap.max(axis=1) > SAME).mean()),
        float((matched > ALIKE).sum() / len(alive_a)),
        float(matched.mean()),
    )
