"""Low-, high- and band-pass filters without delay (Butterworth, run forwards and backwards)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy import signal

from otoscope.audio.corruptions.base import Corruption, Target, in_range
from otoscope.errors import AudioError

_KEEPS = ("words", "rhythm", "duration")
#: Fade between the filtered span and the sound around it, milliseconds.
_FADE_MS = 5.0


def zero_phase(
    target: Target, kind: Literal["lowpass", "highpass", "bandpass"], hz: float | tuple[float, float], order: int
) -> Float[np.ndarray, " span"]:
    """The span after a zero-phase Butterworth filter of ``order`` (so -6 dB at each cutoff, in ``hz``).

    The whole clip is filtered, so that the span's edges have their context, and the span is faded in.
    """
    highest = np.max(hz)
    if highest >= target.rate / 2:
        raise AudioError(
            f"The cutoff {highest:g} Hz is not below {target.rate / 2:g} Hz, half the rate of {target.clip.who}; "
            "choose a lower one."
        )
    sos = np.asarray(signal.butter(order, hz, btype=kind, fs=target.rate, output="sos"))
    # scipy's own padding is too short for low cutoffs at high rates; one decay of the slowest pole is enough
    padding = min(len(target.whole) - 1, max(3 * (2 * len(sos) + 1), round(2 * target.rate / float(np.min(hz)))))
    filtered = signal.sosfiltfilt(sos, target.whole, padlen=padding)
    return target.faded(filtered[target.where], _FADE_MS)


@dataclass(frozen=True)
class LowPass(Corruption):
    """Keep what lies below ``cutoff_hz``."""

    name = "low_pass"
    keeps = ("words", "pitch", "rhythm", "duration")
    breaks = ("phones",)
    cutoff_hz: float = 1000.0
    order: int = 4

    def __post_init__(self) -> None:
        in_range("cutoff_hz", self.cutoff_hz, 1, 1e6, "Hz")
        in_range("order", self.order, 1, 12, whole=True)

    def alter(self, target: Target) -> Float[np.ndarray, " span"]:
        """The span without its high frequencies."""
        return zero_phase(target, "lowpass", self.cutoff_hz, self.order)


@dataclass(frozen=True)
class HighPass(Corruption):
    """Keep what lies above ``cutoff_hz``."""

    name = "high_pass"
    keeps = _KEEPS
    breaks = ("loudness",)
    cutoff_hz: float = 1000.0
    order: int = 4

    def __post_init__(self) -> None:
        in_range("cutoff_hz", self.cutoff_hz, 1, 1e6, "Hz")
        in_range("order", self.order, 1, 12, whole=True)

    def alter(self, target: Target) -> Float[np.ndarray, " span"]:
        """The span without its low frequencies."""
        return zero_phase(target, "highpass", self.cutoff_hz, self.order)


@dataclass(frozen=True)
class BandPass(Corruption):
    """Keep what lies between ``low_hz`` and ``high_hz``; the defaults are those of the old telephone."""

    name = "band_pass"
    keeps = _KEEPS
    breaks = ("loudness",)
    low_hz: float = 300.0
    high_hz: float = 3400.0
    order: int = 4

    def __post_init__(self) -> None:
        in_range("low_hz", self.low_hz, 1, 1e6, "Hz")
        in_range("high_hz", self.high_hz, 1, 1e6, "Hz")
        in_range("order", self.order, 1, 12, whole=True)
        if self.low_hz >= self.high_hz:
            raise AudioError(f"low_hz ({self.low_hz:g}) is not below high_hz ({self.high_hz:g}); swap them.")

    def alter(self, target: Target) -> Float[np.ndarray, " span"]:
        """The span without what lies outside the band."""
        return zero_phase(target, "bandpass", (self.low_hz, self.high_hz), self.order)
