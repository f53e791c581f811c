"""Erasure and steering: what the best features of a label do to it when they are taken away or turned up.

On half of the recordings a linear probe of the *unedited* activations learns one value of a label against the rest, and the
``k`` features whose means are highest above those of the rest are chosen. On the other half the features' codes are
multiplied by a factor (0 erases), the dictionary's error kept, and the probe is asked again. With ``a`` its balanced accuracy,

    ``erased = (a(1) - a(0)) / (a(1) - 0.5)``: 0 where nothing is lost, 1 where the probe is left at chance, above 1 below it.

The probe is not fitted again: this asks whether the features carry what a reader of the activations uses, not whether
anything is left for another reader. ``inserted`` is the same with the reconstruction in place of the activations, and the null
takes ``k`` features that are active about as often.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from otoscope.methods.probes import fit
from otoscope.sae.edits import matched, scaled
from otoscope.sae.measures.frames import Frames, Label, Reading, numbered
from otoscope.sae.measures.purity import halves
from otoscope.sae.measures.sparsity import firing_rates
from otoscope.stats import Interval, bootstrap_sums

#: how many features are edited, and by which factors a curve multiplies their codes
K, FACTORS = 5, (0.0, 0.5, 1.0, 2.0, 4.0)
#: rows that the probe is fitted to and asked about; fewest of either side; least accuracy that can be erased
MOST_ROWS, FEWEST_ROWS, LEAST = 3000, 20, 0.7
_PENALTY = (1e-3,)


class Chosen(NamedTuple):
    """One value of a label and what tells it: its ``label`` and ``value``, the ``features`` (best first) and the ``null``'s."""

    label: str
    value: str
    features: Int[np.ndarray, " k"]
    null: Int[np.ndarray, " k"]


class Point(NamedTuple):
    """One edit: what was done (``own``, ``null``, ``inserted``) by which factor, the probe's ``accuracy`` after it, and the share
    of the rows that it calls the value (``called``)."""

    arm: str
    factor: float
    accuracy: Interval
    called: float


@dataclass(frozen=True, eq=False)
class Curve:
    """A label's curve.

    Attributes:
        chosen: what is edited.
        points: every edit; ``own`` by factor 1 is no edit.
        erased: share of the probe's advantage that erasing takes.
        erased_null: the same for the null's features.
    """

    chosen: Chosen
    points: tuple[Point, ...]
    erased: Interval
    erased_null: Interval


def erasure(
    frames: Frames,
    reading: Reading,
    label: Label,
    name: str,
    *,
    value: int | None = None,
    k: int = K,
    factors: Sequence[float] = FACTORS,
    most: int = MOST_ROWS,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Curve | None:
    """The curve of one value of a label.

    Args:
        frames, reading: activations and what was made of them; it needs a decoder.
        label: of the frames.
        name: of the label.
        value: which of its values; the commonest by default.
        k: how many features are edited.
        factors: of the curve; 0 and 1 are always there.
        most: frames that the probe is fitted to, and frames that it is asked about.
        n_resamples, seed: of the intervals and draws.

    Returns:
        None where the value cannot be told from the activations on held-out recordings (balanced accuracy below 0.7).
    """
    known = np.flatnonzero(label.codes >= 0)
    if reading.decoder is None or not len(known):
        return None
    value = int(np.bincount(label.codes[known]).argmax()) if value is None else value
    # a voice that was learnt must not tell the label of a recording; a speaker's own name can only be told by it
    apart = label.of_recordings and frames.speaker is not None and name != "speaker"
    first = halves(frames.speaker if apart else frames.utterance, seed)  # type: ignore[arg-type]
    rng = np.random.default_rng(seed)
    learn, ask = (np.sort(rng.permutation(known[first[known] == side])[:most]) for side in (True, False))
    y, truth = label.codes[learn] == value, label.codes[ask] == value
    if min(y.sum(), (~y).sum(), truth.sum(), (~truth).sum()) < FEWEST_ROWS:
        return None
    probe = fit(frames.x[learn], y, None, penalties=_PENALTY, balanced=True)
    unit, n = numbered(frames.utterance[ask])

    def hits(x: Float[np.ndarray, "frame d"]) -> Float[np.ndarray, "recording 4"]:
        margin = probe.log_probs(x)[:, 1] - np.log(0.5)
        said = margin > 0
        sums = np.zeros((n, 4))
        np.add.at(sums, unit, np.stack([truth & said, truth, ~truth & ~said, ~truth], axis=1))
        return sums

    plain = hits(frames.x[ask])
    if not _accuracy(plain.sum(0)) >= LEAST:
        return None
    features = best_features(reading, learn, y, k)
    null = matched(firing_rates(reading.codes), features, seed)
    codes, rebuilt = reading.codes[ask], reading.rebuilt[ask]
    points, by_arm = [], {}
    for arm, which, x in (
        ("own", features, frames.x[ask]),
        ("null", null, frames.x[ask]),
        ("inserted", features, rebuilt),
    ):
        for factor in sorted({0.0, 1.0, *factors}):
            sums = hits(scaled(x, codes, reading.decoder, which, factor))
            by_arm[arm, factor] = sums
            total = sums.sum(0)
            called = float((total[0] + total[3] - total[2]) / (total[1] + total[3]))
            points.append(Point(arm, factor, bootstrap_sums(sums, _accuracy, n_resamples, seed=seed), called))
    both = [np.stack([plain, by_arm[arm, 0.0]], axis=1) for arm in ("own", "null")]
    erased, erased_null = (bootstrap_sums(b, _erased, n_resamples, seed=seed) for b in both)
    return Curve(Chosen(name, label.names[value], features, null), tuple(points), erased, erased_null)


def best_features(
    reading: Reading, rows: Int[np.ndarray, " row"], y: Bool[np.ndarray, " row"], k: int = K
) -> Int[np.ndarray, " k"]:
    """The ``k`` features whose means in the rows of a value lie highest above those in the rest, best first."""
    dense = np.asarray(reading.codes[rows].todense(), np.float32)
    return np.argsort(dense[~y].mean(0) - dense[y].mean(0), kind="stable")[:k]


def _accuracy(total: Float[np.ndarray, " 4"]) -> float:
    if not total[1] or not total[3]:
        return float("nan")
    return float((total[0] / total[1] + total[2] / total[3]) / 2)


def _erased(total: Float[np.ndarray, "2 4"]) -> float:
    before, after = _accuracy(total[0]), _accuracy(total[1])
    return (before - after) / (before - 0.5) if before > 0.5 else float("nan")
