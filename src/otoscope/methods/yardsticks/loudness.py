"""Loudness: integrated loudness after ITU-R BS.1770-4 (K weighting, 400 ms blocks, two gates), difference in LU.

``L = -0.691 + 10 log10(mean square of the K-weighted signal)`` over the blocks that pass the gates: absolute at -70 LUFS,
then relative at 10 LU below the loudness of what passed. The two filters are given by the standard for 48 kHz; their
analogue parameters, and so the filters for any rate, are those of De Man, "Evaluation of implementations of the EBU R128
loudness measurement" (2018). A stretch shorter than a block is one block without gates.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from jaxtyping import Float
from scipy import signal

from otoscope.audio.clip import Clip
from otoscope.methods.yardsticks.base import RATE, Seconds, Yardstick
from otoscope.methods.yardsticks.frames import once_per_clip, samples_of

#: Loudness of silence: the absolute gate.
SILENT = -70.0
_BLOCK, _STEP = 0.4, 0.1


class Loudness(Yardstick):
    """Difference of integrated loudness."""

    factor = "loudness"
    unit = "LU"
    summary = "integrated loudness (ITU-R BS.1770-4), corrupt minus clean"

    def moved(
        self, clean: Clip, corrupt: Clip, span: Seconds | None = None, corrupt_span: Seconds | None = None
    ) -> float:
        """Loudness of the corrupt span minus that of the clean one, in LU (1 LU = 1 dB)."""
        before, after = integrated_loudness(clean, span), integrated_loudness(corrupt, corrupt_span or span)
        return after - before


def integrated_loudness(clip: Clip, span: Seconds | None = None) -> float:
    """Loudness of a clip or of a span of it, LUFS; not below -70."""
    weighted = _weighted(clip)
    if span is not None:
        weighted = weighted[round(span[0] * RATE) : max(round(span[1] * RATE), round(span[0] * RATE) + 1)]
    block, step = round(_BLOCK * RATE), round(_STEP * RATE)
    if len(weighted) < block:
        return max(SILENT, _loudness(float(np.mean(weighted**2))))
    squares = np.concatenate(([0.0], np.cumsum(weighted**2)))
    starts = np.arange(0, len(weighted) - block + 1, step)
    means = (squares[starts + block] - squares[starts]) / block
    heard = means[_loudness_of(means) > SILENT]
    if not len(heard):
        return SILENT
    heard = heard[_loudness_of(heard) > _loudness(float(heard.mean())) - 10]
    return max(SILENT, _loudness(float(heard.mean())))


@cache
def k_weighting(rate: int) -> Float[np.ndarray, "2 6"]:
    """The two filters of the standard at a rate, as second-order sections ``b0 b1 b2 a0 a1 a2``."""
    k = math.tan(math.pi * 1681.974450955533 / rate)
    q, high = 0.7071752369554196, 10 ** (3.999843853973347 / 20)
    band = high**0.4996667741545416
    a0 = 1 + k / q + k * k
    shelf = [(high + band * k / q + k * k) / a0, 2 * (k * k - high) / a0, (high - band * k / q + k * k) / a0,
             1.0, 2 * (k * k - 1) / a0, (1 - k / q + k * k) / a0]  # fmt: skip
    k = math.tan(math.pi * 38.13547087602444 / rate)
    q = 0.5003270373238773
    a0 = 1 + k / q + k * k
    high_pass = [1.0, -2.0, 1.0, 1.0, 2 * (k * k - 1) / a0, (1 - k / q + k * k) / a0]
    return np.array([shelf, high_pass])


@once_per_clip
def _weighted(clip: Clip) -> Float[np.ndarray, " n"]:
    return np.asarray(signal.sosfilt(k_weighting(RATE), samples_of(clip)))


def _loudness(mean_square: float) -> float:
    return -0.691 + 10 * math.log10(max(mean_square, 1e-12))


def _loudness_of(mean_squares: Float[np.ndarray, " block"]) -> Float[np.ndarray, " block"]:
    return -0.691 + 10 * np.log10(np.maximum(mean_squares, 1e-12))
