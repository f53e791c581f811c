"""A ``Recording``: what is known of one file of a corpus before it is decoded, so that only the drawn ones are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from otoscope.audio.clip import Clip
from otoscope.audio.files import read
from otoscope.errors import TaskError
from otoscope.tasks.pair import pad_to_equal
from otoscope.tasks.source import RATE


@dataclass(frozen=True)
class Recording:
    """One recording of a corpus.

    Attributes:
        name: unique in its corpus; the order of names is the order before any draw.
        label: what it says or holds; empty for plain sentences.
        unit: the speaker, or the original recording of a sound.
        load: decodes it.
        text: its transcript, where known.
        labels: what else is known (``sex``, ``split``, ...).
    """

    name: str
    label: str
    unit: str
    load: Callable[[], Clip] = field(compare=False, repr=False)
    text: str = ""
    labels: dict[str, str] = field(default_factory=dict, compare=False)

    def clip(self) -> Clip:
        """The sound at the tasks' rate, with what is known of it."""
        clip = self.load()
        if not np.any(clip.samples):
            raise TaskError(f"the recording '{self.name}' is silent: take it out of the corpus.")
        return clip.resample(RATE).replace(
            name=self.name, speaker=self.unit or None, text=self.text or None, labels=dict(self.labels)
        )


def from_file(path: Path, name: str, label: str, unit: str, text: str = "", **labels: str) -> Recording:
    """The recording of a file."""
    return Recording(name, label, unit, lambda: read(path), text, {k: v for k, v in labels.items() if v})


def fitted(clip: Clip, seconds: float, lead: float = 0.0) -> Clip:
    """The clip with exactly that length: its loudest stretch where it is longer, silence around it where it is shorter.

    Args:
        clip: a sound.
        seconds: the length.
        lead: at most so much of the missing silence is put before the sound, seconds.
    """
    length = round(seconds * clip.rate)
    if len(clip) > length:
        start = loudest(clip, seconds)
        return clip.replace(samples=clip.samples[start : start + length], words=(), phones=())
    before = min(round(lead * clip.rate), length - len(clip))
    if before:
        shift = before / clip.rate
        clip = clip.replace(
            samples=np.pad(clip.samples, (before, 0)),
            words=tuple(word.shifted(shift) for word in clip.words),
            phones=tuple(phone.shifted(shift) for phone in clip.phones),
        )
    return pad_to_equal(clip, Clip(np.zeros(length, np.float32), clip.rate))[0]


def loudest(clip: Clip, seconds: float) -> int:
    """First sample of the loudest stretch of a clip that is longer than that."""
    n = round(seconds * clip.rate)
    energy = np.concatenate(([0.0], np.cumsum(np.square(clip.samples, dtype=np.float64))))
    return int((energy[n:] - energy[:-n]).argmax())
