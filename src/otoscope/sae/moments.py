"""Moments of activations, exactly and in pieces: Chan, Golub and LeVeque 1979.

Two sets of n_a and n_b frames with means m_a, m_b and sums of squared deviations S_a, S_b join to
``m = m_a + (m_b - m_a) n_b / n`` and ``S = S_a + S_b + (m_b - m_a)^2 n_a n_b / n``, in float64. Unlike E[x^2] - E[x]^2, no
large numbers cancel.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

#: frames that are turned to float64 at once
_AT_ONCE = 8192


@dataclass(frozen=True)
class Moments:
    """Of ``n`` frames: their ``mean`` and sums of squared deviations from it (``m2``), ``[d]`` float64, and the mean of
    their norms (``norm``), ``[]`` float64."""

    n: int
    mean: Float[Tensor, " d"]
    m2: Float[Tensor, " d"]
    norm: Float[Tensor, ""]

    @classmethod
    def of(cls, x: Float[Tensor, "frame d"]) -> Moments:
        """The moments of these frames."""
        return merged(_few(part.double()) for part in x.split(_AT_ONCE))

    @property
    def variance(self) -> Float[Tensor, " d"]:
        """Variance of each channel."""
        return self.m2 / max(1, self.n)

    @property
    def mean_square(self) -> float:
        """Mean squared norm of a frame."""
        return float(self.variance.sum() + self.mean.square().sum())


def merged(parts: Iterable[Moments]) -> Moments:
    """The moments of all parts together, joined in their order."""
    total: Moments | None = None
    for part in parts:
        total = part if total is None else _joined(total, part)
    if total is None:
        raise ValueError("there are no moments to join")
    return total


def _few(x: Float[Tensor, "frame d"]) -> Moments:
    if not len(x):
        return Moments(0, x.new_zeros(x.shape[1]), x.new_zeros(x.shape[1]), x.new_zeros(()))
    mean = x.mean(0)
    return Moments(len(x), mean, (x - mean).square().sum(0), x.norm(dim=1).mean())


def _joined(a: Moments, b: Moments) -> Moments:
    n = a.n + b.n
    if not n:
        return a
    step, share = b.mean - a.mean, b.n / n
    m2 = a.m2 + b.m2 + step.square() * (a.n * share)
    return Moments(n, a.mean + step * share, m2, a.norm + (b.norm - a.norm) * share)
