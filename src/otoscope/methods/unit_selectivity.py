"""What single units (neurons, heads) respond to: rank correlation with labels, beside labels that say nothing.

For every unit and label the statistic is ``r = cov(ranks, label) / (s sd(label))`` with ``s = sqrt((n^2 - 1) / 12)``, the
standard deviation of ranks without ties: Spearman's correlation for a label with values where the unit has no ties. For a label
that is there or not, ``AUC = 1/2 + r s / (n sqrt(p (1 - p)))`` is the chance that the unit is higher at a random row with it
than at one without (ties count half). ``r`` has, unlike the AUC, the same spread by chance for rare and for frequent labels, so
that one threshold serves them all. Spearman's correction for ties is left out for a reason: a neuron that is 0 but for a few
rows would, by it, follow any rare label by chance, and lift the threshold of all the others.

The null keeps everything but the moment: labels within a recording are *shifted* around a circle, so that neighbouring frames stay
as alike as they are; labels of whole recordings *change places* among recordings. The largest ``|r|`` of all units and labels of a
family in each draw gives family-wise p values (Westfall & Young 1993): by chance, any unit at all passes in 5% of families.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

Null = Literal["shift", "exchange"]
#: label columns that are correlated in one matrix product
_COLUMNS = 512


@dataclass(frozen=True, eq=False)
class Selective:
    """How units respond to the labels of one family.

    Attributes:
        labels: their names.
        r: rank correlation ``[unit, label]``, ties uncorrected; NaN where a unit or a label does not vary.
        auc: ``[unit, label]``; NaN for labels with values.
        control: mean ``|r|`` of the same unit with labels that say nothing.
        p: family-wise p value of each.
        threshold: ``|r|`` that any unit of the family reaches by chance in 5% of draws.
    """

    labels: tuple[str, ...]
    r: Float[np.ndarray, "unit label"]
    auc: Float[np.ndarray, "unit label"]
    control: Float[np.ndarray, "unit label"]
    p: Float[np.ndarray, "unit label"]
    threshold: float


def standard_ranks(x: Float[np.ndarray, "row unit"]) -> Float[np.ndarray, "row unit"]:
    """Ranks of each unit over rows, ties sharing theirs, with mean 0; those without ties have standard deviation 1."""
    from scipy.stats import rankdata

    ranks = rankdata(x, axis=0).astype(np.float32)
    ranks -= ranks.mean(axis=0)
    return ranks / np.float32(untied_spread(len(x)))


def untied_spread(n: int) -> float:
    """Standard deviation of the ranks 1 to ``n``."""
    return float(np.sqrt(max(n**2 - 1, 1) / 12))


def standard_labels(labels: Mapping[str, Float[np.ndarray, " row"]]) -> Float[np.ndarray, "row label"]:
    """Labels as columns with mean 0 and standard deviation 1: 0/1 as they are, values as ranks; NaN where one is constant."""
    columns = []
    for value in labels.values():
        column = np.asarray(value, float)
        column = column if is_binary(column) else standard_ranks(column[:, None])[:, 0].astype(float)
        spread = column.std()
        columns.append((column - column.mean()) / spread if spread > 0 else np.full(len(column), np.nan))
    return np.stack(columns, axis=1).astype(np.float32)


def is_binary(label: Float[np.ndarray, " row"]) -> bool:
    """Whether a label is there or not, and has no other values."""
    return bool(np.isin(label, (0.0, 1.0)).all())


def correlations(
    ranks: Float[np.ndarray, "row unit"], labels: Float[np.ndarray, "row column"]
) -> Float[np.ndarray, "unit column"]:
    """``r`` of standard ranks with standard labels."""
    return ranks.T @ labels / len(ranks)


def moved(
    labels: Float[np.ndarray, "row label"], recording: Int[np.ndarray, " row"], null: Null, rng: np.random.Generator
) -> Float[np.ndarray, "row label"]:
    """Labels that say nothing of the moment.

    Args:
        labels: columns.
        recording: of each row; rows of a recording are in order of time.
        null: ``shift`` around a circle within each recording, or ``exchange`` among recordings (each keeps one label).
        rng: draws.
    """
    made = np.empty_like(labels)
    names, first, code = np.unique(recording, return_index=True, return_inverse=True)
    if null == "exchange":
        return labels[first[rng.permutation(len(names))]][code]
    for i in range(len(names)):
        rows = np.flatnonzero(code == i)
        made[rows] = labels[np.roll(rows, int(rng.integers(len(rows))))]
    return made


def selective(
    x: Float[np.ndarray, "row unit"],
    labels: Mapping[str, Float[np.ndarray, " row"]],
    recording: Int[np.ndarray, " row"],
    null: Null,
    *,
    draws: int = 100,
    seed: int = 0,
) -> Selective:
    """How every unit responds to every label of a family.

    Args:
        x: activity of the units.
        labels: name -> 0/1 or values, one per row.
        recording: of each row; rows of a recording are in order of time.
        null: how labels are made to say nothing.
        draws: of the null.
        seed: of the null.
    """
    ranks, columns = standard_ranks(x), standard_labels(labels)
    r = correlations(ranks, columns)
    constant = np.ptp(x, axis=0) == 0
    rng = np.random.default_rng(seed)
    largest, sums = [], np.zeros(r.shape)
    usable = np.nan_to_num(columns)
    per_batch = max(1, _COLUMNS // columns.shape[1])
    for start in range(0, draws, per_batch):
        batch = [moved(usable, recording, null, rng) for _ in range(min(per_batch, draws - start))]
        found = np.abs(correlations(ranks, np.concatenate(batch, axis=1))).reshape(len(r), len(batch), -1)
        largest += found.max(axis=(0, 2)).tolist()
        sums += found.sum(axis=1)
    chance = np.sort(np.array(largest))
    reached = len(chance) - np.searchsorted(chance, np.abs(r) - 1e-7, side="left")
    p = np.where(np.isnan(r), np.nan, (reached + 1) / (draws + 1))
    r = np.where(constant[:, None], np.nan, r)
    return Selective(
        tuple(labels), r, _auc(r, labels), sums / draws, np.where(constant[:, None], np.nan, p),
        float(np.quantile(chance, 0.95)),
    )  # fmt: skip


def _auc(
    r: Float[np.ndarray, "unit label"], labels: Mapping[str, Float[np.ndarray, " row"]]
) -> Float[np.ndarray, "unit label"]:
    auc = np.full(r.shape, np.nan)
    for j, value in enumerate(labels.values()):
        n, share = len(value), float(np.mean(value))
        if is_binary(np.asarray(value, float)) and 0 < share < 1:
            auc[:, j] = 0.5 + r[:, j] * untied_spread(n) / (n * np.sqrt(share * (1 - share)))
    return np.clip(auc, 0.0, 1.0)
