"""Splits that keep every speaker on one side, so that a probe cannot be right by knowing the voice.

Where a label is tied to the speaker (sex, accent, and in practice every label that a speaker's recordings share), a probe
that has heard the speaker in training needs only to recognise him. Folds here hold whole groups out.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, Shaped

from otoscope.errors import TaskError

Fold = tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]]


def disjoint_folds(
    y: Shaped[np.ndarray, " row"], groups: Shaped[np.ndarray, " row"] | None, folds: int = 5, seed: int = 0
) -> list[Fold]:
    """Rows to train and to test on, ``folds`` times: every row is tested once, no group is on both sides.

    Classes are spread over the folds as evenly as the groups allow. Classes with fewer groups than folds are missing in
    the training part of some fold only where a single group holds all their rows.

    Args:
        y: labels.
        groups: what may not be on both sides (the speaker); None: each row is a group of its own.
        folds: at most so many; fewer where there are fewer groups.
        seed: of the draw.

    Raises:
        TaskError: one class only, or one group only.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    _, counts = np.unique(y, return_counts=True)
    if len(counts) < 2:
        raise TaskError(
            f"all {len(y)} rows have the label '{y[0] if len(y) else ''}': a probe needs at least two labels."
        )
    if groups is None:
        n = int(min(folds, max(counts.min(), 2)))
        return [(train, test) for train, test in StratifiedKFold(n, shuffle=True, random_state=seed).split(y, y)]
    n = min(folds, len(np.unique(groups)))
    if n < 2:
        raise TaskError(f"all {len(y)} rows are of '{groups[0]}': hold-out needs at least two speakers or utterances.")
    splitter = StratifiedGroupKFold(n, shuffle=True, random_state=seed)
    made = [(train, test) for train, test in splitter.split(y, y, groups) if len(test) and len(np.unique(y[train])) > 1]
    if not made:
        raise TaskError(
            "no split leaves two labels for training: each label needs at least two speakers (or utterances) of its own."
        )
    return made


def part_of_groups(
    groups: Shaped[np.ndarray, " row"], share: float, seed: int = 0
) -> tuple[Int[np.ndarray, " inside"], Int[np.ndarray, " outside"]]:
    """Rows of a random ``share`` of the groups, and the other rows."""
    names = np.unique(groups)
    drawn = np.random.default_rng(seed).permutation(len(names))[: round(share * len(names))]
    inside = np.isin(groups, names[drawn])
    return np.flatnonzero(inside), np.flatnonzero(~inside)
