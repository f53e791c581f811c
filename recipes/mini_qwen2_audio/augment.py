"""Seeded changes of a recording that keep its label: loudness, speed, band, room, noise, and silence around it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.signal
import soxr

RATE = 16000
LONGEST = 4 * RATE


def augmented(
    x: np.ndarray, kind: str, rng: np.random.Generator, noises: Sequence[np.ndarray], *, change: bool = True
) -> np.ndarray:
    """A sound of at most four seconds.

    Args:
        x: samples at 16 kHz.
        kind: the item's kind; words are padded to a random length (most often one second), long sounds are cut.
        rng: seeded generator.
        noises: recordings to mix in.
        change: False only cuts and pads.
    """
    if change:
        if rng.random() < 0.6:
            x = _speed(x, rng.uniform(0.88, 1.14) if kind == "word" else rng.uniform(0.95, 1.05))
        if rng.random() < 0.25 and kind != "sound":
            x = _band(x, rng)
        if rng.random() < 0.2:
            x = _room(x, rng)
    x = _fit(x, kind, rng)
    if change:
        if rng.random() < 0.5:
            x = _noisy(x, rng, noises, rng.uniform(12, 35) if kind == "sound" else rng.uniform(5, 30))
        x = x / max(1e-4, np.abs(x).max()) * 10 ** rng.uniform(-1.5, -0.05)
    return np.clip(x, -1, 1).astype(np.float32)


def _fit(x: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    if kind in ("word", "silence"):
        length = RATE if rng.random() < 0.7 else int(rng.uniform(0.6, 2.0) * RATE)
        length = max(length, min(len(x), RATE))
    else:
        length = LONGEST if rng.random() < 0.6 else int(rng.uniform(1.5, 4.0) * RATE)
    if len(x) > length:
        if kind == "word":  # the loudest stretch holds the word
            energy = np.concatenate(([0.0], np.cumsum(x.astype(np.float64) ** 2)))
            start = int((energy[length:] - energy[:-length]).argmax())
        else:
            start = int(rng.integers(0, len(x) - length + 1))
        return x[start : start + length]
    if kind == "sound" or kind == "sex":
        return x
    before = int(rng.integers(0, length - len(x) + 1))
    return np.pad(x, (before, length - len(x) - before))


def _speed(x: np.ndarray, factor: float) -> np.ndarray:
    """Faster and higher, or slower and lower."""
    return soxr.resample(x, RATE * factor, RATE)


def _band(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As over a telephone or from an 8-kHz recording."""
    low, high = (rng.uniform(80, 300), rng.uniform(3000, 3900)) if rng.random() < 0.7 else (50, rng.uniform(4000, 7000))
    return scipy.signal.sosfilt(scipy.signal.butter(4, [low, high], "bandpass", fs=RATE, output="sos"), x)


def _room(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    seconds = rng.uniform(0.05, 0.35)
    n = int(seconds * RATE)
    tail = rng.standard_normal(n) * np.exp(-6.9 * np.arange(n) / n) * rng.uniform(0.05, 0.3)
    tail[0] = 1.0
    return scipy.signal.fftconvolve(x, tail)[: len(x)]


def _noisy(x: np.ndarray, rng: np.random.Generator, noises: Sequence[np.ndarray], snr: float) -> np.ndarray:
    if noises and rng.random() < 0.5:
        source = noises[int(rng.integers(len(noises)))]
        start = int(rng.integers(0, max(1, len(source) - len(x))))
        noise = np.resize(source[start:], len(x))
    else:
        spectrum = np.fft.rfft(rng.standard_normal(len(x)))
        colour = rng.uniform(0, 1)  # from white to pink
        spectrum /= np.maximum(1, np.arange(len(spectrum))) ** (colour / 2)
        noise = np.fft.irfft(spectrum, len(x))
    loud = np.sqrt(np.mean(x**2)) + 1e-6
    return x + noise * loud / (np.sqrt(np.mean(noise**2)) + 1e-9) * 10 ** (-snr / 20)
