"""Items of single words, for every task whose pair is one word against another: recorded or spoken by voices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from otoscope.audio.clip import Clip
from otoscope.audio.synth import say
from otoscope.models.mini_labels import QUESTIONS
from otoscope.tasks.opposed import Opposed, oppose
from otoscope.tasks.pair import Pair
from otoscope.tasks.recordings import Recording, fitted
from otoscope.tasks.speakers import voices
from otoscope.tasks.task import TaskItem

#: length of every clip, seconds
SECONDS = 1.0
#: silence before a synthetic word, seconds: engines begin at once, and a recogniser misses an onset at the very start
LEAD = 0.1
#: what is quieter than the loudest part by more decibels is no part of the word
_QUIETEST = 30.0


def recorded(recordings: Sequence[Recording], words: tuple[str, ...], n: int, seed: int, corpus: str) -> list[TaskItem]:
    """Pairs of recorded words, both of one speaker where one has said both.

    Raises:
        TaskError: as for :func:`otoscope.tasks.opposed.oppose`.
    """
    return [word_item(pair, seed) for pair in oppose(recordings, words, n, seed, corpus=corpus)]


def spoken(words: tuple[str, ...], n: int, seed: int, engine: str) -> tuple[list[TaskItem], str]:
    """Pairs of synthetic words, both of one voice, and what the card says of the engine.

    Raises:
        AudioError: the engine is not installed.
        TaskError: unknown engine, or fewer than two words.
    """
    known = voices(engine)

    def recording(word: str, voice: int) -> Recording:
        v = known[voice]
        return Recording(f"{v.unit}/{word}", word, v.unit, lambda: say(word, v.name, v.engine), word, {"sex": v.sex})

    made = [recording(word, voice) for voice in range(len(known)) for word in words]
    pairs = oppose(made, words, n, seed, corpus="the synthetic vocabulary")
    return [word_item(pair, seed) for pair in pairs], known[0].engine


def word_item(pair: Opposed, seed: int) -> TaskItem:
    """The item of two recordings; the span runs over what sounds in either of them."""
    clean, corrupt = (
        fitted(r.clip(), SECONDS, LEAD if r.name.startswith(("flite:", "espeak:")) else 0.0) for r in pair
    )
    answer, foil = pair.clean.label, pair.corrupt.label
    same = bool(pair.clean.unit) and pair.clean.unit == pair.corrupt.unit
    made = Pair(
        clean, corrupt, sounding(clean, corrupt), f"{answer!r} -> {foil!r}", answer, foil,
        name=f"{pair.clean.name} -> {pair.corrupt.name}", seed=seed,
    )  # fmt: skip
    labels = {**pair.clean.labels, "same_speaker": "yes" if same else "no"}
    return TaskItem(made, answer, foil, QUESTIONS["word"][0], pair.clean.unit, labels)


def sounding(clean: Clip, corrupt: Clip) -> tuple[float, float]:
    """From where the first of the two begins to sound to where the last one ends, seconds.

    A clip sounds from its first to its last 10 ms whose root mean square is within 30 dB of its loudest 10 ms.
    """
    ends = [_sounds(clip) for clip in (clean, corrupt)]
    return min(start for start, _ in ends), max(end for _, end in ends)


def _sounds(clip: Clip) -> tuple[float, float]:
    size = clip.rate // 100
    # the remainder of the last frame is filled with silence
    frames = np.pad(clip.samples, (0, -len(clip) % size)).reshape(-1, size)
    level = np.sqrt(np.square(frames, dtype=np.float64).mean(1))
    loud = np.flatnonzero(level >= level.max() * 10 ** (-_QUIETEST / 20))
    return float(loud[0]) / 100, min(float(loud[-1] + 1) / 100, clip.duration)
