"""Rhythm: when the sound swells and fades, as the correlation of the amplitude envelopes.

In four bands the amplitude (square root of power) is smoothed to modulations below about 12 Hz, where syllables live
(Houtgast and Steeneken 1985); ``moved = 1 - sum_b w_b r_b`` with r_b the correlation of clean and corrupt envelope at equal
times and w_b the clean envelope's share of variance. A steady noise adds a constant to an envelope and a filter scales it, so
neither moves what is correlated; a delay of a syllable does.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from otoscope.audio.clip import Clip
from otoscope.methods.yardsticks.base import RATE, Seconds, Yardstick
from otoscope.methods.yardsticks.frames import inside, once_per_clip, power

_EDGES = (100.0, 500.0, 1200.0, 2500.0, 5500.0)
#: Standard deviation of the smoothing, frames of 10 ms: -3 dB at about 11 Hz.
_SMOOTHING = 1.2
_FEW = 5


class Rhythm(Yardstick):
    """1 - correlation of the amplitude envelopes."""

    factor = "rhythm"
    unit = "1 - correlation"
    summary = "1 minus the correlation of the amplitude envelopes in four bands, at equal times"

    def moved(
        self, clean: Clip, corrupt: Clip, span: Seconds | None = None, corrupt_span: Seconds | None = None
    ) -> float:
        """0 for the same course of loudness, 1 for an unrelated one; the shorter of two sounds counts as padded."""
        before, after = (
            envelopes(clip)[inside(len(envelopes(clip)), where)]
            for clip, where in ((clean, span), (corrupt, corrupt_span or span))
        )
        n = max(len(before), len(after))
        before, after = (np.pad(e, ((0, n - len(e)), (0, 0))) for e in (before, after))
        if len(before) < _FEW:
            return float("nan")
        before, after = before - before.mean(axis=0), after - after.mean(axis=0)
        spread = np.sum(before**2, axis=0)
        if not spread.sum():
            return float("nan")
        size = np.sqrt(spread * np.sum(after**2, axis=0))
        r = np.where(size > 0, np.sum(before * after, axis=0) / np.where(size > 0, size, 1.0), 0.0)
        return float(1 - np.sum(spread / spread.sum() * np.clip(r, -1, 1)))


@once_per_clip
def envelopes(clip: Clip) -> Float[np.ndarray, "frame band"]:
    """Smoothed amplitude in each of the four bands."""
    spectrum = power(clip)
    hz = np.fft.rfftfreq(512, 1 / RATE)
    parts = [spectrum[:, (hz >= low) & (hz < high)].sum(axis=1) for low, high in zip(_EDGES, _EDGES[1:])]
    return ndimage.gaussian_filter1d(np.sqrt(np.stack(parts, axis=1)), _SMOOTHING, axis=0, mode="nearest")
