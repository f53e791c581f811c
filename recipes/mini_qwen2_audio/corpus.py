"""What mini-qwen2-audio is trained on: real recordings with speaker- and fold-disjoint splits, beside synthetic speech.

Every item says which question it can answer. A recording is for training only if its speaker (its fold, for sounds) is;
the rule is a hash of the speaker's name, so that it holds for recordings of the same corpora that are not here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from otoscope.audio.clip import Clip
from otoscope.audio.files import read
from otoscope.audio.synth import say
from otoscope.models import mini_labels as labels
from otoscope.tasks.spoken_words import rows

RATE = 16000
#: formant and diphone voices, each with a sex of its own where the voice has one
ESPEAK = [
    (voice, variant)
    for voice, variant in itertools.product(
        ("en-us", "en-gb-x-rp", "en-gb-scotland", "en-us-nyc"),
        ("", "+f1", "+f2", "+f4", "+f5", "+m1", "+m3", "+m6", "+Annie"),
    )
]
FLITE = ("kal16", "slt", "awb", "rms")
HIBARI_SPEEDS = (0.8, 0.95, 1.1, 1.3)


@dataclass(frozen=True)
class Item:
    """A sound to learn from.

    Attributes:
        kind: ``word``, ``sound``, ``sex`` or ``silence``: which questions it answers.
        label: the answer.
        source: corpus or engine.
        speaker: speaker, voice or fold.
        heldout: kept for testing.
        load: reads or speaks it; 16 kHz mono.
    """

    kind: str
    label: str
    source: str
    speaker: str
    heldout: bool
    load: Callable[[], np.ndarray]


def samples(path: Path) -> np.ndarray:
    """The samples of a recording at 16 kHz, mono."""
    return np.asarray(read(path, rate=RATE).samples, dtype=np.float32)


def real(data: Path) -> Iterator[Item]:
    """Every labelled recording below ``data``."""
    kinds = {
        "speech_commands": "word",
        "fsdd": "word",
        "esc10": "sound",
        "librispeech": "sex",
        "librispeech_speakers": "sex",
    }
    for corpus, kind in kinds.items():
        for row in rows(data, corpus):
            path = data / corpus / row["path"]
            if row.get("label") == "_silence_":
                yield _item("silence", labels.NOTHING, corpus, row["path"], path)
            elif label := labels.label_of(corpus, row):
                yield _item(kind, label, corpus, row["fold"] if kind == "sound" else row["speaker"], path)


def spoken(words: tuple[str, ...], hibari: Callable[[str, float], np.ndarray] | None = None) -> Iterator[Item]:
    """Words by every engine and voice; voices of a known sex answer that question too."""
    for index, word in enumerate(words):
        for number, (voice, variant) in enumerate(ESPEAK):
            if (number + index) % 2:  # every voice speaks half of the words, every word is spoken by half of the voices
                continue
            speed, pitch = (0.85, 1.0, 1.2)[(number + index) % 3], (35.0, 50.0, 65.0)[(number * 2 + index) % 3]
            name = voice + variant
            yield Item(
                "word", word, "espeak", name, False, lambda w=word, n=name, s=speed, p=pitch: _espeak(w, n, s, p)
            )
        for voice in FLITE:
            for speed in (0.85, 1.0, 1.2):
                yield Item("word", word, "flite", voice, False, lambda w=word, v=voice, s=speed: _flite(w, v, s))
        for speed in HIBARI_SPEEDS if hibari else ():
            yield Item("word", word, "hibari", "heart", False, lambda w=word, s=speed: hibari(w, s))  # type: ignore[misc]


def voice_sex(item: Item) -> str | None:
    """The sex that a synthetic voice was made to have; None for recordings, and for voices that have none."""
    if item.source == "espeak":
        variant = item.speaker.partition("+")[2]
        return {"f": "female", "m": "male", "A": "female"}.get(variant[:1])
    return {"slt": "female", "heart": "female", "kal16": "male", "awb": "male", "rms": "male"}.get(item.speaker)


def load_all(items: list[Item], threads: int = 4) -> list[np.ndarray]:
    """The samples of every item; engines run in processes of their own, so threads help."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda item: item.load(), items))


def _item(kind: str, label: str, corpus: str, speaker: str, path: Path) -> Item:
    return Item(kind, label, corpus, speaker, labels.is_heldout(corpus, speaker), lambda: samples(path))


def _espeak(word: str, voice: str, speed: float, pitch: float) -> np.ndarray:
    return _trimmed(say(word, voice, "espeak", RATE, speed, pitch))


def _flite(word: str, voice: str, speed: float) -> np.ndarray:
    return _trimmed(say(word, voice, "flite", RATE, speed))


def _trimmed(clip: Clip) -> np.ndarray:
    """Without the silence around the word."""
    x = np.asarray(clip.samples, dtype=np.float32)
    loud = np.flatnonzero(np.abs(x) > 0.02 * np.abs(x).max())
    return x[max(0, loud[0] - 400) : loud[-1] + 800] if len(loud) else x
