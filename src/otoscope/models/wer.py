"""Word error rate as the Whisper papers count it: after Whisper's text normaliser, over all words of a set.

``WER = (substitutions + deletions + insertions) / words in the references``, by the cheapest alignment (jiwer). The
normaliser (Radford et al. 2022, appendix C) lower-cases, drops punctuation and fillers, writes numbers as digits and
spells British words the American way; its spelling table comes from OpenAI's own package (MIT).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from otoscope.errors import TaskError


class WerItem(NamedTuple):
    """One utterance: both texts as they were compared, and the errors between them."""

    hypothesis: str
    reference: str
    substitutions: int
    deletions: int
    insertions: int
    words: int
    """words in the reference"""

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions together."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def wer(self) -> float:
        """Errors per reference word; NaN where the reference has none."""
        return self.errors / self.words if self.words else float("nan")


class WerResult(NamedTuple):
    """A set of utterances: the sums, and every item for bootstraps."""

    wer: float
    """errors per reference word over the whole set; NaN where there are no reference words"""
    substitutions: int
    deletions: int
    insertions: int
    words: int
    items: tuple[WerItem, ...]


def score(hypotheses: Sequence[str], references: Sequence[str], english: bool = True) -> WerResult:
    """Compare texts with their references.

    Args:
        hypotheses: what was heard.
        references: what was said, in the same order.
        english: normalise as English; else only case, punctuation and marks are dropped (Whisper's basic normaliser).

    Raises:
        TaskError: there are not as many hypotheses as references.
    """
    if len(hypotheses) != len(references):
        raise TaskError(f"{len(hypotheses)} transcripts cannot be scored against {len(references)} references.")
    normalise = normaliser(english)
    items = tuple(_item(normalise(h), normalise(r)) for h, r in zip(hypotheses, references))
    words = sum(item.words for item in items)
    return WerResult(
        wer=sum(item.errors for item in items) / words if words else float("nan"),
        substitutions=sum(item.substitutions for item in items),
        deletions=sum(item.deletions for item in items),
        insertions=sum(item.insertions for item in items),
        words=words,
        items=items,
    )


@cache
def normaliser(english: bool = True) -> Callable[[str], str]:
    """Whisper's text normaliser: the English one, or the basic one for every language."""
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

    if not english:
        return BasicTextNormalizer()
    table = files("otoscope.models").joinpath("english_spelling.json").read_text(encoding="utf-8")
    return EnglishTextNormalizer(json.loads(table)["spelling"])


def _item(hypothesis: str, reference: str) -> WerItem:
    import jiwer

    hypothesis, reference = hypothesis.strip(), reference.strip()
    if not reference:  # jiwer has no alignment with nothing
        return WerItem(hypothesis, reference, 0, 0, len(hypothesis.split()), 0)
    found = jiwer.process_words(reference, hypothesis)
    words = found.hits + found.substitutions + found.deletions
    return WerItem(hypothesis, reference, found.substitutions, found.deletions, found.insertions, words)
