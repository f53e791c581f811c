"""Pitch: how the distribution of F0 moves, in semitones, and how much of the voice is lost.

F0 by YIN (de Cheveigne and Kawahara 2002): with the difference function ``d(t) = sum_j (x_j - x_{j+t})^2`` and its
cumulative mean normal form ``d'(t) = d(t) t / sum_{s<=t} d(s)`` (equations 6 and 8), the period is the first dip of d' that is
below a threshold and hardly above the deepest one, at its bottom, refined by a parabola; a frame without a dip below the
threshold is unvoiced. "Hardly above the deepest" is ours: where the first harmonics are missing, as in a telephone, shallow
dips come before that of the period. The sound is low-passed at 900 Hz first: the harmonics that carry pitch are strongest
there, and noise is not.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import ndimage, signal

from otoscope.audio.clip import Clip
from otoscope.methods.yardsticks.base import RATE, Seconds, Yardstick
from otoscope.methods.yardsticks.frames import HOP, WINDOW, once_per_clip, samples_of, speech_level

LOWEST, HIGHEST = 60.0, 420.0
#: Dip of d' below which a frame is voiced.
VOICED = 0.25
#: How far above the deepest dip the first one may be.
_SLACK = 0.08
#: Semitones that a voiced frame counts as moved when nothing voiced is left in its place: an octave.
GONE = 12.0
#: Frames so far below the loud ones (dB) are no speech.
_QUIET = 35.0
_FRAME = 800  # 50 ms: three periods at 60 Hz
_ONCE = 1e-12


class Pitch(Yardstick):
    """Distance of two distributions of F0, plus the voice that is lost."""

    factor = "pitch"
    unit = "semitones"
    summary = "earth mover's distance of the F0 distributions, plus an octave for each voiced frame that is lost"

    def moved(
        self, clean: Clip, corrupt: Clip, span: Seconds | None = None, corrupt_span: Seconds | None = None
    ) -> float:
        """``W1(F0 clean, F0 corrupt) * share kept + 12 * share of the voiced frames lost``; NaN without a clean voice."""
        before, after = voiced_semitones(clean, span), voiced_semitones(corrupt, corrupt_span or span)
        if not len(before):
            return float("nan")
        kept = min(1.0, len(after) / len(before))
        moved = earth_mover(before, after) if len(after) else 0.0
        return kept * moved + (1 - kept) * GONE


def voiced_semitones(clip: Clip, span: Seconds | None = None) -> Float[np.ndarray, " voiced"]:
    """F0 of the voiced frames of a span, in semitones above 60 Hz."""
    track = f0(clip)
    if span is not None:
        middle = (np.arange(len(track)) * HOP + _FRAME / 2) / RATE
        track = track[(middle >= span[0]) & (middle < span[1])]
    return 12 * np.log2(track[~np.isnan(track)] / LOWEST)


def earth_mover(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " m"]) -> float:
    """Mean distance of the quantiles of two samples (Wasserstein-1), in the samples' unit."""
    shares = (np.arange(100) + 0.5) / 100
    return float(np.mean(np.abs(np.quantile(first, shares) - np.quantile(second, shares))))


@once_per_clip
def f0(clip: Clip) -> Float[np.ndarray, " frame"]:
    """F0 in Hz every 10 ms, NaN where unvoiced."""
    sos = signal.butter(4, 900, fs=RATE, output="sos")
    low = np.asarray(signal.sosfiltfilt(sos, np.pad(samples_of(clip), (0, _FRAME))))
    longest, shortest = round(RATE / LOWEST), round(RATE / HIGHEST)
    frames = np.lib.stride_tricks.sliding_window_view(low, _FRAME + longest)[::HOP]
    normal = _normal_difference(frames, longest)
    found = np.array([_period(row, shortest, longest) for row in normal])
    level = speech_level(clip)
    # F0 frames are longer than the level's, so there are fewer or more of them at the end
    at = np.minimum(np.arange(len(found)) + (_FRAME - WINDOW) // (2 * HOP), len(level) - 1)
    found[level[at] < np.quantile(level, 0.95) - _QUIET] = np.nan
    # a single odd frame is an octave error, not a voice
    return RATE / _smoothed(found)


def _normal_difference(frames: Float[np.ndarray, "frame n"], longest: int) -> Float[np.ndarray, "frame lag"]:
    """YIN's d' for lags 0 to ``longest``."""
    n = frames.shape[1] - longest
    size = 1 << int(np.ceil(np.log2(frames.shape[1] + n)))
    head = np.fft.rfft(frames[:, :n], size)
    cross = np.fft.irfft(np.conj(head) * np.fft.rfft(frames, size), size)[:, : longest + 1]
    squares = np.cumsum(np.pad(frames**2, ((0, 0), (1, 0))), axis=1)
    energy = squares[:, n : n + longest + 1] - squares[:, : longest + 1]
    difference = np.maximum(energy[:, :1] + energy - 2 * cross, 0.0)
    lags = np.arange(1, longest + 1)
    total = np.cumsum(difference[:, 1:], axis=1)
    out = np.ones_like(difference)
    out[:, 1:] = difference[:, 1:] * lags / np.maximum(total, _ONCE * n)
    out[energy[:, 0] < _ONCE * n] = 1.0
    return out


def _period(row: Float[np.ndarray, " lag"], shortest: int, longest: int) -> float:
    """The period in samples, NaN where no dip is deep enough."""
    lowest = float(row[shortest:longest].min())
    if lowest >= VOICED:
        return float("nan")
    below = np.flatnonzero(row[shortest:longest] < min(VOICED, lowest + _SLACK))
    lag = shortest + int(below[0])
    while lag + 1 < longest and row[lag + 1] < row[lag]:
        lag += 1
    left, middle, right = row[lag - 1], row[lag], row[lag + 1]
    bend = left - 2 * middle + right
    return lag + (0.5 * (left - right) / bend if bend > 0 else 0.0)


def _smoothed(periods: Float[np.ndarray, " frame"]) -> Float[np.ndarray, " frame"]:
    """Median over 5 frames, of the voiced ones among them; voiced frames without a voiced neighbour are dropped."""
    out = ndimage.generic_filter(periods, _median_of_known, size=5, mode="constant", cval=np.nan)
    out[np.isnan(periods)] = np.nan
    return out


def _median_of_known(window: Float[np.ndarray, "5"]) -> float:
    known = window[~np.isnan(window)]
    return float(np.median(known)) if len(known) > 1 else float("nan")
