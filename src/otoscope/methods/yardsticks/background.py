"""Background: the signal-to-noise ratio, estimated blindly from how far each band's level swings.

Speech comes and goes in every band within a second; a background stays. In each of eight bands the quiet level (10%
quantile over frames) stands for the background and the loud level (95%) for the speech; the mean of their differences over
the bands that hold sound is the estimate in dB. After NIST's "stnr" and the minimum statistics of Martin (2001), which
read the same two levels. A gain changes neither, and a filter shifts both alike.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from otoscope.audio.clip import Clip
from otoscope.methods.yardsticks.base import Seconds, Yardstick
from otoscope.methods.yardsticks.frames import FLOOR, bands, inside

QUIET, LOUD = 0.10, 0.95
#: A background so far below the speech of its band is not heard; digital silence has no level of its own.
INAUDIBLE = 50.0
#: Loud frames below this are no sound, dB of full scale.
EMPTY = -85.0
_FAR = 50.0
_N_GROUPS = 8


class Background(Yardstick):
    """Change of the estimated signal-to-noise ratio."""

    factor = "background"
    unit = "dB"
    summary = "signal-to-noise ratio estimated from the quiet and loud levels of eight bands, corrupt minus clean"

    def moved(
        self, clean: Clip, corrupt: Clip, span: Seconds | None = None, corrupt_span: Seconds | None = None
    ) -> float:
        """Ratio of the corrupt span minus that of the clean one, dB, mean of the bands that hold sound in both; negative where
        noise came in. Where nothing is left, the whole ratio is lost."""
        before, after = levels(clean, span), levels(corrupt, corrupt_span or span)
        shared = _sounding(before) & _sounding(after)
        if not _sounding(before).any():
            return float("nan")
        if not shared.any():
            return -float(np.mean(_swing(before)[_sounding(before)]))
        return float(np.mean((_swing(after) - _swing(before))[shared]))


def signal_to_noise(clip: Clip, span: Seconds | None = None) -> float:
    """Estimated ratio in dB, from 0 (a steady sound) to ``INAUDIBLE``; NaN where there is no sound."""
    found = levels(clip, span)
    return float(np.mean(_swing(found)[_sounding(found)])) if _sounding(found).any() else float("nan")


def levels(clip: Clip, span: Seconds | None = None) -> Float[np.ndarray, "2 band"]:
    """Quiet and loud level of each of eight bands over the frames of a span, dB."""
    power = bands(clip)
    power = power[inside(len(power), span)]
    grouped = np.stack([part.sum(axis=1) for part in np.array_split(power, _N_GROUPS, axis=1)], axis=1)
    smooth = ndimage.uniform_filter1d(grouped, 3, axis=0, mode="nearest")
    return np.quantile(10 * np.log10(np.maximum(smooth, FLOOR)), [QUIET, LOUD], axis=0)


def _swing(found: Float[np.ndarray, "2 band"]) -> Float[np.ndarray, " band"]:
    return np.clip(found[1] - found[0], 0.0, INAUDIBLE)


def _sounding(found: Float[np.ndarray, "2 band"]) -> Bool[np.ndarray, " band"]:
    """Bands whose loud frames are neither empty nor far below those of the loudest band: what a filter left of a band is
    the filter's own tail, not a background."""
    loud = found[1]
    return (loud > EMPTY) & (loud > loud.max() - _FAR)
