"""One yardstick per factor."""

from __future__ import annotations

from otoscope.audio.corruptions import FACTORS
from otoscope.engine.model import Model
from otoscope.methods.yardsticks.background import Background
from otoscope.methods.yardsticks.base import Yardstick
from otoscope.methods.yardsticks.duration import Duration
from otoscope.methods.yardsticks.loudness import Loudness
from otoscope.methods.yardsticks.phones import Phones
from otoscope.methods.yardsticks.pitch import Pitch
from otoscope.methods.yardsticks.rhythm import Rhythm
from otoscope.methods.yardsticks.speaker import Speaker, SpeakerSpace
from otoscope.methods.yardsticks.words import Words


def yardsticks(space: SpeakerSpace, recogniser: str | Model = "whisper-base") -> dict[str, Yardstick]:
    """Factor -> its yardstick, in the order of ``FACTORS``.

    Args:
        space: a trained space of speakers.
        recogniser: the Whisper that ``words`` asks.
    """
    made: tuple[Yardstick, ...] = (
        Words(recogniser), Phones(), Speaker(space), Pitch(), Loudness(), Background(), Rhythm(), Duration(),
    )  # fmt: skip
    by_factor = {yardstick.factor: yardstick for yardstick in made}
    return {factor: by_factor[factor] for factor in FACTORS}
