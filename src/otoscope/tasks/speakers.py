"""Synthetic speakers: the voices that tasks without data are spoken by, those of flite where it is installed, else espeak's.

A voice is a speaker: intervals resample voices. All of them say the same samples at every call.
"""

from __future__ import annotations

from typing import NamedTuple

from otoscope.audio.synth import flite
from otoscope.errors import TaskError
from otoscope.tasks.source import near


class Voice(NamedTuple):
    """A voice of an engine."""

    engine: str
    name: str
    sex: str

    @property
    def unit(self) -> str:
        """``engine:name``."""
        return f"{self.engine}:{self.name}"


#: engine -> its voices, the clearest first; breathy variants of espeak (+f2, +f3, +f5) are left out, as the engine warns
VOICES = {
    "flite": (
        Voice("flite", "rms", "male"), Voice("flite", "slt", "female"),
        Voice("flite", "kal16", "male"), Voice("flite", "awb", "male"),
    ),
    "espeak": (
        Voice("espeak", "en-us", "male"), Voice("espeak", "en-us+f4", "female"),
        Voice("espeak", "en-us+m3", "male"), Voice("espeak", "en-gb-x-rp+f1", "female"),
        Voice("espeak", "en-us+m7", "male"), Voice("espeak", "en-029+f4", "female"),
    ),
}  # fmt: skip


def voices(engine: str = "auto") -> tuple[Voice, ...]:
    """The voices of an engine; ``auto`` is flite where it is installed, else espeak.

    Raises:
        TaskError: unknown engine.
        AudioError: it is not installed.
    """
    if engine not in ("auto", *VOICES):
        raise TaskError(
            f"there is no speech engine '{engine}'{near(engine, tuple(VOICES))}: choose auto, {', '.join(VOICES)}."
        )
    if engine == "auto":
        engine = "flite" if flite.available() else "espeak"
    if engine == "flite":
        installed = flite.voices()
        return tuple(voice for voice in VOICES["flite"] if voice.name in installed)
    return VOICES["espeak"]
