"""Absorption: a feature for "vowel" falls silent on /iy/, because a feature for /iy/ has taken its direction in.

After SAEBench 0.6.0 (Karvonen et al. 2025; Chanin et al. 2024), with a class of phones in place of a first letter. On half
of the recordings a linear probe of the activations learns the class (used where its F1 on held-out recordings is at least
0.6), and k-sparse probes of the codes for k = 1, 2, ... 10 find the class's main features: the first, and each further one
as long as it adds more than 0.03 to F1. On the other half, of the frames of the class that the linear probe gets right, one
is *absorbed* if all main features are 0, and the active feature that writes most along the probe's direction ``w`` lies at
a cosine of at least 0.025 to it and accounts for at least 0.4 of the frame's projection on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from otoscope.methods.probes import fit, fit_sparse
from otoscope.methods.probes.sparse import mean_difference
from otoscope.sae.measures.frames import Sparse, active, csr, numbered
from otoscope.sae.measures.geometry import unit_rows
from otoscope.sae.measures.purity import halves
from otoscope.stats import Interval, bootstrap_sums

#: thresholds of SAEBench 0.6.0
GAIN, MOST_MAIN, GOOD_PROBE, LEAST_COSINE, LEAST_SHARE = 0.03, 10, 0.6, 0.025, 0.4
#: frames that probes are fitted to
_MOST_ROWS = 3000
_PENALTY = (1e-3,)


class Absorption(NamedTuple):
    """``absorbed``: share of the frames asked about; ``missed``: share on which all main features are silent, for whatever
    reason; ``classes``: those whose probe was good enough."""

    absorbed: Interval
    missed: Interval
    classes: tuple[str, ...]


def absorption(
    x: Float[np.ndarray, "frame d"],
    codes: Sparse,
    decoder: Float[np.ndarray, "feature d"],
    utterance: Int[np.ndarray, " frame"],
    concepts: Mapping[str, Bool[np.ndarray, " frame"]],
    known: Bool[np.ndarray, " frame"],
    *,
    most: int = _MOST_ROWS,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Absorption:
    """Absorption over several classes, mean over frames; interval over recordings.

    Args:
        x, codes, utterance: of each frame.
        decoder: what each feature writes.
        concepts: class -> whether a frame is of it.
        known: frames whose classes are known.
        most: frames that probes are fitted to.
        n_resamples, seed: of the interval and of the draws.

    Returns:
        NaN where no class has a linear probe that is good enough.
    """
    number, n = numbered(utterance)
    first, rng = halves(utterance, seed), np.random.default_rng(seed)
    sums, used = np.zeros((n, 3)), []
    mean = np.asarray(x, np.float64).mean(axis=0)
    fit_rows = _some(np.flatnonzero(first & known), most, rng)
    ask = np.flatnonzero(~first & known)
    if not len(fit_rows) or not len(ask):
        return Absorption(bootstrap_sums(sums, _share(0)), bootstrap_sums(sums, _share(1)), ())
    dense = np.asarray(codes[fit_rows].todense(), np.float32)
    for name, inside in concepts.items():
        y = inside[fit_rows]
        if min(y.sum(), (~y).sum()) < 20 or not inside[ask].any():
            continue
        probe = fit(x[fit_rows], y, None, penalties=_PENALTY, balanced=True)
        said = probe.log_probs(x[ask])[:, 1] > np.log(0.5)
        if f1(inside[ask], said) < GOOD_PROBE:
            continue
        used.append(name)
        right = ask[said & inside[ask]]
        main = main_features(dense, y, number[fit_rows], seed)
        silent = np.asarray(active(csr(codes[right][:, main])).sum(axis=1)).ravel() == 0
        absorbed = silent & _taken_in(codes[right], decoder, np.asarray(x[right], np.float64) - mean, probe.weights[0])
        np.add.at(sums, number[right], np.stack([absorbed, silent, np.ones(len(right))], axis=1))
    return Absorption(
        bootstrap_sums(sums, _share(0), n_resamples, seed=seed),
        bootstrap_sums(sums, _share(1), n_resamples, seed=seed),
        tuple(used),
    )


def main_features(
    dense: Float[np.ndarray, "row feature"],
    y: Bool[np.ndarray, " row"],
    group: Int[np.ndarray, " row"],
    seed: int = 0,
) -> Int[np.ndarray, " k"]:
    """The features that carry a class: the best one, and each next one that adds more than 0.03 to F1 on held-out rows."""
    fitted = halves(group, seed + 1)
    if len(np.unique(y[fitted])) < 2 or len(np.unique(y[~fitted])) < 2:
        fitted = np.arange(len(y)) % 2 == 0
    ranked = np.argsort(-mean_difference(dense[fitted], y[fitted], True), kind="stable")[:MOST_MAIN]
    kept, last = 1, -1.0
    for k in range(1, len(ranked) + 1):
        probe = fit_sparse(dense[fitted][:, ranked[:k]], y[fitted], None, k=k, penalties=_PENALTY, balanced=True)
        found = f1(y[~fitted], probe.log_probs(dense[~fitted][:, ranked[:k]])[:, 1] > np.log(0.5))
        if k > 1 and found - last <= GAIN:
            break
        kept, last = k, found
    return ranked[:kept]


def f1(truth: Bool[np.ndarray, " row"], said: Bool[np.ndarray, " row"]) -> float:
    """Harmonic mean of precision and recall; 0 where nothing is hit."""
    hits = float((truth & said).sum())
    return 2 * hits / float(truth.sum() + said.sum()) if hits else 0.0


def _taken_in(
    codes: Sparse,
    decoder: Float[np.ndarray, "feature d"],
    centred: Float[np.ndarray, "frame d"],
    w: Float[np.ndarray, " d"],
) -> Bool[np.ndarray, " frame"]:
    """Whether the feature that writes most along ``w`` accounts for enough of each frame's projection on it."""
    along = np.asarray(decoder, np.float64) @ w
    cosines = unit_rows(decoder) @ (w / np.linalg.norm(w))
    part = csr(codes).astype(np.float64).multiply(along[None]).tocsr()
    largest, which = np.zeros(part.shape[0]), np.zeros(part.shape[0], np.int64)
    for i in range(part.shape[0]):
        entries = slice(part.indptr[i], part.indptr[i + 1])
        if entries.stop > entries.start:
            at = int(part.data[entries].argmax())
            largest[i], which[i] = part.data[entries][at], part.indices[entries][at]
    projection = centred @ w
    return (largest > 0) & (cosines[which] >= LEAST_COSINE) & (largest >= LEAST_SHARE * np.abs(projection))


def _some(rows: Int[np.ndarray, " row"], most: int, rng: np.random.Generator) -> Int[np.ndarray, " row"]:
    return np.sort(rng.permutation(rows)[:most])


def _share(column: int):
    def statistic(total: Float[np.ndarray, " column"]) -> float:
        return float(total[column] / total[2]) if total[2] else float("nan")

    return statistic
