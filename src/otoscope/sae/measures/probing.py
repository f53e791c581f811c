"""Sparse probing: how well the best 1, 2 or 5 features alone tell a label (Gurnee et al. 2023; SAEBench 0.6.0).

For each value of a label against all others: features are ranked by the absolute difference of their means, a logistic
regression sees the first k, and balanced accuracy is measured on recordings (or speakers) that it never saw. Chance is 0.5
however rare a value is. Labels of recordings (sex, speaker) are told from the mean code of a recording, labels of frames
(phone, manner, voicing, word) from a frame's.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from otoscope.errors import TaskError
from otoscope.methods.probes import disjoint_folds, fit_sparse, mean_difference
from otoscope.methods.probes.splits import Fold
from otoscope.sae.measures.frames import Label, Sparse, membership, numbered
from otoscope.stats import Interval, bootstrap_sums

#: how many features a probe sees
KS = (1, 2, 5)
#: frames that probes are fitted to and tested on, at most; a value needs at least the last number of rows
MOST_ROWS, FEWEST_ROWS = 4000, 20
#: few features need no search for a penalty
_PENALTY = (1e-3,)


def sparse_probing(
    codes: Sparse,
    label: Label,
    utterance: Int[np.ndarray, " frame"],
    speaker: Int[np.ndarray, " frame"] | None = None,
    *,
    ks: Sequence[int] = KS,
    most: int = MOST_ROWS,
    fewest: int | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict[int, Interval]:
    """Balanced accuracy of k-sparse probes, mean over the values of a label; intervals over the recordings tested.

    Args:
        codes: ``[frame, feature]``.
        label: of the frames; those with code -1 are left out.
        utterance: recordings, whole ones of which are held out.
        speaker: speakers, whole ones of which are held out instead, where the label is not the speaker's own name.
        ks: numbers of features.
        most: rows at most, drawn at random.
        fewest: values with fewer rows are left out; by default 20 frames, or 2 recordings.
        n_resamples, seed: of the interval, and of the draws.

    Returns:
        k -> interval; NaN where fewer than two values have rows enough, or no split holds both sides.
    """
    hits = probe_hits(codes, label, utterance, speaker, ks=ks, most=most, fewest=fewest, seed=seed)
    return {k: bootstrap_sums(hits[k], mean_balanced_accuracy, n_resamples, seed=seed) for k in ks}


def probe_hits(
    codes: Sparse,
    label: Label,
    utterance: Int[np.ndarray, " frame"],
    speaker: Int[np.ndarray, " frame"] | None = None,
    *,
    ks: Sequence[int] = KS,
    most: int = MOST_ROWS,
    fewest: int | None = None,
    seed: int = 0,
    every_fold: bool = False,
) -> dict[int, Float[np.ndarray, "recording value 4"]]:
    """What the probes of :func:`sparse_probing` get right in each recording, for comparing dictionaries on the same recordings.

    Args:
        codes, label, utterance, speaker, ks, most, fewest, seed: as there; which rows are drawn and held out depends on the
            labels and the seed alone.
        every_fold: hold every recording out once, not only a third of them where rows are frames.

    Returns:
        k -> for each recording and value: rows of it that are told as such, rows of it, other rows told as such, other rows;
        zeros where nothing can be probed.
    """
    rows, values, unit, group = _rows(codes, label, utterance, speaker, most, seed)
    fewest = fewest or (2 if label.of_recordings else FEWEST_ROWS)
    found, counts = np.unique(values, return_counts=True)
    kept = found[counts >= fewest]
    chosen = np.isin(values, kept)
    nothing = {k: np.zeros((1, 1, 4)) for k in ks}
    if len(kept) < 2:
        return nothing
    rows, values, unit, group = rows[chosen], values[chosen], unit[chosen], group[chosen]
    folds = _folds(values, group, max(2, min(5, int(counts.max()))) if label.of_recordings else 3, seed)
    if not folds:
        return nothing
    # every recording is needed where a row is a recording; one held-out third of the frames is enough
    folds = folds if label.of_recordings or every_fold else folds[:1]
    unit, n_units = numbered(unit)
    targets = kept[1:] if len(kept) == 2 else kept
    sums = {k: np.zeros((n_units, len(targets), 4)) for k in ks}
    for train, test in folds:
        for i, value in enumerate(targets):
            inside, truth = values[train] == value, values[test] == value
            if inside.all() or not inside.any():
                continue
            ranked = np.argsort(-mean_difference(rows[train], inside, True), kind="stable")
            for k in ks:
                best = ranked[:k]
                probe = fit_sparse(rows[train][:, best], inside, None, k=k, penalties=_PENALTY, balanced=True)
                said = probe.log_probs(rows[test][:, best])[:, 1] > np.log(0.5)
                hits = np.stack([truth & said, truth, ~truth & ~said, ~truth], axis=1)
                np.add.at(sums[k][:, i], unit[test], hits)
    return sums


def _rows(
    codes: Sparse,
    label: Label,
    utterance: Int[np.ndarray, " frame"],
    speaker: Int[np.ndarray, " frame"] | None,
    most: int,
    seed: int,
) -> tuple[Float[np.ndarray, "row feature"], np.ndarray, np.ndarray, np.ndarray]:
    """Features, value, recording and what is held out together, of every row."""
    if label.of_recordings:
        number, n = numbered(utterance)
        first = np.unique(number, return_index=True)[1]
        known = np.flatnonzero(label.codes[first] >= 0)
        means = membership(number, n) @ codes
        means = np.asarray(means[known].todense()) / np.bincount(number)[known, None]
        first = first[known]
        # a speaker cannot be held out and asked for; another label of recordings must not be told by the voice
        own = speaker is not None and not _same(label.codes[first], speaker[first])
        return means, label.codes[first], number[first], speaker[first] if own else number[first]  # type: ignore[index]
    known = np.flatnonzero(label.codes >= 0)
    if len(known) > most:
        known = np.sort(np.random.default_rng(seed).permutation(known)[:most])
    group = utterance if speaker is None or len(np.unique(speaker[known])) < 3 else speaker
    return np.asarray(codes[known].todense(), np.float32), label.codes[known], utterance[known], group[known]


def _folds(values: np.ndarray, group: np.ndarray, n: int, seed: int) -> list[Fold]:
    """Folds that hold whole groups out; none where a value has nothing to hold out."""
    with warnings.catch_warnings():
        # a value with fewer recordings than folds is not tested in some of them
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        try:
            return disjoint_folds(values, group, n, seed)
        except TaskError:
            return []


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two labels cut the rows in the same way."""
    return len(np.unique(np.stack([a, b]), axis=1).T) == len(np.unique(a)) == len(np.unique(b))


def mean_balanced_accuracy(total: Float[np.ndarray, "value 4"]) -> float:
    """Mean over the values of a label of the balanced accuracy, from the totals of :func:`probe_hits`."""
    there = (total[:, 1] > 0) & (total[:, 3] > 0)
    if not there.any():
        return float("nan")
    part = total[there]
    return float(((part[:, 0] / part[:, 1] + part[:, 2] / part[:, 3]) / 2).mean())
