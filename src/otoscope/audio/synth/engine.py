"""What a speech synthesiser returns to ``say``: samples at its own rate, and when each word and phone was spoken."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from otoscope.audio.clip import Span

#: First letters of vowels, in ARPAbet and IPA.
_VOWELS = frozenset("aeiouyɐɑɒæəɚɛɜɝɪᵻɨɔøœʊʌʉɯɤ")
#: Stress and length marks, which change with the sentence.
_UNSTRESSED = str.maketrans("", "", "ˈˌː")


@dataclass(frozen=True)
class Speech:
    """``samples`` float32 ``[n]`` at ``rate`` Hz; ``words`` and ``phones`` in seconds, pauses left out."""

    samples: Float[np.ndarray, " n"]
    rate: int
    words: tuple[Span, ...]
    phones: tuple[Span, ...]


def words_from_phones(names: list[str], owners: list[int], phones: list[Span]) -> tuple[Span, ...]:
    """Word spans: word ``names[i]`` lasts from the first to the end of the last phone that it owns (``owners``)."""
    words = []
    for index, name in enumerate(names):
        own = [phone for phone, owner in zip(phones, owners) if owner == index]
        if own:
            words.append(Span(own[0].start, own[-1].end, name))
    return tuple(words)


def bare(token: str) -> str:
    """A token of the text without the punctuation around it."""
    first = next((i for i, letter in enumerate(token) if letter.isalnum()), len(token))
    last = next((i for i, letter in enumerate(reversed(token)) if letter.isalnum()), 0)
    return token[first : len(token) - last]


def owners_of(spoken: list[str], alone: list[tuple[str, ...]]) -> list[int]:
    """The token that each spoken phone belongs to.

    ``alone`` has the phones of each token spoken alone; they are aligned with those of the sentence (edit distance; in
    a sentence only a few change: "the", "a", "'s", a flapped "t").
    """
    expected = [(phone, index) for index, phones in enumerate(alone) for phone in phones]
    n, m = len(expected), len(spoken)
    cost = np.zeros((n + 1, m + 1))
    cost[:, 0], cost[0, :] = np.arange(n + 1), np.arange(m + 1)
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            swap = cost[i - 1, j - 1] + _difference(expected[i - 1][0], spoken[j - 1])
            cost[i, j] = min(swap, cost[i - 1, j] + 1, cost[i, j - 1] + 1)
    owners = [0] * m
    i, j = n, m
    while j > 0:
        if i > 0 and np.isclose(cost[i, j], cost[i - 1, j - 1] + _difference(expected[i - 1][0], spoken[j - 1])):
            owners[j - 1] = expected[i - 1][1]
            i, j = i - 1, j - 1
        elif i > 0 and np.isclose(cost[i, j], cost[i - 1, j] + 1):
            i -= 1
        else:
            owners[j - 1] = expected[max(i - 1, 0)][1] if expected else 0
            j -= 1
    return owners


def _difference(first: str, second: str) -> float:
    first, second = first.translate(_UNSTRESSED), second.translate(_UNSTRESSED)
    if first == second:
        return 0.0
    return 0.5 if (first[:1] in _VOWELS) == (second[:1] in _VOWELS) else 1.9
