"""Silence in the place of the sound."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from otoscope.audio.corruptions.base import Corruption, Target, in_range


@dataclass(frozen=True)
class Silence(Corruption):
    """Replace the span by digital silence, with a short fade inside it at each edge so that no click appears."""

    name = "silence"
    keeps = ("duration",)
    breaks = ("words", "phones", "speaker", "pitch", "loudness", "background", "rhythm")
    fade_ms: float = 2.0

    def __post_init__(self) -> None:
        in_range("fade_ms", self.fade_ms, 0, 100, "ms")

    def alter(self, target: Target) -> Float[np.ndarray, " span"]:
        """Zeros, faded over ``fade_ms`` (milliseconds) from and to the sound around."""
        return target.faded(np.zeros(len(target.samples)), self.fade_ms)
