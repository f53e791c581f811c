"""When each word and phone of real English speech is said: forced alignment by pocketsphinx (CMU, BSD licence).

Its acoustic model is inside its wheel, so nothing is fetched. Times come in steps of 10 ms. Other languages, and better
times where they matter: the Montreal Forced Aligner, whose TextGrids ``textgrid.with_textgrid`` reads.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np

from otoscope.audio.clip import Clip, Span
from otoscope.audio.pronounce import pronounce
from otoscope.audio.synth.engine import bare, words_from_phones
from otoscope.errors import AudioError

_RATE = 16000
_FRAME = 0.01
#: A frame is 25.6 ms wide and stands for its middle, so the border before frame k is k * 10 + 12.8 - 5 ms.
_BORDER = 0.0078
#: Quiet noise put around the sound, seconds: without it, the aligner fails on speech that begins or ends at once.
_MARGIN = 0.2
_VARIANT = re.compile(r"\(\d+\)$")


def align(clip: Clip, text: str | None = None, pronunciations: Mapping[str, str] | None = None) -> Clip:
    """The clip with ``words`` and ``phones`` (ARPAbet) in seconds, found by forced alignment of its text.

    ``text`` is used instead of the clip's own. Case, punctuation and curly apostrophes do not matter; a hyphenated word
    is aligned by its parts. A word that the dictionary (135,000 words) lacks is said by espeak-ng's rules, with a
    notice; ``pronunciations`` (word -> ARPAbet, "K AE T") comes before both.

    Raises ``AudioError`` when pocketsphinx is missing, there is no text, a word has no pronunciation, or the text does
    not fit the sound.
    """
    text = clip.text if text is None else text
    tokens = [word for word in map(bare, (text or "").split()) if word]
    if not tokens:
        raise AudioError(f"There is no text to align with {clip.who}; give what is said in it.")
    decoder = _decoder()
    given = {_plain(word): phones for word, phones in (pronunciations or {}).items()}
    names, owners, guessed = [], [], []
    for index, token in enumerate(tokens):
        for part in _parts(token):
            name, by_rule = _entry(decoder, part, given)
            names.append(name)
            owners.append(index)
            if by_rule:
                guessed.append(part)
    phones, phone_words = _aligned(decoder, clip, names)
    phone_tokens = [owners[word] for word in phone_words]
    notices = ("aligned with text by pocketsphinx",)
    if guessed:
        notices += (f"said by rule, not found in the dictionary: {', '.join(dict.fromkeys(guessed))}",)
    words = words_from_phones(tokens, phone_tokens, phones)
    return clip.replace(text=text, words=words, phones=tuple(phones), notices=(*clip.notices, *notices))


@lru_cache(maxsize=1)
def _decoder() -> Any:
    try:
        sphinx = import_module("pocketsphinx")
    except ImportError as error:
        raise AudioError('Alignment needs the package pocketsphinx; run: pip install "otoscope[speech]"') from error
    # bestpath shortens phones below three frames, on which the second pass (phones) then fails
    return sphinx.Decoder(lm=None, loglevel="FATAL", bestpath=False)


def _plain(word: str) -> str:
    return word.lower().replace("’", "'").replace("‘", "'")


def _parts(token: str) -> list[str]:
    return [part for part in re.split(r"[-–—/]+", _plain(token)) if any(letter.isalnum() for letter in part)]


def _entry(decoder: Any, word: str, given: Mapping[str, str]) -> tuple[str, bool]:
    """The decoder's name of a word, entered in its dictionary when needed, and whether it is said by rule."""
    if word not in given and decoder.lookup_word(word) is not None:
        return word, False
    by_rule = word not in given
    try:
        phones = pronounce(word) if by_rule else given[word].upper()
    except AudioError as error:
        raise AudioError(
            f"The word {word!r} is not in the dictionary and has no other pronunciation ({error}); "
            "give one in `pronunciations`, such as {'cat': 'K AE T'}."
        ) from error
    # the name carries the phones, so that one decoder can serve callers with different pronunciations
    name = "_".join([re.sub(r"\s", "", word), *phones.split()])
    if decoder.lookup_word(name) is None:
        try:
            decoder.add_word(name, phones, True)
        except RuntimeError as error:
            raise AudioError(
                f"The pronunciation {phones!r} of {word!r} is not ARPAbet as in CMUdict without stress, such as 'K AE T'."
            ) from error
    return name, by_rule


def _aligned(decoder: Any, clip: Clip, names: list[str]) -> tuple[list[Span], list[int]]:
    """Phones in seconds, and for each the index of its word in ``names``."""
    sound = _as_int16(clip)
    failure = AudioError(
        f"The text does not fit the sound of {clip.who}; check that it is English and says every word that is heard."
    )
    try:
        decoder.set_align_text(" ".join(names))
        _decode(decoder, sound)
        if decoder.hyp() is None:
            raise failure
        decoder.set_alignment()
        _decode(decoder, sound)
    except RuntimeError as error:
        raise failure from error
    phones: list[Span] = []
    owners: list[int] = []
    index = -1
    for word in decoder.get_alignment():
        if word.name.startswith(("<", "[", "+")):
            continue
        index += 1
        if index >= len(names) or _VARIANT.sub("", word.name) != names[index]:
            raise failure
        for phone in word:
            start, end = (_seconds(frame, clip) for frame in (phone.start, phone.start + phone.duration))
            if end > start:
                phones.append(Span(start, end, phone.name))
                owners.append(index)
    if index + 1 != len(names):
        raise failure
    return phones, owners


def _seconds(frame: int, clip: Clip) -> float:
    """Time of the border before a frame, counted from the start of the clip itself."""
    return min(max(frame * _FRAME + _BORDER - _MARGIN, 0.0), clip.duration)


def _decode(decoder: Any, sound: bytes) -> None:
    decoder.start_utt()
    try:
        decoder.process_raw(sound, full_utt=True)
    finally:
        decoder.end_utt()


def _as_int16(clip: Clip) -> bytes:
    samples = clip.resample(_RATE).samples
    peak = float(np.abs(samples).max())
    if peak == 0:
        raise AudioError(f"There is only silence in {clip.who}, so no text can be aligned with it.")
    # quiet recordings would lose their detail in 16 bits; the features do not depend on the level
    scaled = samples * (0.5 / peak) * 32767
    margin = 3 * np.random.default_rng(0).standard_normal(round(_MARGIN * _RATE))
    return np.round(np.concatenate([margin, scaled, margin])).astype("<i2").tobytes()
