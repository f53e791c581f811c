"""Fundamental frequency by autocorrelation (Boersma 1993), for labels of frames: which are voiced, and how high.

The autocorrelation of a windowed frame is divided by that of the window, so that a periodic sound has a peak near 1 at its
period however long the period is. The best peak between the lowest and the highest pitch is refined by a parabola.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from otoscope.audio.clip import Clip

#: range of pitch, Hz, and the least height of a peak that counts as voiced
LOWEST, HIGHEST, VOICED = 65.0, 400.0, 0.6
_WINDOW = 3 / LOWEST  # seconds: three periods of the lowest pitch
#: frames quieter than this share of the loudest are unvoiced
_QUIET = 0.02


def pitch(clip: Clip, times: Sequence[float] | Float[np.ndarray, " time"]) -> Float[np.ndarray, " time"]:
    """Fundamental frequency (Hz) around each time (seconds); NaN where the sound is not voiced.

    Args:
        clip: a sound.
        times: centres of the frames.
    """
    samples = clip.samples.astype(np.float64)
    n = round(_WINDOW * clip.rate)
    window = np.hanning(n)
    size = 1 << (2 * n - 1).bit_length()
    own = np.fft.irfft(np.abs(np.fft.rfft(window, size)) ** 2, size)[:n]
    padded = np.pad(samples, n)
    peak = float(np.abs(samples).max())
    first, last = int(clip.rate / HIGHEST), min(int(np.ceil(clip.rate / LOWEST)), n - 2)
    found = np.full(len(times), np.nan)
    for i, time in enumerate(times):
        start = round(time * clip.rate) + n - n // 2
        frame = padded[max(0, start) : max(0, start) + n]
        if len(frame) < n or np.abs(frame).max() < _QUIET * peak:
            continue
        frame = (frame - frame.mean()) * window
        raw = np.fft.irfft(np.abs(np.fft.rfft(frame, size)) ** 2, size)[:n]
        if raw[0] <= 0:
            continue
        curve = (raw / raw[0]) / (own / own[0])
        lags = np.arange(first, last + 1)
        # a small cost per octave, since every multiple of the period is a peak as well
        merit = curve[lags] - 0.01 * np.log2(lags / first)
        best = int(lags[merit.argmax()])
        if curve[best] < VOICED or best in (first, last):
            continue
        before, at, after = curve[best - 1], curve[best], curve[best + 1]
        bend = before - 2 * at + after
        shift = 0.5 * (before - after) / bend if bend < 0 else 0.0
        found[i] = clip.rate / (best + float(np.clip(shift, -0.5, 0.5)))
    return found
