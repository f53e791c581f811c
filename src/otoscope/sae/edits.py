"""Edits of a few features that keep what the dictionary misses: ``x' = x + (dec(f') - dec(f))``.

Decoding is linear, so only what the edited features write changes, ``x' = x + sum_j (f'_j - f_j) d_j`` over these features,
and an edit that changes nothing gives the frames themselves. Inserting the reconstruction instead, ``x' = dec(f')``, changes
behaviour before anything is edited, so it is an arm of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from otoscope.sae.measures.frames import Sparse, csr


def written(
    codes: Sparse, decoder: Float[np.ndarray, "feature d"], features: Sequence[int] | Int[np.ndarray, " chosen"]
) -> Float[np.ndarray, "frame d"]:
    """What some features write, ``sum_j f_j d_j``: taking it from the frames sets them to 0 and keeps the error.

    Args:
        codes: ``[frame, feature]``.
        decoder: what each feature writes.
        features: which; none gives zeros.
    """
    chosen = np.asarray(features, np.int64)
    if not len(chosen):
        return np.zeros((codes.shape[0], decoder.shape[1]), np.float32)
    part = csr(codes)[:, chosen]
    return np.asarray(part @ np.asarray(decoder)[chosen], np.float32)


def scaled(
    x: Float[np.ndarray, "frame d"],
    codes: Sparse,
    decoder: Float[np.ndarray, "feature d"],
    features: Sequence[int] | Int[np.ndarray, " chosen"],
    factor: float,
) -> Float[np.ndarray, "frame d"]:
    """Frames with some features' codes multiplied by ``factor``, 0 to erase them, the dictionary's error kept."""
    return np.asarray(x) + (factor - 1) * written(codes, decoder, features)


def active_in(codes: Sparse, features: Sequence[int] | Int[np.ndarray, " chosen"]) -> Bool[np.ndarray, " frame"]:
    """Whether any of some features is active."""
    part = csr(codes)[:, np.asarray(features, np.int64)]
    return np.asarray((part > 0).sum(axis=1)).ravel() > 0


def matched(
    rates: Float[np.ndarray, " feature"], chosen: Sequence[int] | Int[np.ndarray, " chosen"], seed: int = 0
) -> Int[np.ndarray, " chosen"]:
    """For each chosen feature another one, each taken once, that is active about as often: one of the five nearest, by lot.

    Args:
        rates: share of the frames in which each feature is active; those at 0 are not taken.
        chosen: features to be matched.
        seed: of the lots.
    """
    rng = np.random.default_rng(seed)
    free = np.setdiff1d(np.flatnonzero(np.asarray(rates) > 0), np.asarray(chosen))
    found = []
    for feature in chosen:
        if not len(free):
            break
        near = free[np.argsort(np.abs(np.log(rates[free]) - np.log(max(rates[feature], 1e-12))), kind="stable")[:5]]
        found.append(int(rng.choice(near)))
        free = free[free != found[-1]]
    return np.array(found, np.int64)
