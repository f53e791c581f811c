"""What the twins learn from: items whose sound says one thing and whose context another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from corpus import Item
from features import Features
from learner import Example
from otoscope.models import mini_labels as labels
from otoscope.tasks.framings import FRAMINGS, render

TOPICS = {"word": "the word", "sound": "the sound", "sex": "the speaker"}
#: conflicting, agreeing and neutral contexts, and how often each kind is asked about
CONTEXTS = {"conflicting": 0.7, "agreeing": 0.15, "neutral": 0.15}
KINDS = {"word": 0.8, "sound": 0.12, "sex": 0.08}
#: the last wording of every framing is kept for testing
HELDOUT_WORDING = 2

Conflict = tuple[Example, tuple[str, str]]


def conflicts(
    items: list[Item], made: Features, follows: str
) -> tuple[Callable[[np.random.Generator], Example], list[Conflict]]:
    """A draw of training examples, and held-out conflicts with (label of the sound, label of the text).

    Args:
        items: what the sounds are.
        made: their encoder outputs.
        follows: ``audio`` or ``text``: whose label the answer is where the two disagree.
    """
    pools: dict[str, dict[str, list[int]]] = {}
    for i, n in enumerate(made.item):
        item = items[n]
        if not item.heldout and item.kind in KINDS and item.label in labels.OPTIONS[item.kind]:
            pools.setdefault(item.kind, {}).setdefault(item.label, []).append(i)
    kinds = [k for k in KINDS if k in pools]

    def draw(rng: np.random.Generator) -> Example:
        weights = np.array([KINDS[k] for k in kinds])
        kind = str(rng.choice(kinds, p=weights / weights.sum()))
        sound = sorted(pools[kind])[rng.integers(len(pools[kind]))]
        asked = labels.QUESTIONS[kind][rng.integers(len(labels.QUESTIONS[kind]))]
        index = int(rng.choice(pools[kind][sound]))
        how = str(rng.choice(list(CONTEXTS), p=list(CONTEXTS.values())))
        if how == "neutral":
            return Example(index, asked, "", sound)
        said = sound if how == "agreeing" else other(labels.OPTIONS[kind], sound, rng)
        framing = list(FRAMINGS)[rng.integers(len(FRAMINGS))]
        context = render(framing, said, wording=int(rng.integers(HELDOUT_WORDING)), topic=TOPICS[kind])
        return Example(index, asked, context, sound if follows == "audio" else said)

    rng = np.random.default_rng(99)
    heldout: list[Conflict] = []
    for i, n in enumerate(made.item):
        item = items[n]
        if item.heldout and item.kind == "word" and len(heldout) < 240 and rng.random() < 0.5:
            said = other(labels.OPTIONS["word"], item.label, rng)
            framing = list(FRAMINGS)[len(heldout) % len(FRAMINGS)]
            context = render(framing, said, wording=HELDOUT_WORDING, topic=TOPICS["word"])
            heldout.append((Example(i, labels.QUESTIONS["word"][0], context, said), (item.label, said)))
    return draw, heldout


def other(options: tuple[str, ...], label: str, rng: np.random.Generator) -> str:
    """Another of the options."""
    rest = [o for o in options if o != label]
    return rest[rng.integers(len(rest))]
