"""Log-mel spectrogram of a sound, for looking at; models make their own features."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_MOST_COLUMNS = 900  # more than a page is wide in pixels helps nobody and makes the file large


class Spectrogram(NamedTuple):
    """Level of each mel band over time."""

    level: NDArray[Any]
    """``[bands, frames]``, dB below the loudest cell (<= 0)."""
    times: NDArray[Any]
    """``[frames]``, seconds, centre of each frame."""
    hertz: NDArray[Any]
    """``[bands]``, centre of each band."""


def mel(hertz: Any) -> Any:
    """O'Shaughnessy's mel scale (1987), as in HTK: 2595 log10(1 + f / 700)."""
    return 2595.0 * np.log10(1.0 + np.asarray(hertz, float) / 700.0)


def log_mel(samples: NDArray[Any], rate: int, n_mels: int = 80, floor_db: float = -70.0) -> Spectrogram:
    """25 ms Hann windows every 10 ms (more apart for long sounds), triangular mel bands up to half the rate.

    samples: ``[n]``. A silent sound is at the floor everywhere.
    """
    samples = np.asarray(samples, float)
    length = max(16, round(0.025 * rate))
    hop = max(1, round(0.01 * rate), int(np.ceil(len(samples) / _MOST_COLUMNS)))
    size = 1 << int(np.ceil(np.log2(max(length, 2 * n_mels))))
    if len(samples) < length:
        samples = np.pad(samples, (0, length - len(samples)))
    frames = 1 + (len(samples) - 1) // hop
    padded = np.pad(samples, (length // 2, length))  # frame i is centred on sample i * hop
    windows = np.lib.stride_tricks.sliding_window_view(padded, length)[::hop][:frames]
    power = np.abs(np.fft.rfft(windows * np.hanning(length + 1)[:-1], size)).T ** 2
    hertz = np.fft.rfftfreq(size, 1 / rate)
    edges = 700.0 * (10 ** (np.linspace(0, mel(rate / 2), n_mels + 2) / 2595.0) - 1)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bins = hertz[None, :]
    bank = np.maximum(0.0, np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)))
    for band in np.flatnonzero(bank.sum(1) == 0):  # a band narrower than a bin takes the nearest one
        bank[band, np.abs(hertz - edges[band + 1]).argmin()] = 1.0
    bands = (bank / bank.sum(1, keepdims=True)) @ power
    top = bands.max()
    level = (
        np.full(bands.shape, floor_db) if top <= 0 else 10 * np.log10(np.maximum(bands / top, 10 ** (floor_db / 10)))
    )
    return Spectrogram(level, np.arange(frames) * hop / rate, edges[1:-1])
