"""A ``Task``: a named, versioned, seeded set of pairs with what each pair asks, where it comes from and what it may be used for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace

from otoscope.errors import TaskError
from otoscope.tasks.pair import Pair


@dataclass(frozen=True, eq=False)
class TaskItem:
    """One pair and what a model should say to each of its sounds.

    Attributes:
        pair: a clean and a corrupt sound of equal length that differ in one thing.
        answer: what is right for the clean sound: a word, a label, or a sentence.
        foil: what is right for the corrupt sound.
        question: what an audio-LLM is asked; a speech recogniser only transcribes.
        unit: the speaker or recording that intervals resample.
        labels: what else is known of the item (``feature`` of a minimal pair, ``voice``, ...).
    """

    pair: Pair
    answer: str
    foil: str
    question: str = "What is said? Answer with the word alone."
    unit: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.answer.strip() or not self.foil.strip() or self.answer.strip() == self.foil.strip():
            raise TaskError(
                f"item '{self.pair.name}' has the answer '{self.answer}' and the foil '{self.foil}': give two different texts."
            )

    def digest(self) -> str:
        """SHA-256 of its sounds, texts and question."""
        h = hashlib.sha256()
        for part in (self.pair.clean.digest(), self.pair.corrupt.digest(), self.answer, self.foil, self.question):
            h.update(part.encode() + b"\0")
        return h.hexdigest()


@dataclass(frozen=True)
class Card:
    """A data card: what a person must know before a task is used.

    Attributes:
        summary: one sentence: what differs between the clean and the corrupt sound of a pair.
        factor: the one thing that differs, such as ``word`` or ``voicing``.
        source: where the sounds come from.
        licence: of the sounds.
        made_by: how pairs are made, and what is kept equal.
        limits: what the task cannot tell.
        families: what it can be asked of: ``recogniser`` (transcribes), ``audio-llm`` (is asked), or both.
        citation: paper or address of the corpus.
    """

    summary: str
    factor: str
    source: str
    licence: str
    made_by: str
    limits: str
    families: tuple[str, ...] = ("recogniser", "audio-llm")
    citation: str = ""


@dataclass(frozen=True, eq=False)
class Task:
    """A set of items.

    Attributes:
        name: how it is called.
        version: raised whenever the same arguments would give other items.
        seed: every draw's.
        items: the pairs.
        card: its data card.
        options: the closed set of labels that answers come from; empty where there is none.
    """

    name: str
    version: int
    seed: int
    items: tuple[TaskItem, ...]
    card: Card
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.items:
            raise TaskError(f"the task '{self.name}' has no items: give more sounds, or ask for fewer items.")

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[TaskItem]:
        return iter(self.items)

    @property
    def id(self) -> str:
        """``name@version``."""
        return f"{self.name}@{self.version}"

    def digest(self) -> str:
        """SHA-256 of name, version, options and every item: two tasks with one digest ask the same of the same sounds."""
        h = hashlib.sha256(json.dumps([self.name, self.version, list(self.options)]).encode())
        for item in self.items:
            h.update(item.digest().encode())
        return h.hexdigest()

    def take(self, n: int) -> Task:
        """The first ``n`` items (all, where there are fewer)."""
        return replace(self, items=self.items[:n])

    def describe(self) -> dict[str, object]:
        """JSON-ready: card, size and digest."""
        return {
            "name": self.name, "version": self.version, "seed": self.seed, "n": len(self), "digest": self.digest(),
            "options": list(self.options), "card": asdict(self.card),
        }  # fmt: skip
