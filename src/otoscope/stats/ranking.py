"""How well scores rank the places that are truly at fault: top-k hits, ranks, ROC-AUC, and what chance gives of each.

A score is larger where a place is more suspect. Tied places are treated as if their order were drawn at random, and every
measure is its expected value over those draws, so that a method which scores all places alike is at chance, neither above
nor below it. A NaN says that the method cannot judge a place: such places come last, tied among themselves.
"""

from collections.abc import Sequence
from math import comb
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def top_k(scores: ArrayLike, truth: Sequence[int], k: int = 1) -> float:
    """Probability that the k highest scores hold a true place (any of them, where there are several).

    scores: ``[place]``. truth: indices of the true places. 0 or 1 unless a tie crosses the border of the top k.

    Raises ValueError when truth is empty or names a place that there is not.
    """
    values, true = _checked(scores, truth)
    best = values[true].max()
    slots = k - int((values > best).sum())  # what the places above leave of the top k; none of those is true
    level = values == best
    return _any_hit(int(level.sum()), int((level & true).sum()), slots)


def mean_score(rows: ArrayLike) -> NDArray[Any]:
    """Mean of ``[item, place]`` scores over the items that say something of a place; NaN where none does.

    A single row ``[place]`` is its own mean.
    """
    values = np.atleast_2d(np.asarray(rows, dtype=float))
    said = ~np.isnan(values)
    return np.where(said.any(0), np.where(said, values, 0.0).sum(0) / np.maximum(said.sum(0), 1), np.nan)


def mean_rank(scores: ArrayLike, truth: Sequence[int]) -> float:
    """Mean rank of the true places, 1 for the most suspect one; tied places share the mean of their ranks.

    Raises ValueError when truth is empty or names a place that there is not.
    """
    values, true = _checked(scores, truth)
    return float(mid_ranks(values)[true].mean())


def mid_ranks(scores: ArrayLike) -> NDArray[Any]:
    """Rank of every place, 1 for the highest score; ties share the mean of their ranks, NaNs share the last ones."""
    values = _ranked_last(scores)
    _, inverse, counts = np.unique(-values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse.reshape(values.shape)]


def roc_auc(scores: ArrayLike, truth: Sequence[int]) -> float:
    """Probability that a true place scores higher than another one, a tie counting as half (Mann & Whitney 1947).

    scores: ``[place]``. truth: indices of the true places. NaN where every place is true.

    Raises ValueError when truth is empty or names a place that there is not.
    """
    values, true = _checked(scores, truth)
    n_true, n_false = int(true.sum()), int((~true).sum())
    if n_false == 0:
        return float("nan")
    above = len(values) * n_true - mid_ranks(values)[true].sum() - n_true * (n_true - 1) / 2
    return float(above / (n_true * n_false))


def chance_top_k(n_places: int, n_true: int = 1, k: int = 1) -> float:
    """Top-k hit of a random order of ``n_places``, of which ``n_true`` are true."""
    return _any_hit(n_places, n_true, k)


def chance_mean_rank(n_places: int) -> float:
    """Mean rank in a random order."""
    return (n_places + 1) / 2


#: ROC-AUC of a random order, whatever the number of places
CHANCE_ROC_AUC = 0.5


def _any_hit(n: int, n_true: int, slots: int) -> float:
    """Probability that ``slots`` of ``n`` places, drawn without replacement, hold one of the ``n_true``."""
    if slots <= 0:
        return 0.0
    return 1.0 if slots >= n else 1.0 - comb(n - n_true, slots) / comb(n, slots)


def _ranked_last(scores: ArrayLike) -> NDArray[Any]:
    values = np.asarray(scores, dtype=float)
    return np.where(np.isnan(values), -np.inf, values)


def _checked(scores: ArrayLike, truth: Sequence[int]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Scores with NaN below everything, and which places are true."""
    values = _ranked_last(scores)
    index = np.asarray(truth, dtype=int).ravel()
    if values.ndim != 1 or index.size == 0 or index.min() < 0 or index.max() >= len(values):
        raise ValueError(f"scores are one per place and truth names some of them, not {truth} of shape {values.shape}")
    true = np.zeros(len(values), bool)
    true[index] = True
    return values, true
