"""Frames and bands that several yardsticks read, computed once per clip.

Frames of 25 ms every 10 ms (Hann window), none beyond the ends. Mel scale of O'Shaughnessy (1987),
``mel = 2595 log10(1 + f / 700)``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Bool, Float

from otoscope.audio.clip import Clip
from otoscope.methods.yardsticks.base import RATE, Seconds

HOP, WINDOW = 160, 400
N_BANDS = 26
LOWEST, HIGHEST = 60.0, 7600.0
#: Power below which a band counts as empty: about -100 dB under full scale.
FLOOR = 1e-10
#: Level of frames that hold digital silence alone, dB.
_DIGITAL = 10 * np.log10(FLOOR)

Value = TypeVar("Value")


def once_per_clip(compute: Callable[[Clip], Value]) -> Callable[[Clip], Value]:
    """Remember what was computed of a clip for as long as the clip lives: yardsticks share their frames."""
    known: WeakKeyDictionary[Clip, Value] = WeakKeyDictionary()

    @wraps(compute)
    def remembered(clip: Clip) -> Value:
        if clip not in known:
            known[clip] = compute(clip)
        return known[clip]

    return remembered


@once_per_clip
def samples_of(clip: Clip) -> Float[np.ndarray, " n"]:
    """The samples at ``RATE``, float64, at least one frame long (padded with zeros)."""
    samples = clip.resample(RATE).samples.astype(np.float64)
    return np.pad(samples, (0, max(0, WINDOW - len(samples))))


@once_per_clip
def power(clip: Clip) -> Float[np.ndarray, "frame bin"]:
    """Power of each frame and frequency bin, full-scale units: a sine of amplitude 1 has a total of 1/2 in a frame."""
    window = np.hanning(WINDOW)
    frames = np.lib.stride_tricks.sliding_window_view(samples_of(clip), WINDOW)[::HOP]
    spectrum = np.abs(np.fft.rfft(frames * window, 512)) ** 2
    return 2 * spectrum / (512 * np.sum(window**2))


@once_per_clip
def bands(clip: Clip) -> Float[np.ndarray, "frame band"]:
    """Power in each of ``N_BANDS`` mel bands."""
    return power(clip) @ _mel_weights().T


def deltas(values: Float[np.ndarray, "frame d"], reach: int = 2) -> Float[np.ndarray, "frame d"]:
    """Slope over ``2 reach + 1`` frames (least squares), edges repeated."""
    padded = np.pad(values, ((reach, reach), (0, 0)), mode="edge")
    steps = range(1, reach + 1)
    n = len(values)
    total = sum(k * (padded[reach + k : reach + k + n] - padded[reach - k : reach - k + n]) for k in steps)
    return np.asarray(total) / (2 * sum(k * k for k in steps))


def inside(n_frames: int, span: Seconds | None) -> slice:
    """The frames whose middle lies in the span; at least one."""
    if span is None:
        return slice(0, n_frames)
    middle = WINDOW / 2 / RATE
    first, last = (round((second - middle) * RATE / HOP) for second in span)
    first = min(max(first, 0), n_frames - 1)
    return slice(first, max(min(last, n_frames), first + 1))


def active(clip: Clip, span: Seconds | None = None) -> Bool[np.ndarray, " frame"]:
    """Frames of a span that hold speech: above the middle (in dB) between the span's floor and its loud frames.

    The floor is the 5% quantile and the loud level the 95% quantile of the frames' level over the *whole* clip between 100
    and 4000 Hz, so a noise under the speech raises the threshold as well. A span counts as without speech where its clip has
    a range below 6 dB: noise alone wavers by less.
    """
    level = speech_level(clip)
    # digital silence has no level of its own: a word that is cut out must not lower the threshold of the others
    heard = level[level > _DIGITAL]
    quiet, loud = np.quantile(heard, [0.05, 0.95]) if len(heard) else (_DIGITAL, _DIGITAL)
    if loud - quiet < 6.0 or loud < -75.0:
        return np.zeros(len(level), bool)[inside(len(level), span)]
    return (level > max((quiet + loud) / 2, loud - 30.0))[inside(len(level), span)]


@once_per_clip
def speech_level(clip: Clip) -> Float[np.ndarray, " frame"]:
    """Level between 100 and 4000 Hz in dB, smoothed over 5 frames."""
    hz = np.fft.rfftfreq(512, 1 / RATE)
    energy = power(clip)[:, (hz >= 100) & (hz <= 4000)].sum(axis=1)
    smooth = np.convolve(np.pad(energy, 2, mode="edge"), np.full(5, 0.2), mode="valid")
    return 10 * np.log10(np.maximum(smooth, FLOOR))


@cache
def _mel_weights() -> Float[np.ndarray, "band bin"]:
    """Triangles of equal width in mel, each with a top of 1."""
    top = 2595 * np.log10(1 + HIGHEST / 700)
    low = 2595 * np.log10(1 + LOWEST / 700)
    edges = 700 * (10 ** (np.linspace(low, top, N_BANDS + 2) / 2595) - 1)
    hz = np.fft.rfftfreq(512, 1 / RATE)
    rising = (hz - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - hz) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0, np.minimum(rising, falling))
