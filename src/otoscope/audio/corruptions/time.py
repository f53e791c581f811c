"""Order in time: short blocks shuffled, or the span reversed. The long-term spectrum stays, the words do not."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from otoscope.audio.corruptions.base import Corruption, Target, fade_samples, in_range
from otoscope.errors import AudioError

_KEEPS = ("speaker", "loudness", "background", "duration")
_BREAKS = ("words", "phones", "rhythm")


@dataclass(frozen=True)
class TimeShuffle(Corruption):
    """Cut the span into blocks of ``block_ms`` and put them in a random order that is never the original one.

    Each join is a cross-fade of ``fade_ms``, from what followed the previous block in the original; 0 gives the exact
    samples, with clicks.
    """

    name = "time_shuffle"
    keeps = _KEEPS
    breaks = _BREAKS
    block_ms: float = 50.0
    fade_ms: float = 2.0

    def __post_init__(self) -> None:
        in_range("block_ms", self.block_ms, 0.1, 60_000, "ms")
        in_range("fade_ms", self.fade_ms, 0, 100, "ms")

    def alter(self, target: Target) -> Float[np.ndarray, " span"]:
        """The same blocks in another order."""
        block = max(1, round(self.block_ms * target.rate / 1000))
        starts = np.arange(target.where.start, target.where.stop, block)
        if len(starts) < 2:
            raise AudioError(
                f"The span of {len(target.samples) / target.rate * 1000:.0f} ms holds fewer than two blocks of "
                f"{self.block_ms:g} ms; give a longer span or a smaller block_ms."
            )
        order = target.rng.permutation(len(starts))
        while np.array_equal(order, np.arange(len(starts))):
            order = target.rng.permutation(len(starts))
        fade = fade_samples(self.fade_ms, target.rate, block)
        ramp = (np.arange(fade) + 0.5) / max(fade, 1)
        pieces = []
        before = target.where.start
        for index in order:
            start, stop = starts[index], min(starts[index] + block, target.where.stop)
            piece = target.whole[start:stop].copy()
            # what would have come next had the previous block gone on; equal to the piece itself when it does
            goes_on = target.whole[before : before + min(fade, len(piece))]
            if before < len(target.whole):
                weight = ramp[: len(goes_on)]
                piece[: len(goes_on)] = weight * piece[: len(goes_on)] + (1 - weight) * goes_on
            pieces.append(piece)
            before = stop
        shuffled = np.concatenate(pieces)
        if fade and target.where.stop < len(target.whole):
            shuffled[-fade:] = ramp[::-1] * shuffled[-fade:] + (1 - ramp[::-1]) * target.samples[-fade:]
        return shuffled


@dataclass(frozen=True)
class Reverse(Corruption):
    """Play the span backwards."""

    name = "reverse"
    keeps = (*_KEEPS, "pitch")
    breaks = _BREAKS
    fade_ms: float = 2.0

    def __post_init__(self) -> None:
        in_range("fade_ms", self.fade_ms, 0, 100, "ms")

    def alter(self, target: Target) -> Float[np.ndarray, " span"]:
        """The samples of the span in reverse order, faded at the edges over ``fade_ms`` (milliseconds)."""
        return target.faded(target.samples[::-1], self.fade_ms)
