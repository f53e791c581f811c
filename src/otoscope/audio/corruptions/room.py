"""Reverberation by a synthetic room."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import signal

from otoscope.audio.corruptions.base import Corruption, Target, in_range

#: Time between the direct sound and the first reflection, seconds (a wall about 0.5 m away).
_FIRST_REFLECTION = 0.003
_FADE_MS = 5.0


@dataclass(frozen=True)
class Reverberation(Corruption):
    """Convolve with a seeded room response whose energy decays by 60 dB in ``rt60`` seconds.

    The direct sound stays where it was, so times stay valid; the tail past the end is cut; the span's level is kept.
    ``drr_db`` is the ratio of direct to reverberant energy (dB): the lower, the further away the speaker.
    """

    name = "reverberation"
    keeps = ("words", "phones", "speaker", "pitch", "loudness", "duration")
    breaks = ("background", "rhythm")
    rt60: float = 0.6
    drr_db: float = 0.0

    def __post_init__(self) -> None:
        in_range("rt60", self.rt60, 0.05, 20, "s")
        in_range("drr_db", self.drr_db, -40, 60, "dB")

    def alter(self, target: Target) -> Float[np.ndarray, " span"]:
        """The span as it sounds in the room, at its own level, with the reverberation of what came before it."""
        response = room_response(self.rt60, self.drr_db, target.rate, target.rng)
        wet = signal.oaconvolve(target.whole, response)[target.where]
        loudness = float(np.sqrt(np.mean(np.square(wet))))
        return target.faded(wet * np.sqrt(target.power) / max(loudness, 1e-12), _FADE_MS)


def room_response(rt60: float, drr_db: float, rate: int, rng: np.random.Generator) -> Float[np.ndarray, " taps"]:
    """Impulse response: 1 at time 0, then Gaussian noise times ``10^(-3 t / rt60)`` (Polack's model, 1988).

    Its length is ``rt60`` seconds; the energy of the noise is that of the direct sound minus ``drr_db``.
    """
    time = np.arange(max(round(rt60 * rate), 2)) / rate
    tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / rt60)
    tail[: max(1, round(_FIRST_REFLECTION * rate))] = 0
    response = tail * np.sqrt(10 ** (-drr_db / 10) / np.sum(np.square(tail)))
    response[0] = 1.0
    return response
