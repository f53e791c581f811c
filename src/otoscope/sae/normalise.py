"""The scale of activations, fitted once before training and folded into the dictionary after it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from otoscope.errors import RunError
from otoscope.sae.training_config import Normalisation


@dataclass(frozen=True)
class Normaliser:
    """``(x - mean) * scale``: ``mean`` ``[d]``, one ``scale`` for all channels, so that directions keep their angles."""

    mean: Float[Tensor, " d"]
    scale: float

    def __call__(self, x: Float[Tensor, "frame d"]) -> Float[Tensor, "frame d"]:
        return (x - self.mean) * self.scale

    def to(self, device: str | torch.device) -> Normaliser:
        return Normaliser(self.mean.to(device), self.scale)

    @classmethod
    def fit(cls, batches: Iterable[Float[Tensor, "frame d"]], kind: Normalisation) -> Normaliser:
        """Fit to frames, in float64.

        Raises:
            RunError: there are none, they hold NaN, or they do not vary.
        """
        n, total, squares, norms = 0, None, 0.0, 0.0
        for x in batches:
            x = x.to("cpu", torch.float64)
            total = x.sum(0) if total is None else total + x.sum(0)
            squares += float(x.square().sum())
            norms += float(x.norm(dim=1).sum())
            n += len(x)
        if total is None or n == 0:
            raise RunError(
                "the activations hold no frames, so nothing can be trained on them: harvest some recordings."
            )
        return cls.of(total / n, squares / n, norms / n, kind)

    @classmethod
    def of(cls, mean: Float[Tensor, " d"], mean_square: float, norm: float, kind: Normalisation) -> Normaliser:
        """From the mean, the mean squared norm and the mean norm of frames.

        Raises:
            RunError: they are not finite, or the frames do not vary.
        """
        spread = {
            "none": 1.0,
            "scale": mean_square**0.5,
            "sqrt_d": norm / len(mean) ** 0.5,
            "standard": max(mean_square - float(mean.square().sum()), 0.0) ** 0.5,
        }[kind]
        if not 1e-12 < spread < float("inf"):
            raise RunError(
                f"the activations cannot be normalised: their spread is {spread}, and a number above 0 was expected; check "
                "that the harvest holds neither NaN nor one frame over and over."
            )
        shift = mean if kind == "standard" else torch.zeros_like(mean)
        return cls(shift.to(torch.float32), 1 / spread)


def geometric_median(points: Float[Tensor, "frame d"], iterations: int = 100) -> Float[Tensor, " d"]:
    """The point with the least sum of distances to all (Weiszfeld's iteration, float64), where far frames weigh less."""
    points = points.to(torch.float64)
    guess = points.mean(0)
    for _ in range(iterations):
        weights = 1 / (points - guess).norm(dim=1).clamp_min(1e-12)
        moved = (weights[:, None] * points).sum(0) / weights.sum()
        if (moved - guess).norm() < 1e-6:
            return moved.to(torch.float32)
        guess = moved
    return guess.to(torch.float32)
