"""Representations in which it is known where a label is, and how."""

from __future__ import annotations

import numpy as np

from otoscope.methods.probes import Rows


def speakers(n_speakers: int, per_speaker: int) -> np.ndarray:
    """``s0`` so many times, then ``s1``, ..."""
    return np.repeat([f"s{i:02d}" for i in range(n_speakers)], per_speaker)


def balanced(n: int, seed: int = 0) -> np.ndarray:
    """Two labels, equally often, in random order."""
    return np.random.default_rng(seed).permutation(np.resize(["a", "b"], n))


def noise(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Standard normal features."""
    return np.random.default_rng(seed).standard_normal((n, d))


def linear(y: np.ndarray, d: int, strength: float = 2.0, seed: int = 0) -> np.ndarray:
    """Noise in which one direction carries the label."""
    rng = np.random.default_rng(seed + 100)
    direction = rng.standard_normal(d)
    direction /= np.linalg.norm(direction)
    return noise(len(y), d, seed) + strength * np.where(y == "b", 1.0, -1.0)[:, None] * direction


def xor(y: np.ndarray, d: int, seed: int = 0) -> np.ndarray:
    """Noise in which the label is the product of the signs of two features: no direction carries it."""
    rng = np.random.default_rng(seed + 200)
    x = 0.3 * noise(len(y), d, seed)
    first = rng.choice([-1.0, 1.0], len(y))
    x[:, 0] += 2 * first
    x[:, 1] += 2 * first * np.where(y == "b", 1.0, -1.0)
    return x


def rows(y: np.ndarray, groups: np.ndarray, types: np.ndarray | None = None) -> Rows:
    """Rows whose types are their groups unless said otherwise."""
    return Rows(y, groups, groups if types is None else types, groups)
