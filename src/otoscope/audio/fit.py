"""How well a text fits a sound, word by word: the acoustic scores of the forced alignment of ``align``.

A frame's score is the log-likelihood of the state that the text asks for, minus that of the best state of any phone: 0 where no
other phone fits better. Its sum over the frames of a phone is what "goodness of pronunciation" averages (Witt and Young 2000,
equation 3). The decoder gives scores as logarithms to the base 1.0001, without their last 10 bits.
"""

from __future__ import annotations

import math
from functools import lru_cache
from importlib import import_module
from typing import Any, NamedTuple

from otoscope.audio import align
from otoscope.audio.clip import Clip
from otoscope.audio.synth.engine import bare
from otoscope.errors import AudioError

#: One step of the decoder's acoustic scores, nats.
_NATS = 2**10 * math.log(1.0001)


class WordFit(NamedTuple):
    """How well the phones of one word of the text fit the sound: a sum over its frames of 10 ms."""

    start: float
    end: float
    """seconds"""
    score: float
    """log-likelihood of the states that the text asks for, minus that of the best state of any phone; nats, at most 0"""
    frames: int


def word_fits(clip: Clip, text: str | None = None) -> tuple[WordFit, ...]:
    """Fit of each word of a text with the sound, hyphens as word breaks.

    Raises ``AudioError`` as ``align.align`` does: no text, silence, pocketsphinx missing, or no alignment is found.
    """
    tokens = [word for word in map(bare, ((clip.text if text is None else text) or "").split()) if word]
    if not tokens:
        raise AudioError(f"There is no text to align with {clip.who}; give what is said in it.")
    decoder = _decoder()
    names = [align._entry(decoder, part, {})[0] for token in tokens for part in align._parts(token)]
    # it raises where the text does not fit, and leaves the decoder with the alignment and its scores
    align._aligned(decoder, clip, names)
    return tuple(
        _fit(list(word), clip) for word in decoder.get_alignment() if not word.name.startswith(("<", "[", "+"))
    )


@lru_cache(maxsize=1)
def _decoder() -> Any:
    align._decoder()  # says what to install where pocketsphinx is missing
    # with the usual beams a text of other words has no alignment at all, and half a text as little as none
    wide = dict.fromkeys(("beam", "wbeam", "pbeam"), 1e-300)
    return import_module("pocketsphinx").Decoder(lm=None, loglevel="FATAL", bestpath=False, **wide)


def _fit(phones: list[Any], clip: Clip) -> WordFit:
    last = phones[-1]
    return WordFit(
        align._seconds(phones[0].start, clip),
        align._seconds(last.start + last.duration, clip),
        _NATS * sum(phone.score for phone in phones),
        sum(phone.duration for phone in phones),
    )
