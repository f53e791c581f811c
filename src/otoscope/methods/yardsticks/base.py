"""What every yardstick is: a ruler for one factor of speech, independent of the model under study.

To add one: a subclass of ``Yardstick`` in a file of its own, and a line in ``registry.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from otoscope.audio.clip import Clip

#: Rate that all yardsticks work at, Hz.
RATE = 16000

Seconds = tuple[float, float]


class Yardstick(ABC):
    """How far one factor moved between two clips.

    Rules that the tests hold every yardstick to: 0 for identical clips; larger for a stronger manipulation of its own
    factor; within the margin of ``methods.isolation`` for a manipulation of a factor that is not its own.
    """

    #: one of ``audio.corruptions.FACTORS``
    factor: ClassVar[str]
    #: unit of what ``moved`` returns
    unit: ClassVar[str]
    #: one sentence: what is compared
    summary: ClassVar[str]

    def prepare(self, clips: Sequence[Clip]) -> None:  # noqa: B027  (most yardsticks have nothing to prepare)
        """Do the expensive part of measuring for many clips at once; ``moved`` does what is missing by itself."""

    @abstractmethod
    def moved(
        self, clean: Clip, corrupt: Clip, span: Seconds | None = None, corrupt_span: Seconds | None = None
    ) -> float:
        """How far the factor moved from ``clean`` to ``corrupt``, in ``unit``; signed only where a direction exists.

        Args:
            clean: the sound before.
            corrupt: the sound after; as long as ``clean`` where a span is given.
            span: seconds within which the factor is measured; None is the whole of both clips.
            corrupt_span: where that is in ``corrupt``, if elsewhere: two words of two sentences.

        Returns:
            0 where nothing moved; NaN where the clean sound does not have the factor (no voiced frame, no word).
        """
