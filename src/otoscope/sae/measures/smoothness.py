"""How much of a code stays from one frame to the next, and how much of that smoothing alone would give.

Neighbouring frames of 20 ms overlap in what they hear, so codes of any dictionary overlap too. ``overlap = sum_t |A_t and
A_t+1| / sum_t |A_t|`` over the frames that have a successor in their recording, with ``A_t`` the active features of frame t:
1 for a code that never changes, the mean firing rate for one without order in time.

A loss that draws neighbouring codes together must be worth more than what an average over neighbours gives for nothing:
:func:`smoothed` averages the codes of a dictionary over ``2 reach + 1`` frames of the same recording (fewer at its ends) and
keeps the ``k`` largest of each frame, so that as many features are active as before.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int
from scipy import sparse

from otoscope.sae.measures.frames import Sparse, active, csr, sums_by
from otoscope.stats import Interval, bootstrap_sums, ratio_of_sums

#: frames made dense at once
_BLOCK = 2048


def adjacent_overlap(
    codes: Sparse, utterance: Int[np.ndarray, " frame"], *, n_resamples: int = 1000, seed: int = 0
) -> Interval:
    """Share of active features that are active in the next frame as well, interval over recordings.

    Args:
        codes: ``[frame, feature]``, frames in the order of time.
        utterance: recording of each frame, frames of one recording side by side.
        n_resamples, seed: of the interval.

    Returns:
        NaN where nothing is active, or no recording has two frames.
    """
    on = active(codes)
    followed = np.flatnonzero(utterance[1:] == utterance[:-1])
    now, then = on[followed], on[followed + 1]
    counts = np.stack([_row_sums(now.multiply(then)), _row_sums(now)], axis=1)
    if not counts[:, 1].any():
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    sums = sums_by(utterance[followed], counts)
    return bootstrap_sums(sums, lambda total: ratio_of_sums(total[None]), n_resamples, seed=seed)


def smoothed(codes: Sparse, utterance: Int[np.ndarray, " frame"], k: int, reach: int = 1) -> Sparse:
    """Codes averaged over the frames up to ``reach`` away in the same recording, the ``k`` largest of each frame kept.

    Args:
        codes: ``[frame, feature]``, not negative, frames in the order of time.
        utterance: recording of each frame, frames of one recording side by side.
        k: active features of a frame at most.
        reach: frames on either side.
    """
    n = codes.shape[0]
    rows, columns = [], []
    for step in range(-reach, reach + 1):
        at = np.arange(max(0, -step), min(n, n - step))
        at = at[utterance[at] == utterance[at + step]]
        rows.append(at)
        columns.append(at + step)
    near = csr((np.ones(sum(map(len, rows))), (np.concatenate(rows), np.concatenate(columns))), shape=(n, n))
    mean = csr(sparse.diags_array(1 / _row_sums(near)) @ near @ codes)
    return csr(sparse.vstack([_largest(mean[i : i + _BLOCK], k) for i in range(0, n, _BLOCK)], format="csr"))


def _largest(codes: Sparse, k: int) -> Sparse:
    dense = np.asarray(codes.todense(), np.float32)
    if k < dense.shape[1]:
        chosen = np.argpartition(-dense, k - 1, axis=1)[:, :k]
        kept = np.zeros_like(dense)
        np.put_along_axis(kept, chosen, np.take_along_axis(dense, chosen, axis=1), axis=1)
        dense = kept
    return csr(dense)


def _row_sums(matrix: Sparse) -> np.ndarray:
    return np.asarray(matrix.sum(axis=1), np.float64).ravel()
