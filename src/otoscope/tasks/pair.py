"""A ``Pair``: a clean and a corrupt sound of equal length that differ in one named thing, in one span of time."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from otoscope.audio.clip import Clip
from otoscope.errors import AudioError, TaskError


@dataclass(frozen=True, eq=False)
class Pair:
    """Two clips that a patching experiment compares sample by sample.

    ``clean`` and ``corrupt`` have the same rate and the same number of samples; ``span`` is where they differ
    (start and end, seconds); ``change`` names what differs ("white noise at 0 dB", "bad -> pad"); ``clean_text`` and
    ``corrupt_text`` are what each says, where known; ``seed`` is the one the corruption was drawn with.

    Raises ``TaskError`` when the rates or lengths differ or the span is empty or not inside the clips.
    """

    clean: Clip
    corrupt: Clip
    span: tuple[float, float]
    change: str
    clean_text: str | None = None
    corrupt_text: str | None = None
    name: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        who = f"pair {self.name!r}" if self.name else "the pair"
        clean, corrupt = self.clean, self.corrupt
        if clean.rate != corrupt.rate:
            raise TaskError(
                f"In {who} the clean clip has {clean.rate} Hz and the corrupt one {corrupt.rate} Hz; "
                "resample one of them with clip.resample(rate)."
            )
        if len(clean) != len(corrupt):
            raise TaskError(
                f"In {who} the clean clip has {len(clean)} samples ({clean.duration:.3f} s) and the corrupt one "
                f"{len(corrupt)} ({corrupt.duration:.3f} s); make them equally long with "
                "otoscope.tasks.pair.pad_to_equal, or cut the longer one."
            )
        try:
            start, end = (float(time) for time in self.span)
            clean.span_samples(start, end)
        except (AudioError, TypeError, ValueError) as error:
            raise TaskError(f"The span of {who} cannot be used: {error}") from error
        object.__setattr__(self, "span", (start, end))

    @property
    def rate(self) -> int:
        """Samples per second of both clips."""
        return self.clean.rate

    @property
    def duration(self) -> float:
        """Length of both clips, seconds."""
        return self.clean.duration

    def swap(self) -> "Pair":
        """The pair with its roles exchanged: the corrupt clip becomes the clean one."""
        return self.replace(
            clean=self.corrupt, corrupt=self.clean, clean_text=self.corrupt_text, corrupt_text=self.clean_text
        )

    def replace(self, **fields: Any) -> "Pair":
        """A copy with some fields changed, checked again."""
        return replace(self, **fields)

    def difference(self) -> tuple[float, float] | None:
        """Where the samples really differ: start of the first and end of the last differing sample (seconds).

        None when the two clips are equal. A pair whose difference leaves its ``span`` is not controlled outside it.
        """
        where = np.flatnonzero(self.clean.samples != self.corrupt.samples)
        return (int(where[0]) / self.rate, (int(where[-1]) + 1) / self.rate) if len(where) else None


def pad_to_equal(first: Clip, second: Clip) -> tuple[Clip, Clip]:
    """Both clips with the length of the longer one: digital silence is added at the end of the shorter, with a notice.

    Nothing is stretched or moved, so times stay valid. Raises ``TaskError`` when the rates differ.
    """
    if first.rate != second.rate:
        raise TaskError(
            f"The first clip has {first.rate} Hz and the second {second.rate} Hz; "
            "resample one of them with clip.resample(rate) before padding."
        )
    length = max(len(first), len(second))
    return _padded(first, length), _padded(second, length)


def _padded(clip: Clip, length: int) -> Clip:
    missing = length - len(clip)
    if not missing:
        return clip
    notice = f"padded with {missing / clip.rate:.3f} s of silence at the end"
    return clip.replace(samples=np.pad(clip.samples, (0, missing)), notices=(*clip.notices, notice))
