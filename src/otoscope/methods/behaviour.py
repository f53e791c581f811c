"""Listening or guessing, as one sees it from outside: what a model answers when sound and text disagree.

Every measure is a mean over items, with a percentile bootstrap interval over items, or over the speakers of their clean
sounds. Of an item, A is what its sound says, B what the conflicting text says, and K the number of options.

=====================  ==================================================================================================
listen rate            share of A among the answers to the clean sound in the conflicting context
guess rate             share of B among them
other rate             share of anything else among them; the three sum to 1
text dominance         B / (A + B) among them: text followed, over text or sound followed (ALME)
audio contribution     mean of 1[y(sound) = A] - 1[y(silence) = A], both without a context
reference following    ``max(0, (RF - 1/(K-1)) / (1 - 1/(K-1)))`` where RF is the share of answers that are the reference's,
                       A for the sound and B for the text: 0 is a random choice among the K - 1 options that are not the
                       other reference, 1 is always
accuracy               share of answers that are what the sound says; for silence and noise, what the clean sound said
=====================  ==================================================================================================

Where a measure is not defined it is NaN: no item, no answer among A and B, or two options only (following a reference is
then the same as not following the other).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from otoscope.engine.model import Model
from otoscope.errors import TaskError
from otoscope.methods.label_scoring import answers, match, score_labels
from otoscope.stats import Interval, bootstrap, ratio_of_sums
from otoscope.tasks.conflict import CONTEXTS, ConflictItem, ConflictTask, Context
from otoscope.tasks.conflict_sounds import SOUNDS, Sound

#: a sound condition and a context condition
Condition = tuple[Sound, Context]
#: an answer: a label, ``""`` for something that is none, None where the item was not asked
Choice = str | None

#: all sounds in all contexts
CONDITIONS: tuple[Condition, ...] = tuple((sound, context) for sound in SOUNDS for context in CONTEXTS)
#: what the measures of conflict and of contribution read
NEEDED: tuple[Condition, ...] = (("clean", "conflicting"), ("clean", "neutral"), ("silent", "neutral"))


@dataclass(frozen=True)
class Answers:
    """What a model answered.

    Attributes:
        choices: condition -> one answer per item.
        margins: condition -> ``log p(A) - log p(B)`` per item in nats, whole labels; NaN where the item was not asked,
            empty where answers were written instead of scored.
    """

    choices: Mapping[Condition, tuple[Choice, ...]]
    margins: Mapping[Condition, Float[np.ndarray, " item"]]


def ask_all(
    model: Model,
    task: ConflictTask | Sequence[ConflictItem],
    conditions: Sequence[Condition] = CONDITIONS,
    *,
    how: Literal["score", "write"] = "score",
    batch_size: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> Answers:
    """Ask a model every item in every condition.

    Args:
        model: one that can be asked.
        task: the items; an item that lacks a sound (its counterfactual) is not asked in that condition.
        conditions: sounds and contexts.
        how: ``score`` takes the most likely whole label, ``write`` lets the model write and matches it to a label.
        batch_size: prompts run together.
        progress: called with items done and their total.

    Raises:
        ModelError: the model cannot be asked.
        TaskError: there are no items, or a condition does not exist.
    """
    items = list(task)
    if not items:
        raise TaskError("There are no items to ask; give at least one.")
    for condition in conditions:
        if condition not in CONDITIONS:
            raise TaskError(
                f"There is no condition {condition!r}; give a sound of {', '.join(SOUNDS)} and a context of "
                f"{', '.join(CONTEXTS)}."
            )
    choices: dict[Condition, list[Choice]] = {condition: [None] * len(items) for condition in conditions}
    margins = {condition: np.full(len(items), np.nan) for condition in conditions if how == "score"}
    # all conditions of a few items together: they make many prompts of equal length, and few are held at once
    for start in range(0, len(items), batch_size):
        # items with other options cannot share their scores
        groups: dict[tuple[str, ...], list[tuple[int, Condition]]] = {}
        for i in range(start, min(start + batch_size, len(items))):
            asked = [(i, condition) for condition in conditions if condition[0] in items[i].clips]
            groups.setdefault(items[i].labels, []).extend(asked)
        for labels, members in groups.items():
            prompts = [items[i].ask(model, *condition) for i, condition in members]
            if how == "write":
                for (i, condition), text in zip(members, answers(model, prompts, batch_size=batch_size)):
                    choices[condition][i] = match(text, labels)
                continue
            for (i, condition), row in zip(members, score_labels(model, prompts, labels, batch_size=batch_size)):
                choices[condition][i] = labels[int(row.argmax())]
                a, b = labels.index(items[i].sound_label), labels.index(items[i].text_label)
                margins[condition][i] = row[a] - row[b]
        if progress:
            progress(min(start + batch_size, len(items)), len(items))
    return Answers({condition: tuple(chosen) for condition, chosen in choices.items()}, margins)


class Rates(NamedTuple):
    """Shares of the answers to conflicting items; they sum to 1."""

    listen: Interval
    guess: Interval
    other: Interval


@dataclass(frozen=True)
class Behaviour:
    """Every measure of the module, with its interval.

    Attributes:
        rates: on the clean sound in the conflicting context.
        text_dominance: text followed over text or sound followed, there.
        audio_contribution: clean against silent sound, without a context; from -1 to 1.
        following_sound, following_text: chance-corrected reference-following on conflicting items, 0 to 1.
        accuracy: condition -> share of answers that are what the sound says.
        null: the listen and guess rates that the same answers would give if they were dealt to the items at random, and
            so knew nothing of sound and text. They depend on how often each label is answered and asked for.
    """

    rates: Rates
    text_dominance: Interval
    audio_contribution: Interval
    following_sound: Interval
    following_text: Interval
    accuracy: Mapping[Condition, Interval]
    null: Mapping[Literal["listen", "guess"], float]

    def table(self) -> dict[str, Interval]:
        """All measures under flat names, such as ``listen_rate`` and ``accuracy.clean.neutral``."""
        return {
            "listen_rate": self.rates.listen,
            "guess_rate": self.rates.guess,
            "other_rate": self.rates.other,
            "text_dominance": self.text_dominance,
            "audio_contribution": self.audio_contribution,
            "following.sound": self.following_sound,
            "following.text": self.following_text,
            **{f"accuracy.{sound}.{context}": value for (sound, context), value in self.accuracy.items()},
        }


def behaviour(
    task: ConflictTask | Sequence[ConflictItem],
    choices: Mapping[Condition, Sequence[Choice]],
    *,
    over: Literal["items", "speakers"] = "items",
    n_resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Behaviour:
    """All measures from the answers per condition, such as :attr:`Answers.choices`.

    Args:
        task: the items that were asked.
        choices: condition -> one answer per item; a measure whose condition is missing is NaN.
        over: what the intervals resample; with ``speakers``, items of one speaker are drawn together, which is honest
            where several come from each of many, and useless with two voices.
        n_resamples, level, seed: of the bootstrap.

    Raises:
        TaskError: a condition has more or fewer answers than there are items.
    """
    items = list(task)
    for condition, chosen in choices.items():
        if len(chosen) != len(items):
            raise TaskError(
                f"The condition {' / '.join(condition)} has {len(chosen)} answers for {len(items)} items; give one per item."
            )
    # an item without a speaker stands for itself
    speakers = [f"speaker {item.speaker}" if item.speaker else f"item {i}" for i, item in enumerate(items)]
    options: dict[str, Any] = {
        "groups": speakers if over == "speakers" else None,
        "n_resamples": n_resamples,
        "level": level,
        "seed": seed,
    }
    nothing: list[Choice] = [None] * len(items)
    conflict = choices.get(("clean", "conflicting"), nothing)
    sound, text = [item.sound_label for item in items], [item.text_label for item in items]
    heard, read = hits(conflict, sound), hits(conflict, text)
    chance = [1 / (len(item.labels) - 1) for item in items]

    def right(condition: Condition) -> NDArray[Any]:
        return hits(choices.get(condition, nothing), [item.said(condition[0]) or item.sound_label for item in items])

    return Behaviour(
        Rates(bootstrap(heard, **options), bootstrap(read, **options), bootstrap(1 - heard - read, **options)),
        bootstrap(np.stack([read, read + heard], 1), ratio_of_sums, **options),
        bootstrap(right(("clean", "neutral")) - right(("silent", "neutral")), **options),
        bootstrap(np.stack([heard, chance], 1), reference_following, **options),
        bootstrap(np.stack([read, chance], 1), reference_following, **options),
        {condition: bootstrap(right(condition), **options) for condition in choices},
        {"listen": dealt(conflict, sound), "guess": dealt(conflict, text)},
    )


def hits(choices: Sequence[Choice], labels: Sequence[str]) -> Float[np.ndarray, " item"]:
    """1 where an answer is its item's label, 0 where it is not, NaN where the item was not asked."""
    return np.array([np.nan if c is None else float(c == label) for c, label in zip(choices, labels, strict=True)])


def reference_following(rows: Float[np.ndarray, "item 2"]) -> float:
    """``max(0, (RF - c) / (1 - c))``: how much more often than by chance answers are the reference's.

    ``rows`` hold 1 or 0 (the answer is the reference's) and the chance of the item, ``1 / (K - 1)``; both are averaged
    first. NaN where chance is 1: with two options, not following one reference is following the other.
    """
    followed, chance = rows.mean(axis=0)
    return float("nan") if chance >= 1 else max(0.0, float((followed - chance) / (1 - chance)))


def dealt(choices: Sequence[Choice], labels: Sequence[str]) -> float:
    """Share of answers that would be the item's label if the labels were dealt to the items at random, exactly.

    The mean over all permutations: ``sum over labels of (share of answers) x (share of items)``. NaN without answers.
    """
    asked = [(c, label) for c, label in zip(choices, labels, strict=True) if c is not None]
    if not asked:
        return float("nan")
    given, wanted = zip(*asked)
    return sum(given.count(label) * wanted.count(label) for label in set(wanted)) / len(asked) ** 2
