"""How well frames come back from their codes.

``FVU = sum |x - x^|^2 / (sum |x|^2 - n |mean x|^2)``: the denominator is the variance about the mean *vector* (SAEBench 0.6.0
and SAELens subtract a mean of squares instead and flatter a dictionary whose input has an offset). Cosine as in SAEBench,
and once more about the mean, since an offset alone makes two vectors alike. Norm ratio: ``sum |x^| / sum |x|``; below 1, a
dictionary shrinks what it reads.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from otoscope.sae.measures.frames import sums_by
from otoscope.stats import Interval, bootstrap_sums


def fvu(
    x: Float[np.ndarray, "frame d"],
    rebuilt: Float[np.ndarray, "frame d"],
    utterance: Int[np.ndarray, " frame"],
    *,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Fraction of variance unexplained: 0 is perfect, 1 as good as the mean; NaN where the frames do not vary."""
    x, rebuilt = np.asarray(x, np.float64), np.asarray(rebuilt, np.float64)
    # about the grand mean, so that large offsets do not cancel digits; the statistic does not depend on where 0 is
    centred = x - x.mean(axis=0)
    squares = np.stack([np.square(x - rebuilt).sum(1), np.square(centred).sum(1), np.ones(len(x))], axis=1)
    sums = sums_by(utterance, np.concatenate([squares, centred], axis=1))

    def statistic(total: np.ndarray) -> float:
        variance = total[1] - np.square(total[3:]).sum() / total[2]
        return float(total[0] / variance) if variance > 1e-12 * max(total[1], 1e-300) else float("nan")

    return bootstrap_sums(sums, statistic, n_resamples, seed=seed)


def cosine(
    x: Float[np.ndarray, "frame d"],
    rebuilt: Float[np.ndarray, "frame d"],
    utterance: Int[np.ndarray, " frame"],
    *,
    centred: bool = False,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Mean cosine of ``x`` and ``x^``; with ``centred``, of both less the mean of ``x``."""
    x, rebuilt = np.asarray(x, np.float64), np.asarray(rebuilt, np.float64)
    if centred:
        mean = x.mean(axis=0)
        x, rebuilt = x - mean, rebuilt - mean
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(rebuilt, axis=1)
    cosines = (x * rebuilt).sum(1) / np.maximum(lengths, 1e-30)
    sums = sums_by(utterance, np.stack([cosines, np.ones(len(x))], axis=1))
    return bootstrap_sums(sums, _ratio, n_resamples, seed=seed)


def norm_ratio(
    x: Float[np.ndarray, "frame d"],
    rebuilt: Float[np.ndarray, "frame d"],
    utterance: Int[np.ndarray, " frame"],
    *,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """``sum |x^| / sum |x|``, both about the mean of ``x``."""
    mean = np.asarray(x, np.float64).mean(axis=0)
    norms = np.stack([np.linalg.norm(rebuilt - mean, axis=1), np.linalg.norm(x - mean, axis=1)], axis=1)
    return bootstrap_sums(sums_by(utterance, norms), _ratio, n_resamples, seed=seed)


def _ratio(total: np.ndarray) -> float:
    return float(total[0] / total[1]) if total[1] else float("nan")
