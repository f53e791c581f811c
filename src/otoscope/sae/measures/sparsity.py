"""How many features are active: per frame, per class of phones, on silence; and how many features are alive or dense.

L0 is the mean number of active features of a frame. A feature is alive if it is active in at least one of the frames
looked at, and dense if it is active in more than a tenth of them.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from otoscope.sae.measures.frames import Sparse, active, membership, numbered, sums_by
from otoscope.stats import Interval, bootstrap_sums

#: a feature that is active in more of the frames than this is dense
DENSE = 0.1


def l0(
    codes: Sparse,
    utterance: Int[np.ndarray, " frame"],
    rows: Bool[np.ndarray, " frame"] | None = None,
    *,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Active features per frame, of ``rows`` (all by default); NaN where there are none."""
    wanted = np.ones(codes.shape[0], bool) if rows is None else rows
    if not wanted.any():
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    counts = np.asarray(active(codes).sum(axis=1)).ravel()[wanted]
    sums = sums_by(utterance[wanted], np.stack([counts, np.ones(len(counts))], axis=1))
    return bootstrap_sums(sums, lambda total: total[0] / total[1], n_resamples, seed=seed)


def l0_by_class(
    codes: Sparse,
    utterance: Int[np.ndarray, " frame"],
    classes: Int[np.ndarray, " frame"],
    names: tuple[str, ...],
    *,
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Active features per frame of each class that has frames."""
    found = {name: classes == i for i, name in enumerate(names)}
    return {
        name: l0(codes, utterance, rows, n_resamples=n_resamples, seed=seed)
        for name, rows in found.items()
        if rows.any()
    }


def firing_rates(codes: Sparse) -> Float[np.ndarray, " feature"]:
    """Share of the frames in which each feature is active."""
    return np.asarray(active(codes).sum(axis=0)).ravel() / max(codes.shape[0], 1)


def alive(codes: Sparse) -> float:
    """Share of the features that are active in some frame. It has no interval: fewer frames mean fewer features seen."""
    return float((firing_rates(codes) > 0).mean())


def dense(codes: Sparse, utterance: Int[np.ndarray, " frame"], *, n_resamples: int = 1000, seed: int = 0) -> Interval:
    """Share of the features that are active in more than a tenth of the frames."""
    on = active(codes)
    per = sums_by(utterance, np.ones((codes.shape[0], 1)))
    which, n = numbered(utterance)
    counts = np.asarray((membership(which, n) @ on).todense())
    sums = np.concatenate([per, counts], axis=1)
    return bootstrap_sums(sums, lambda total: float((total[1:] / total[0] > DENSE).mean()), n_resamples, seed=seed)
