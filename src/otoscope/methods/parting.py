"""Where a transcript and its reference part: the last tokens they share, the token that was written, and the one that
should have been; and when in the sound that is.

The local measure of an error is the margin ``logit(written) - logit(said)`` at that token, teacher-forced on what both
share. The spelling of a reference that has no case (LibriSpeech's) is not known, so each way in which the model could
spell the word is a candidate; of those that go on with the transcript for longest, the one that it finds most likely
counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from otoscope.audio.clip import Clip
from otoscope.engine.model import Model
from otoscope.methods.timing import word_timing
from otoscope.models.asr_errors import Comparison, WordError

#: a word shorter than this (seconds) is looked for in a span of this length
SHORTEST = 0.1
#: a decoder looks at a word when enough of it was heard, so by attention a word begins and ends too late; so much earlier
#: (seconds) both are taken to be, the best on forced alignments of sentences of the development half of the speakers
LATE_START, LATE_END = 0.12, 0.04


@dataclass(frozen=True)
class Parting:
    """One way in which both sides part.

    Attributes:
        before: text tokens that both share, without the prompt.
        written, said: the token on either side.
        written_rest, said_rest: the tokens of the place on either side from there on, at least one each.
    """

    before: tuple[int, ...]
    written: int
    said: int
    written_rest: tuple[int, ...]
    said_rest: tuple[int, ...]


def partings(model: Model, found: Comparison, error: WordError, words: Sequence[Sequence[int]]) -> list[Parting]:
    """The ways in which both sides may part, one per spelling of the reference; none where they cannot be told apart.

    Args:
        model: a Whisper.
        found: the comparison that the error is from.
        error: the error.
        words: tokens of each word that was written, as ``token_words`` gives them.
    """
    end = model.hf.generation_config.eos_token_id
    start, stop = error.written_at
    before = [list(word) for word in words[:start]]
    after = [list(word) for word in words[start:]]
    if not error.written and start == len(words) and before:
        # the text ended too early: the full stop belongs to what was written instead
        before[-1], mark = _without_mark(model, before[-1])
        after = [mark] if mark else []
    shared = [token for word in before for token in word]
    written = [token for word in after for token in word] + [end]
    # what comes after the place is needed where one side is the beginning of the other ("believe", "believes")
    n_written = len([token for word in words[start:stop] for token in word]) or 1
    next_said = found.said[error.said_at[1] : error.said_at[1] + 1]
    ways = []
    for text in _spellings(error.said, next_said, found, error):
        said = [*model.tokenizer(text, add_special_tokens=False).input_ids, *([] if next_said else [end])]
        n_said = len(model.tokenizer(_spell(error.said, text), add_special_tokens=False).input_ids) if error.said else 1
        same = next((i for i, (a, b) in enumerate(zip(written, said)) if a != b), None)
        if same is None:
            continue
        way = Parting(
            (*shared, *said[:same]), written[same], said[same],
            tuple(written[same : max(n_written, same + 1)]), tuple(said[same : max(n_said, same + 1)]),
        )  # fmt: skip
        if way not in ways:
            ways.append(way)
    return ways


def _spell(said: tuple[str, ...], text: str) -> str:
    """As much of a spelled text as belongs to the place itself."""
    return "".join(f" {word}" for word in text.split()[: len(said)])


def _spellings(said: tuple[str, ...], following: tuple[str, ...], found: Comparison, error: WordError) -> list[str]:
    """The reference's words as the model could write them, each with the space before it."""
    words = [*said, *following]
    if not words:
        return [""]
    whole = "".join(found.said)
    if whole != whole.upper() and whole != whole.lower():  # the reference has a case of its own
        return ["".join(f" {word}" for word in words)]
    small = [_pronoun(word.lower()) for word in words]
    ways = [small, [small[0].capitalize(), *small[1:]], [word.capitalize() for word in small]]
    return list(dict.fromkeys("".join(f" {word}" for word in way) for way in ways))


def _pronoun(word: str) -> str:
    return "I" + word[1:] if word == "i" or word.startswith("i'") else word


def _without_mark(model: Model, word: list[int]) -> tuple[list[int], list[int]]:
    """A word's tokens, and those of the punctuation behind it."""
    cut = len(word)
    while cut > 1 and not any(c.isalnum() for c in model.tokenizer.decode([word[cut - 1]])):
        cut -= 1
    return word[:cut], word[cut:]


def span_of(
    model: Model,
    clip: Clip,
    error: WordError,
    words: Sequence[Sequence[int]],
    said: Sequence[int],
    language: str = "en",
) -> tuple[float, float]:
    """When the words of an error were said, in seconds: by cross-attention, with the reference put where the error is.

    Args:
        model: a Whisper.
        clip: the sound.
        error: the error.
        words: tokens of each word that was written.
        said: tokens of what should stand there; empty for an insertion, whose own words are timed.
        language: of a multilingual model.
    """
    start, stop = error.written_at
    place = list(said) or [token for word in words[start:stop] for token in word]
    first = [token for word in words[:start] for token in word]
    rest = [token for word in words[stop:] for token in word]
    timing = word_timing(model, clip, tokens=[*first, *place, *rest], language=language)
    own = timing.tokens[len(first) : len(first) + len(place)]
    return widened(max(0.0, own[0].start - LATE_START), own[-1].end - LATE_END, clip.duration)


def widened(start: float, end: float, duration: float) -> tuple[float, float]:
    """The span, made at least :data:`SHORTEST` long and kept within the sound."""
    if end - start < SHORTEST:
        middle = (start + end) / 2
        start, end = middle - SHORTEST / 2, middle + SHORTEST / 2
    start = max(0.0, min(start, duration - SHORTEST))
    return start, min(duration, max(end, start + min(SHORTEST, duration)))
