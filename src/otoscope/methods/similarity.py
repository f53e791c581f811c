"""Centred kernel alignment: how alike two sets of states are, up to rotation and scale, without the bias of few samples.

For kernels ``K = X X'`` and ``L = Y Y'`` of ``m`` samples, with zeros on their diagonals, the unbiased estimate of the
Hilbert-Schmidt independence criterion is (Song et al. 2012; Nguyen, Raghu & Kornblith 2021, equation 3)

    HSIC = [ tr(K L) + (1'K1)(1'L1) / ((m-1)(m-2)) - 2 (1'K L 1) / (m-2) ] / (m (m-3))

and, with one set of samples per utterance and means over utterances (equation 2 there, where a set is a minibatch),

    CKA = mean HSIC(K, L) / sqrt(mean HSIC(K, K) * mean HSIC(L, L))

The usual, biased CKA (Kornblith et al. 2019) comes near 1 for random states once the number of samples is near their
width; this one is 0 on average there. Neither kernel is centred first: the estimator does not change when a constant is
added to the states, and centring the kernel would bring the bias back.

Frames of speech resemble their neighbours, so shuffled frames are no fair null: the null here moves whole blocks of
frames (:func:`block_null`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from otoscope.errors import TaskError

#: fewest samples of a set for which the estimate exists
FEWEST = 4

#: states of one utterance, or of several: one set of samples each
Sets = Sequence[Float[np.ndarray, "sample d"]] | Float[np.ndarray, "sample d"]


@dataclass(frozen=True)
class Null:
    """A similarity beside what chance gives.

    Attributes:
        value: the CKA.
        null: CKA after moving blocks of the second states, ``[draw]``.
        p_value: share of draws that reach the value, the value itself counted among them.
    """

    value: float
    null: Float[np.ndarray, " draw"]
    p_value: float


def hsic(k: Float[np.ndarray, "sample sample"], other: Float[np.ndarray, "sample sample"]) -> float:
    """Unbiased HSIC of two kernels; their diagonals are not read.

    Args:
        k: kernel of the first states, symmetric, not centred.
        other: kernel of the second states of the same samples.

    Raises:
        TaskError: fewer than 4 samples, or kernels of different sizes.
    """
    m = len(k)
    if k.shape != (m, m) or other.shape != (m, m):
        raise TaskError(f"the kernels are {k.shape} and {other.shape}: give two square ones of the same samples.")
    if m < FEWEST:
        raise TaskError(f"unbiased HSIC needs at least {FEWEST} samples, and there are {m}: give more frames.")
    return _inner(_open(k), _open(other))


def cka(x: Sets, y: Sets) -> float:
    """Unbiased linear CKA of two representations of the same samples, in [-1, 1]; NaN where one of them does not vary.

    Args:
        x: states, one array per utterance (or one array alone). Sets of fewer than 4 samples are left out.
        y: states of the same samples; their width may differ.

    Raises:
        TaskError: the two have different samples.
    """
    kernels = _kernels(x, y)
    return _ratio(kernels, _size(kernels))


def block_null(x: Sets, y: Sets, block: int, n_draws: int = 200, seed: int = 0) -> Null:
    """CKA beside its null: within each utterance, blocks of ``block`` consecutive samples of ``y`` change places.

    A block keeps its frames in order, so the null keeps how neighbouring frames resemble each other and only loses which
    frame of ``x`` they belong to. Take blocks longer than that resemblance lasts, and
    utterances of several blocks: one block alone cannot move.

    Args:
        x: states, one array per utterance.
        y: states of the same samples.
        block: samples per block; the last block of an utterance may be shorter.
        n_draws: random orders.
        seed: of the orders.

    Raises:
        TaskError: different samples, or blocks of less than one sample.
    """
    if block < 1:
        raise TaskError(f"blocks of {block} samples cannot change places: give a block of at least 1.")
    kernels, rng = _kernels(x, y), np.random.default_rng(seed)
    size = _size(kernels)  # an order of the samples does not change it
    value = _ratio(kernels, size)
    null = np.array([_ratio([(k, _moved(other, block, rng)) for k, other in kernels], size) for _ in range(n_draws)])
    reached = int((null >= value - 1e-12).sum())
    return Null(value, null, float("nan") if np.isnan(value) else (reached + 1) / (n_draws + 1))


def _kernels(x: Sets, y: Sets) -> list[tuple[np.ndarray, np.ndarray]]:
    first, second = ([s] if isinstance(s, np.ndarray) else list(s) for s in (x, y))
    if [len(s) for s in first] != [len(s) for s in second]:
        raise TaskError(
            f"the states have {[len(s) for s in first]} and {[len(s) for s in second]} samples: CKA compares two "
            "representations of the same samples, so give as many of each."
        )
    return [(_open(_kernel(a)), _open(_kernel(b))) for a, b in zip(first, second) if len(a) >= FEWEST]


def _kernel(states: np.ndarray) -> np.ndarray:
    # the estimator ignores a constant in the states, and float64 without it loses fewer digits
    wide = states.reshape(len(states), -1).astype(np.float64)
    wide = wide - wide.mean(0)
    return wide @ wide.T


def _open(kernel: np.ndarray) -> np.ndarray:
    """The kernel with zeros on its diagonal."""
    opened = np.array(kernel, dtype=np.float64)
    np.fill_diagonal(opened, 0.0)
    return opened


def _inner(k: np.ndarray, other: np.ndarray) -> float:
    m = len(k)
    rows_k, rows_other = k.sum(1), other.sum(1)
    trace = float((k * other).sum())
    sums = float(rows_k.sum() * rows_other.sum()) / ((m - 1) * (m - 2))
    mixed = 2.0 * float(rows_k @ rows_other) / (m - 2)
    return (trace + sums - mixed) / (m * (m - 3))


def _size(kernels: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """The denominator: the geometric mean of what each representation has in common with itself."""
    own = []
    for side in (0, 1):
        ks = [pair[side] for pair in kernels]
        mean = float(np.mean([_inner(k, k) for k in ks])) if ks else 0.0
        # a kernel without variance has an estimate of 0 up to the rounding of its own size
        own.append(mean if mean > 1e-14 * max((float((k**2).mean()) for k in ks), default=0.0) else float("nan"))
    return float(np.sqrt(own[0] * own[1]))


def _ratio(kernels: Sequence[tuple[np.ndarray, np.ndarray]], size: float) -> float:
    if np.isnan(size):
        return float("nan")
    return float(np.clip(np.mean([_inner(k, other) for k, other in kernels]) / size, -1.0, 1.0))


def _moved(kernel: np.ndarray, block: int, rng: np.random.Generator) -> np.ndarray:
    starts = np.arange(0, len(kernel), block)
    order = np.concatenate([np.arange(s, min(s + block, len(kernel))) for s in rng.permutation(starts)])
    return kernel[np.ix_(order, order)]
