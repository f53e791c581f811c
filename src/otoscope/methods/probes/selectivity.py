"""Held-out accuracy, and its nulls: shuffled labels and control tasks (Hewitt & Liang 2019).

A control task gives every *type* (a word, a speaker) one random label, so that it can only be solved by memorising the types.
Selectivity is the task's accuracy minus the control's, both on rows of types that training has seen. A probe that is
right about the task because it can memorise anything has none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped

from otoscope.methods.probes.linear import Probe, fit
from otoscope.methods.probes.splits import disjoint_folds
from otoscope.stats import Interval, bootstrap

Labels = Shaped[np.ndarray, " row"]
Fitting = Callable[..., Probe]


@dataclass(frozen=True, eq=False)
class Rows:
    """What is known of the rows of a representation.

    Attributes:
        labels: what is to be read.
        groups: kept on one side of every split: the speaker (the utterance, where the label is the speaker).
        types: get one random label each in the control task: the word, or the speaker.
        units: what intervals resample: speakers, or utterances.
    """

    labels: Labels
    groups: Labels
    types: Labels
    units: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def only(self, rows: Bool[np.ndarray, " row"]) -> Rows:
        """Some of the rows."""
        return Rows(self.labels[rows], self.groups[rows], self.types[rows], self.units[rows])

    @property
    def types_are_groups(self) -> bool:
        """Whether a type never crosses groups, so that holding groups out leaves nothing of it to memorise."""
        pairs = np.unique(np.stack([self.types.astype(str), self.groups.astype(str)]), axis=1)
        return pairs.shape[1] == len(np.unique(self.types))

    @property
    def chance(self) -> float:
        """Share of the most frequent label."""
        return float(np.unique(self.labels, return_counts=True)[1].max() / len(self.labels))


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Held-out predictions over several seeds.

    Attributes:
        right: 1 right, 0 wrong, NaN not scored.
        units: of the rows, for intervals.
        validation: mean held-out log-likelihood of *training* groups (nats per row), by which a layer may be chosen.
    """

    right: Float[np.ndarray, "seed row"]
    units: Labels
    validation: float

    @property
    def per_row(self) -> Float[np.ndarray, " row"]:
        """Share of seeds in which a row is right; NaN where it was never scored."""
        there = ~np.isnan(self.right)
        counts = there.sum(axis=0)
        return np.where(counts > 0, np.nansum(self.right, axis=0) / np.maximum(counts, 1), np.nan)

    def accuracy(self, seed: int = 0) -> Interval:
        """Accuracy, with its 95% interval over units."""
        return bootstrap(self.per_row, groups=self.units, seed=seed)

    def minus(self, other: HeldOut | float, seed: int = 0) -> Interval:
        """Difference of two accuracies on the same rows (or to a number), paired, with its interval over units."""
        there = other.per_row if isinstance(other, HeldOut) else other
        return bootstrap(self.per_row - there, groups=self.units, seed=seed)


def held_out(
    x: Float[np.ndarray, "row d"],
    labels: Labels | Sequence[Labels],
    groups: Labels | None,
    units: Labels,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    folds: int = 5,
    fitting: Fitting = fit,
    known: Labels | None = None,
    progress: Callable[[], None] | None = None,
) -> HeldOut:
    """Test every row once per seed by a probe that has seen no row of its group.

    Args:
        x: features.
        labels: one per row, or one such array per seed (random labels).
        groups: see ``Rows``; None: rows.
        units: what intervals resample.
        seeds: each gives other folds (and another start of an MLP).
        folds: at most so many.
        fitting: ``(x, y, groups, seed=) -> Probe``.
        known: types of the rows; only rows whose type is in the training part are scored.
        progress: called after each fold.
    """
    x = np.asarray(x, np.float32)
    right = np.full((len(seeds), len(x)), np.nan)
    validation = []
    for i, seed in enumerate(seeds):
        y = labels if isinstance(labels, np.ndarray) else labels[i]
        for train, test in disjoint_folds(y, groups, folds, seed):
            if known is not None:
                test = test[np.isin(known[test], known[train])]
            probe = fitting(x[train], y[train], None if groups is None else groups[train], seed=seed)
            right[i, test] = probe.classes[probe.log_probs(x[test]).argmax(axis=1)] == y[test]
            validation.append(probe.validation)
            if progress is not None:
                progress()
    return HeldOut(right, units, float(np.mean(validation)))


def control_labels(labels: Labels, types: Labels, seed: int) -> Labels:
    """One random label per type, so that each label comes about as often as it does in the task.

    In random order, each type gets the label that has most rows left to give. Without such quotas the control would have
    another majority than the task, and with few types the difference would be taken for selectivity.
    """
    rng = np.random.default_rng(seed)
    names, left = np.unique(labels, return_counts=True)
    _, code, sizes = np.unique(types, return_inverse=True, return_counts=True)
    given = np.zeros(len(sizes), int)
    left = left.astype(float)
    for kind in rng.permutation(len(sizes)):
        # a half-row of chance, so that equal quotas do not always go to the first label
        given[kind] = int((left + rng.uniform(0, 0.5, len(left))).argmax())
        left[given[kind]] -= sizes[kind]
    return names[given][code]


def shuffled_labels(labels: Labels, groups: Labels, seed: int) -> Labels:
    """The labels in random order: whole groups exchange theirs where all rows of a group have one, else single rows do."""
    rng = np.random.default_rng(seed)
    names, first, code = np.unique(groups, return_index=True, return_inverse=True)
    if np.array_equal(labels[first][code], labels) and len(names) > 2:
        return rng.permutation(labels[first])[code]
    return rng.permutation(labels)


@dataclass(frozen=True, eq=False)
class Selectivity:
    """A task and its control on the same rows, with types that training has seen.

    Attributes:
        task: accuracy of the true labels.
        control: of the random ones.
    """

    task: HeldOut
    control: HeldOut

    def interval(self, seed: int = 0) -> Interval:
        """Task accuracy - control accuracy, paired by row, with its interval over units."""
        return self.task.minus(self.control, seed)


def selectivity(
    x: Float[np.ndarray, "row d"],
    rows: Rows,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    folds: int = 5,
    fitting: Fitting = fit,
    task: HeldOut | None = None,
    progress: Callable[[], None] | None = None,
) -> Selectivity:
    """Selectivity of a probe.

    Where a type never crosses groups (the speaker, as the type of a speaker-disjoint split) both are measured on held-out rows of
    *known* speakers: on new ones no control can be above chance, and the difference would say nothing of the probe.

    Args:
        x: features.
        rows: what is known of them.
        seeds, folds, fitting, progress: see ``held_out``.
        task: accuracy on group-disjoint folds, if it was measured already and the types cross groups.
    """
    groups = None if rows.types_are_groups else rows.groups
    options = {"seeds": seeds, "folds": folds, "fitting": fitting, "progress": progress}
    if task is None or groups is None:
        task = held_out(x, rows.labels, groups, rows.units, **options)
    random = [control_labels(rows.labels, rows.types, seed) for seed in seeds]
    return Selectivity(task, held_out(x, random, groups, rows.units, known=rows.types, **options))
