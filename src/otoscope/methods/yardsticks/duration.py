"""Duration: for how long there is speech, from its first to its last active frame.

Activity is energy between 100 and 4000 Hz above the middle of the clip's quiet and loud levels (``frames.active``). It is the
duration of what is *said*: every corruption keeps the number of samples, but silence leaves nothing that lasts. A run of active
frames that is no longer than the smear of a click is none: the fade of a silence, or what its neighbours spill over the edge.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from otoscope.audio.clip import Clip
from otoscope.methods.yardsticks.base import RATE, Seconds, Yardstick
from otoscope.methods.yardsticks.frames import HOP, active

#: Longest run of frames that a single click makes active: a window of 25 ms, smoothed over 5 frames.
SMEAR = 7


class Duration(Yardstick):
    """Relative change of the time from first to last speech."""

    factor = "duration"
    unit = "share of the clean duration"
    summary = "time from the first to the last frame with speech, relative change"

    def moved(
        self, clean: Clip, corrupt: Clip, span: Seconds | None = None, corrupt_span: Seconds | None = None
    ) -> float:
        """``(corrupt - clean) / clean``: -1 where no speech is left; NaN where the clean span holds none."""
        before, after = speech_seconds(clean, span), speech_seconds(corrupt, corrupt_span or span)
        return (after - before) / before if before else float("nan")


def speech_seconds(clip: Clip, span: Seconds | None = None) -> float:
    """Seconds from the first to the end of the last active frame of a span, clicks left out; 0 without any."""
    found = np.flatnonzero(_lasting(active(clip, span)))
    return float(found[-1] - found[0] + 1) * HOP / RATE if len(found) else 0.0


def _lasting(frames: Bool[np.ndarray, " frame"]) -> Bool[np.ndarray, " frame"]:
    """The runs that are longer than ``SMEAR``."""
    return ndimage.binary_opening(frames, np.ones(SMEAR + 1, bool))
