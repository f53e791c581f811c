"""Quantisation: mu-law, fewer bits, and the kind of loss that a transform codec makes."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from otoscope.audio.corruptions.base import Corruption, Target, in_range

_KEEPS = ("words", "phones", "speaker", "pitch", "loudness", "rhythm", "duration")
_FADE_MS = 5.0


@dataclass(frozen=True)
class MuLaw(Corruption):
    """Companded quantisation (ITU-T G.711 curve, mu = ``2^bits - 1``), on the scale of the span's own peak."""

    name = "mu_law"
    keeps = _KEEPS
    breaks = ("background",)
    bits: int = 8

    def __post_init__(self) -> None:
        in_range("bits", self.bits, 2, 16, whole=True)

    def alter(self, target: Target) -> Float[np.ndarray, " span"]:
        """The span after companding, rounding to ``2^bits`` levels, and expanding."""
        peak = float(np.abs(target.samples).max()) or 1.0
        mu = 2.0**self.bits - 1
        compressed = np.sign(target.samples) * np.log1p(mu * np.abs(target.samples) / peak) / np.log1p(mu)
        coded = np.round((compressed + 1) / 2 * mu) / mu * 2 - 1
        return np.sign(coded) * np.expm1(np.abs(coded) * np.log1p(mu)) / mu * peak


@dataclass(frozen=True)
class BitDepth(Corruption):
    """Uniform quantisation to ``bits`` bits, on the scale of the span's own peak, without dither."""

    name = "bit_depth"
    keeps = _KEEPS
    breaks = ("background",)
    bits: int = 6

    def __post_init__(self) -> None:
        in_range("bits", self.bits, 2, 24, whole=True)

    def alter(self, target: Target) -> Float[np.ndarray, " span"]:
        """The span rounded to steps of ``peak / 2^(bits - 1)``."""
        peak = float(np.abs(target.samples).max()) or 1.0
        step = peak / 2 ** (self.bits - 1)
        return np.round(target.samples / step) * step


@dataclass(frozen=True)
class Codec(Corruption):
    """Loss like that of a transform codec (MP3, AAC, Opus at a low rate).

    Nothing is left above ``bandwidth_hz``; below it noise follows the spectrum, ``band_snr_db`` under each band, frame
    by frame, weak partials vanish and "birdies" appear.
    MDCT with a sine window and 20 ms hops (Princen, Johnson and Bradley 1987), about 20 bands of equal width in Bark,
    uniform quantisation with one step per band and frame.
    """

    name = "codec"
    keeps = _KEEPS
    breaks = ("background",)
    band_snr_db: float = 6.0
    bandwidth_hz: float = 5500.0

    def __post_init__(self) -> None:
        in_range("band_snr_db", self.band_snr_db, 0, 60, "dB")
        in_range("bandwidth_hz", self.bandwidth_hz, 100, 1e6, "Hz")

    def alter(self, target: Target) -> Float[np.ndarray, " span"]:
        """The span after coding and decoding; the whole clip is coded, so the span's edges have their context."""
        hop = max(8, round(0.02 * target.rate))
        spectrum = mdct(target.whole, hop)
        hz = (np.arange(hop) + 0.5) * target.rate / 2 / hop
        bark = np.floor(26.81 * hz / (1960 + hz) - 0.53).astype(int)  # Traunmueller 1990
        # at +0 dB a uniform quantiser of step sqrt(12) * rms zeroes most lines: that is what a starved codec does
        step_per_rms = np.sqrt(12) * 10 ** (-self.band_snr_db / 20)
        for band in np.unique(bark):
            lines = spectrum[:, bark == band]
            step = step_per_rms * np.sqrt(np.mean(np.square(lines), axis=1, keepdims=True))
            step[step == 0] = 1
            spectrum[:, bark == band] = np.round(lines / step) * step
        spectrum[:, hz > self.bandwidth_hz] = 0
        return target.faded(inverse_mdct(spectrum, hop, len(target.whole))[target.where], _FADE_MS)


def mdct(samples: Float[np.ndarray, " n"], hop: int) -> Float[np.ndarray, "frames hop"]:
    """Modified discrete cosine transform with a sine window: ``hop`` lines per frame, frames overlap by half."""
    frames = -(-len(samples) // hop) + 1
    padded = np.pad(samples, (hop, frames * hop - len(samples)))
    blocks = np.lib.stride_tricks.sliding_window_view(padded, 2 * hop)[::hop][:frames]
    return (blocks * _window(hop)) @ _basis(hop)


def inverse_mdct(spectrum: Float[np.ndarray, "frames hop"], hop: int, length: int) -> Float[np.ndarray, " length"]:
    """The samples of ``mdct``, exactly (to rounding) when no line was changed."""
    blocks = (spectrum @ _basis(hop).T) * _window(hop)
    out = np.zeros((len(spectrum) + 1) * hop)
    for index, block in enumerate(blocks):
        out[index * hop : (index + 2) * hop] += block
    return out[hop : hop + length]


def _window(hop: int) -> Float[np.ndarray, " twice"]:
    return np.sin(np.pi / (2 * hop) * (np.arange(2 * hop) + 0.5))


def _basis(hop: int) -> Float[np.ndarray, "twice hop"]:
    time = np.arange(2 * hop)[:, None] + 0.5 + hop / 2
    return np.sqrt(2 / hop) * np.cos(np.pi / hop * time * (np.arange(hop)[None, :] + 0.5))
