"""Recordings set against recordings of another label, balanced over labels and units, in an order that a seed draws.

Pairs come in rounds. In a round every label is the answer once and the foil once: an assignment (Hungarian method, Kuhn
1955) that prefers labels which one unit has said both of, then units that were used least, then chance. A round does not
depend on how many are asked for, so fewer pairs are the first of more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from otoscope.errors import TaskError
from otoscope.tasks.recordings import Recording

#: cost of a label set against itself, and of a pair of labels whose recordings are used up
_FORBIDDEN = 1e6
#: of a pair whose two recordings have different units, in uses of a unit: sharing one is worth reusing it so often
_APART = 4.0


class Opposed(NamedTuple):
    """The recording that the answer is right for, and the one that the foil is right for."""

    clean: Recording
    corrupt: Recording


def oppose(recordings: Sequence[Recording], labels: Sequence[str], n: int, seed: int, *, corpus: str) -> list[Opposed]:
    """At most ``n`` pairs of recordings whose labels differ; no recording is the clean one twice.

    Args:
        recordings: of a corpus; those whose label is not asked for are left out.
        labels: at least two.
        n: so many pairs; fewer where a label has no recording left.
        seed: of the draw.
        corpus: what messages call it.

    Raises:
        TaskError: fewer than two labels, or one without recordings.
    """
    if len(set(labels)) < 2:
        raise TaskError(f"the labels are {', '.join(labels) or 'none'}: give at least two different ones.")
    by_label = {label: sorted((r for r in recordings if r.label == label), key=lambda r: r.name) for label in labels}
    for label, group in by_label.items():
        if not group:
            raise TaskError(f"{corpus} has no recording of '{label}': give the whole corpus, or other labels.")
    draw = _Draw(by_label, seed)
    pairs: list[Opposed] = []
    for _ in count():
        made = draw.round()
        pairs += made
        if len(pairs) >= n or len(made) < len(labels):
            return pairs[:n]
    raise AssertionError  # count() does not end


class _Draw:
    """What has been drawn so far."""

    def __init__(self, by_label: dict[str, list[Recording]], seed: int):
        self.labels = list(by_label)
        self.rng = np.random.default_rng(seed)
        # chance decides among equals; it is drawn once, so that an order of files cannot show through
        self.groups = {label: [group[i] for i in self.rng.permutation(len(group))] for label, group in by_label.items()}
        self.uses: Counter[str] = Counter()
        self.said: Counter[str] = Counter()
        self.met = np.zeros((len(self.labels), len(self.labels)))
        self.was_clean: set[str] = set()

    def round(self) -> list[Opposed]:
        """One pair per label, fewer where recordings are used up."""
        size = len(self.labels)
        best = [[self._best(a, b) if a != b else None for b in self.labels] for a in self.labels]
        cost = np.full((size, size), _FORBIDDEN)
        for i in range(size):
            for j in range(size):
                if (found := best[i][j]) is not None:
                    cost[i, j] = found[0]
        cost += (0.5 * self.met / (self.met.max() + 1) + 0.05 * self.rng.random(cost.shape)) / size
        pairs = []
        for i, j in zip(*linear_sum_assignment(cost)):
            if cost[i, j] >= _FORBIDDEN:
                continue
            # what was best may have been used by a pair of this round
            found = self._best(self.labels[i], self.labels[j])
            if found is None:
                continue
            self.met[i, j] += 1
            pair = found[1]
            self._use(pair)
            pairs.append(pair)
        return [pairs[i] for i in self.rng.permutation(len(pairs))]

    def _use(self, pair: Opposed) -> None:
        self.was_clean.add(pair.clean.name)
        for recording in pair:
            self.said[recording.name] += 1
        for unit in {recording.unit for recording in pair}:
            self.uses[unit] += 1

    def _best(self, answer: str, foil: str) -> tuple[float, Opposed] | None:
        """The least used pair, of one unit where there is one, with its cost."""
        free = [r for r in self.groups[answer] if r.name not in self.was_clean]
        if not free:
            return None
        of_unit: dict[str, Recording] = {}
        for other in self.groups[foil]:
            known = of_unit.get(other.unit)
            if known is None or self.said[other.name] < self.said[known.name]:
                of_unit[other.unit] = other
        shared = [r for r in free if r.unit and r.unit in of_unit]
        least = min(shared, key=self._rank, default=None)
        clean = min(free, key=self._rank)
        corrupt = min(self.groups[foil], key=self._rank)
        apart = _APART + self.uses[clean.unit] + self.uses[corrupt.unit]
        if least is not None and (alike := float(self.uses[least.unit])) <= apart:
            return alike, Opposed(least, of_unit[least.unit])
        return apart, Opposed(clean, corrupt)

    def _rank(self, recording: Recording) -> tuple[int, int]:
        return self.uses[recording.unit], self.said[recording.name]
