"""Are the yardsticks true? Manipulations whose factor and size are known, and what each yardstick says of them.

Each manipulation moves one factor by construction, at three strengths, of sentences by synthesis: other words, another pitch
setting of the voice, a gain, an added noise, a tempo that is uneven or slower, another voice. A yardstick must follow its own
factor (the stronger, the larger, in every sentence) and stay within the margin where another factor moves at the middle
strength.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from otoscope.audio.clip import Clip
from otoscope.audio.corruptions import apply
from otoscope.audio.stretch import stretched
from otoscope.audio.synth import say
from otoscope.tasks.short_sentences import SENTENCES

#: Sentences that are manipulated, each by the same voice.
N_SENTENCES = 6
_VOICE = "en-us"
_OTHER_VOICES = ("en-us+f4", "en-us+m3", "en-us+m7")


class Check(NamedTuple):
    """A manipulation of one factor.

    Attributes:
        factor: that moves.
        moves: factors that must move along, so nothing is asked of their yardsticks.
        strengths: in words, weakest first.
        make: (sentence, strength) -> the manipulated clip.
        graded: whether the strengths are an order; other voices are not.
    """

    factor: str
    moves: tuple[str, ...]
    strengths: tuple[str, str, str]
    make: Callable[[int, int], Clip]
    graded: bool = True


@cache
def sentence(index: int) -> Clip:
    """A sentence by the voice of the checks."""
    frame = list(SENTENCES)[index]
    return say(frame.format(SENTENCES[frame][0]), _VOICE, "espeak")


def checks() -> tuple[Check, ...]:
    """One manipulation per factor; that of words is that of phones as well."""
    time = ("rhythm", "duration")
    # a voice's fundamental is its own, and so is the tempo at which it speaks a text
    return (
        Check(
            "words",
            ("phones", "pitch", "rhythm", "duration"),
            ("one word", "half of the words", "all words"),
            _other_words,
        ),
        Check(
            "phones",
            ("words", "pitch", "rhythm", "duration"),
            ("one word", "half of the words", "all words"),
            _other_words,
        ),
        Check("speaker", ("pitch", *time), _OTHER_VOICES, _other_voice, graded=False),
        Check("pitch", (), ("setting 65", "setting 80", "setting 99"), _other_pitch),
        Check("loudness", (), ("-3 dB", "-6 dB", "-12 dB"), _quieter),
        Check("background", (), ("40 dB", "30 dB", "10 dB"), _noisier),
        Check("rhythm", (), ("1.1 : 0.9", "1.25 : 0.75", "1.4 : 0.6"), _uneven),
        Check("duration", ("rhythm",), ("x 1.15", "x 1.3", "x 1.6"), _slower),
    )


def harmless(clip: Clip) -> Clip:
    """A change that nobody hears: white noise 60 dB under the speech."""
    return apply("white_noise", clip, None, 1, snr_db=60.0).clip


@cache
def _other_words(index: int, strength: int) -> Clip:
    frames = list(SENTENCES)
    own = frames[index].format(SENTENCES[frames[index]][0]).split()
    other = frames[index + N_SENTENCES].format(SENTENCES[frames[index + N_SENTENCES]][0]).split()
    text = (
        frames[index].format(SENTENCES[frames[index]][1]).split(),
        [*own[: (len(own) + 1) // 2], *other[len(other) // 2 :]],
        other,
    )[strength]
    return say(" ".join(text), _VOICE, "espeak")


def _other_voice(index: int, strength: int) -> Clip:
    frame = list(SENTENCES)[index]
    return say(frame.format(SENTENCES[frame][0]), _OTHER_VOICES[strength], "espeak")


def _other_pitch(index: int, strength: int) -> Clip:
    frame = list(SENTENCES)[index]
    return say(frame.format(SENTENCES[frame][0]), _VOICE, "espeak", pitch=(65.0, 80.0, 99.0)[strength])


def _quieter(index: int, strength: int) -> Clip:
    clip = sentence(index)
    gain = 10 ** (-(3.0, 6.0, 12.0)[strength] / 20)
    return clip.replace(samples=clip.samples * np.float32(gain))


def _noisier(index: int, strength: int) -> Clip:
    return apply("pink_noise", sentence(index), None, index, snr_db=(40.0, 30.0, 10.0)[strength]).clip


def _uneven(index: int, strength: int) -> Clip:
    """The first half slower and the second faster, at the same total."""
    clip = sentence(index)
    middle, more = len(clip) // 2, (0.1, 0.25, 0.4)[strength]
    halves = (
        stretched(part.astype(np.float64), length, clip.rate)
        for part, length in (
            (clip.samples[:middle], round(middle * (1 + more))),
            (clip.samples[middle:], len(clip) - round(middle * (1 + more))),
        )
    )
    return clip.replace(samples=np.concatenate(list(halves)).astype(np.float32), words=(), phones=())


def _slower(index: int, strength: int) -> Clip:
    clip = sentence(index)
    length = round(len(clip) * (1.15, 1.3, 1.6)[strength])
    return clip.replace(
        samples=stretched(clip.samples.astype(np.float64), length, clip.rate).astype(np.float32), words=(), phones=()
    )
