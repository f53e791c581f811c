"""``say``: a text spoken by one of the engines, as a Clip with word and phone times."""

import math
from collections.abc import Callable

from otoscope.audio.clip import Clip, Span
from otoscope.audio.synth import espeak, flite
from otoscope.audio.synth.engine import Speech
from otoscope.errors import AudioError

#: engine -> (its function, its default voice)
ENGINES: dict[str, tuple[Callable[[str, str, float, float], Speech], str]] = {
    "espeak": (espeak.speak, "en-us"),
    "flite": (flite.speak, "kal16"),
}


def say(
    text: str,
    voice: str | None = None,
    engine: str = "espeak",
    rate: int = 16000,
    speed: float = 1.0,
    pitch: float = 50.0,
) -> Clip:
    """A text as speech: a Clip at ``rate`` Hz with ``text``, ``words`` and ``phones``.

    Phones are IPA from espeak and ARPAbet from flite.

    ``voice``: None is en-us for espeak and kal16 for flite. ``speed`` is relative to the voice's own (0.25 to 4),
    ``pitch`` goes from 0 to 99 with 50 the voice's own. The same arguments give the same samples.

    Raises ``AudioError`` for an unknown engine or voice, a text without words, and a missing package or program, with
    the command that installs it.
    """
    speech, voice = speak(text, voice, engine, speed, pitch)
    clip = Clip(
        speech.samples,
        speech.rate,
        text=text,
        words=_within(speech.words, speech),
        phones=_within(speech.phones, speech),
        speaker=f"{engine}:{voice}",
        labels={"engine": engine, "voice": voice},
        name=text,
    )
    return clip.resample(rate).replace(notices=())


def speak(text: str, voice: str | None, engine: str, speed: float, pitch: float) -> tuple[Speech, str]:
    """What the engine returns, at its own rate, and the voice used; arguments and errors as for ``say``."""
    if engine not in ENGINES:
        raise AudioError(f"There is no speech engine {engine!r}; choose one of {', '.join(ENGINES)}.")
    if not isinstance(text, str) or not any(letter.isalnum() for letter in text):
        raise AudioError(f"There is nothing to say in {text!r}; give words.")
    for name, value, low, high in (("speed", speed, 0.25, 4), ("pitch", pitch, 0, 99)):
        if not math.isfinite(value) or not low <= value <= high:
            raise AudioError(f"The parameter {name} is {value!r}; give a number from {low:g} to {high:g}.")
    function, default = ENGINES[engine]
    voice = voice or default
    return function(" ".join(text.split()), voice, speed, pitch), voice


def _within(spans: tuple[Span, ...], speech: Speech) -> tuple[Span, ...]:
    end = len(speech.samples) / speech.rate
    return tuple(Span(span.start, min(span.end, end), span.text) for span in spans if span.start < end)
