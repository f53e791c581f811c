"""Frame time: which moment of the recording each position of a stack stands for, and which positions are padding."""

from __future__ import annotations

import math
from dataclasses import dataclass

from otoscope.errors import SiteError


@dataclass(frozen=True)
class FrameClock:
    """Frame <-> seconds for one stack and one recording.

    Attributes:
        rate: frames per second.
        first: time of the centre of frame 0, in seconds.
        n_frames: frames that the model computes, padding included.
        n_valid: frames whose centre lies inside the recording; the rest are padding.
    """

    rate: float
    first: float
    n_frames: int
    n_valid: int

    def time(self, frame: float) -> float:
        """Centre of ``frame`` in seconds."""
        return self.first + frame / self.rate

    def edges(self, frame: int) -> tuple[float, float]:
        """Start and end of ``frame`` in seconds: half a period on either side of its centre."""
        centre, half = self.time(frame), 0.5 / self.rate
        return max(0.0, centre - half), centre + half

    def frames(self, start: float, end: float) -> range:
        """Frames whose centre lies in [start, end) seconds; the nearest frame where none does.

        Raises:
            SiteError: the window is empty, reversed or outside the frames of this stack.
        """
        if not (math.isfinite(start) and math.isfinite(end)) or end <= start:
            raise SiteError(f"the time window {start:g}-{end:g} s is empty: its end must come after its start.")
        last = self.time(self.n_frames - 1)
        if start > last + 0.5 / self.rate or end < 0:
            raise SiteError(f"the time window {start:g}-{end:g} s lies outside the stack, which covers 0-{last:.2f} s.")
        low = max(0, math.ceil((start - self.first) * self.rate - 1e-6))
        high = min(self.n_frames, math.ceil((end - self.first) * self.rate - 1e-6))
        if high <= low:
            low = min(self.n_frames - 1, max(0, round(((start + end) / 2 - self.first) * self.rate)))
            high = low + 1
        return range(low, high)

    def windows(self, width: float, *, padding: bool = False) -> list[range]:
        """Consecutive windows of ``width`` seconds that tile the valid frames (all frames with ``padding=True``)."""
        step = max(1, round(width * self.rate))
        stop = self.n_frames if padding else self.n_valid
        return [range(a, min(a + step, stop)) for a in range(0, stop, step)]
