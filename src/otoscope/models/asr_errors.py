"""What a recogniser got wrong: its words against those that were said, as places where the two part and meet again.

The words are compared after Whisper's normaliser (case, punctuation, fillers, contractions, spelling), by the cheapest
alignment (jiwer), as for the word error rate. Neighbouring errors are one place:

    substitution   something else is written
    deletion       nothing is written
    insertion      more is written than was said
    repetition     an insertion that only says again what stands before it

A place where both sides read the same once joined ("twenty five", "25") is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from otoscope.models.wer import normaliser

ErrorKind = Literal["substitution", "deletion", "insertion", "repetition"]
#: a loop may have a phrase of this many words
_LONGEST_LOOP = 12


@dataclass(frozen=True)
class WordError:
    """One place where what was written is not what was said.

    Attributes:
        kind: see the module.
        said, written: the words of either side, as they are spelled there.
        said_at, written_at: their places among all words of either side, ``[start, stop)``; an empty range stands before
            the word that it names.
        same_letters: whether both sides differ by spaces and hyphens only ("ring leader", "ringleader").
    """

    kind: ErrorKind
    said: tuple[str, ...]
    written: tuple[str, ...]
    said_at: tuple[int, int]
    written_at: tuple[int, int]
    same_letters: bool = False

    @property
    def text(self) -> str:
        """Such as ``'bare' for 'bear'``."""
        said, written = " ".join(self.said), " ".join(self.written)
        match self.kind:
            case "deletion":
                return f"'{said}' is missing"
            case "insertion" | "repetition":
                return f"'{written}' was not said"
            case _:
                return f"'{written}' for '{said}'"


@dataclass(frozen=True)
class Comparison:
    """Two texts, word by word.

    Attributes:
        said, written: their words, split at spaces.
        errors: where they part, in order.
        matches: pairs of places (said, written) of words that are the same.
    """

    said: tuple[str, ...]
    written: tuple[str, ...]
    errors: tuple[WordError, ...]
    matches: tuple[tuple[int, int], ...]


def token_words(tokenizer: Any, tokens: Sequence[int]) -> list[list[int]]:
    """The text tokens of each word: a word starts where a token starts with a space; punctuation belongs to its word."""
    words: list[list[int]] = []
    for token, spelling in zip(tokens, tokenizer.convert_ids_to_tokens(list(tokens))):
        if spelling.startswith("Ġ") or not words:
            words.append([])
        words[-1].append(int(token))
    return words


def spelled(tokenizer: Any, words: Sequence[Sequence[int]]) -> list[str]:
    """What each word of :func:`token_words` reads as."""
    return [tokenizer.decode(list(word)).strip() or " " for word in words]


def compare(said: str | Sequence[str], written: str | Sequence[str], english: bool = True) -> Comparison:
    """Find the errors in what was written.

    Args:
        said: the reference, as text or as words.
        written: the transcript.
        english: normalise as English; else only case, punctuation and marks do not count.
    """
    sides = tuple(tuple(side.split()) if isinstance(side, str) else tuple(side) for side in (said, written))
    keys = tuple(_keys(side, english) for side in sides)
    matches = _matches(keys)
    borders = [(-1, -1), *matches, (len(sides[0]), len(sides[1]))]
    errors = []
    for (a, b), (c, d) in pairwise(borders):
        found = _error(sides, keys, (a + 1, c), (b + 1, d), english)
        if found is not None:
            errors.append(found)
    return Comparison(sides[0], sides[1], tuple(errors), tuple(matches))


def _keys(words: Sequence[str], english: bool) -> list[list[str]]:
    """What each word is compared by: no key for a filler or a dash, several for a contraction."""
    normalise = normaliser(english)
    return [normalise(word).split() for word in words]


def _matches(keys: tuple[list[list[str]], ...]) -> list[tuple[int, int]]:
    """Words of both sides that are equal, each whole."""
    import jiwer

    flat = [[key for word in side for key in word] for side in keys]
    if not flat[0] or not flat[1]:
        return []
    owners = [[i for i, word in enumerate(side) for _ in word] for side in keys]
    chunks = jiwer.process_words(" ".join(flat[0]), " ".join(flat[1])).alignments[0]
    partners: dict[tuple[int, int], int] = {}
    for chunk in chunks:
        if chunk.type == "equal":
            for i, j in zip(
                range(chunk.ref_start_idx, chunk.ref_end_idx), range(chunk.hyp_start_idx, chunk.hyp_end_idx)
            ):
                pair = (owners[0][i], owners[1][j])
                partners[pair] = partners.get(pair, 0) + 1
    # a contraction is the same word only where all of its parts meet all of the other's
    return sorted(p for p, n in partners.items() if n == len(keys[0][p[0]]) == len(keys[1][p[1]]))


def _error(
    sides: tuple[tuple[str, ...], ...],
    keys: tuple[list[list[str]], ...],
    said: tuple[int, int],
    written: tuple[int, int],
    english: bool,
) -> WordError | None:
    """What stands between two matches; None where both sides read the same."""
    ranges = [_without_fillers(keys[side], at) for side, at in enumerate((said, written))]
    words = [sides[side][start:stop] for side, (start, stop) in enumerate(ranges)]
    normalise = normaliser(english)
    joined = [normalise(" ".join(side)).strip() for side in words]
    if joined[0] == joined[1]:
        return None
    letters = ["".join(c for c in text if c.isalnum()) for text in joined]
    if not joined[0]:
        kind: ErrorKind = "repetition" if says_again(keys[1], ranges[1]) else "insertion"
    else:
        kind = "substitution" if joined[1] else "deletion"
    return WordError(kind, words[0], words[1], ranges[0], ranges[1], letters[0] == letters[1])


def _without_fillers(keys: list[list[str]], at: tuple[int, int]) -> tuple[int, int]:
    """The range without words that do not count, at its ends."""
    start, stop = at
    while start < stop and not keys[start]:
        start += 1
    while stop > start and not keys[stop - 1]:
        stop -= 1
    return start, stop


def says_again(keys: list[list[str]], at: tuple[int, int]) -> bool:
    """Whether a range goes on as some phrase right before it went, or goes round in itself."""
    before = [key for word in keys[: at[0]] for key in word]
    inside = [key for word in keys[at[0] : at[1]] for key in word]
    for period in range(1, _LONGEST_LOOP + 1):
        # one word of a longer phrase may come again by chance; a whole turn of it does not
        for lead in (before[-period:], []):
            line = lead + inside
            turns = all(line[i] == line[i - period] for i in range(period, len(line)))
            if turns and len(line) >= 2 * period and len(lead) in (0, period):
                return True
    return False
