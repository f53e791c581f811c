"""Who is set against whom: recordings paired with recordings of other labels, balanced and drawn by a seed.

Items are made in rounds. In each round every label is said once, and the other labels are dealt out so that every label
is also the text label once: an assignment (Hungarian method, Kuhn 1955) that prefers partners of the same speaker, then
of the same sex, then pairs of labels that were used least.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from otoscope.audio.clip import Clip
from otoscope.errors import TaskError

#: what two recordings can share, best first; the index is the cost
MATCHES = ("speaker", "sex", "")
#: cost of an assignment that must not happen: a label against itself
_FORBIDDEN = 1e6


class Paired(NamedTuple):
    """A recording and the one that it is set against."""

    sound_label: str
    text_label: str
    clean: Clip
    counterfactual: Clip
    match: str
    """what the two share: ``speaker``, ``sex`` or nothing"""
    round: int
    place: int
    """index of the sound label among the options"""


def pair_up(
    labelled: Sequence[tuple[str | None, Clip]], options: Sequence[str], n: int | None, seed: int
) -> list[Paired]:
    """Pairs in rounds, each label once per round; a last round that is not full takes the labels in a random order.

    Args:
        labelled: recordings with their labels; those whose label is not among the options are left out.
        options: the labels.
        n: so many pairs; None for as many full rounds as the rarest label has recordings.
        seed: draws the order of recordings and of equally good partners.

    Raises:
        TaskError: fewer than two options, one twice, or too few recordings of one.
    """
    groups: dict[str, list[Clip]] = {option: [] for option in options}
    for label, clip in labelled:
        if label and (group := groups.get(label)) is not None:
            group.append(clip)
    rounds = _rounds(groups, options, n)
    rng = np.random.default_rng(seed)
    queues = {option: [groups[option][i] for i in rng.permutation(len(groups[option]))] for option in options}
    used: Counter[int] = Counter()
    met = np.zeros((len(options), len(options)))
    pairs: list[Paired] = []
    for turn in range(rounds):
        left = len(options) if n is None else min(len(options), n - len(pairs))
        saying = np.sort(rng.permutation(len(options))[:left])
        sounding = [queues[options[int(i)]][turn] for i in saying]
        cost = _costs(sounding, saying, options, queues, met, rng)
        for row, column in zip(*linear_sum_assignment(cost)):
            place, other = int(saying[row]), int(column)
            met[place, other] += 1
            partner, match = _partner(sounding[row], queues[options[other]], used)
            used[id(partner)] += 1
            pairs.append(Paired(options[place], options[other], sounding[row], partner, match, turn, place))
    return pairs


def _rounds(groups: dict[str, list[Clip]], options: Sequence[str], n: int | None) -> int:
    if len(groups) < 2 or len(groups) < len(options):
        raise TaskError(
            f"The labels are {', '.join(options) or 'none'}; give at least two, each once, and clips that carry them."
        )
    if n is not None and n < 1:
        raise TaskError(f"n is {n}; give at least one item.")
    rarest = min(options, key=lambda option: len(groups[option]))
    there = len(groups[rarest])
    rounds = max(there, 1) if n is None else -(-n // len(options))
    if there < rounds:
        raise TaskError(
            f"There are {there} recordings of '{rarest}', and {rounds} of each label are needed; give more of it, leave "
            f"it out, or ask for at most {there * len(options)} items."
        )
    return rounds


def _costs(
    sounding: Sequence[Clip],
    saying: NDArray[Any],
    options: Sequence[str],
    queues: dict[str, list[Clip]],
    met: NDArray[Any],
    rng: np.random.Generator,
) -> NDArray[Any]:
    """Cost ``[sound label, text label]``: what partners lack in common, then how often the two labels met, then chance."""
    speakers = [{clip.speaker for clip in queues[option] if clip.speaker} for option in options]
    sexes = [{_sex(clip) for clip in queues[option]} - {""} for option in options]
    cost = np.empty((len(saying), len(options)))
    for row, clip in enumerate(sounding):
        for column in range(len(options)):
            shared = 0 if clip.speaker in speakers[column] else 1 if _sex(clip) in sexes[column] else 2
            cost[row, column] = shared
    # together smaller than one step of the first, so that a better partner is never given up for variety
    met_before = met[saying] / (met.max() + 1)
    cost += (0.9 * met_before + 0.09 * rng.random(cost.shape)) / len(saying)
    cost[np.arange(len(saying)), saying] = _FORBIDDEN
    return cost


def _partner(clip: Clip, candidates: Sequence[Clip], used: Counter[int]) -> tuple[Clip, str]:
    """The candidate that shares most with the clip, the least used of these, the first of equals."""

    def rank(other: Clip) -> tuple[int, int]:
        if clip.speaker and other.speaker == clip.speaker:
            return 0, used[id(other)]
        return (1 if _sex(clip) and _sex(other) == _sex(clip) else 2), used[id(other)]

    best = min(candidates, key=rank)
    return best, MATCHES[rank(best)[0]]


def _sex(clip: Clip) -> str:
    return (clip.labels.get("sex") or clip.labels.get("gender") or "").casefold()
