"""Overdriven input: hard clipping."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from otoscope.audio.corruptions.base import Corruption, Target, in_range


@dataclass(frozen=True)
class Clipping(Corruption):
    """Cut every sample at ``threshold`` times the span's own peak, as an overdriven input does."""

    name = "clipping"
    keeps = ("words", "speaker", "pitch", "rhythm", "duration")
    breaks = ("loudness",)
    threshold: float = 0.2

    def __post_init__(self) -> None:
        in_range("threshold", self.threshold, 1e-4, 1)

    def alter(self, target: Target) -> Float[np.ndarray, " span"]:
        """The span with flat tops at ``threshold`` times its peak; there is no make-up gain."""
        top = self.threshold * float(np.abs(target.samples).max())
        return np.clip(target.samples, -top, top)
