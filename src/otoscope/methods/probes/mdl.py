"""Minimum description length of the labels given the features, by the on-line code (Voita & Titov 2020, section 2.2).

The labels of a first block are sent by a uniform code, ``t_1 log2 K`` bits. Then, again and again, a probe is fitted on all
rows sent so far and sends the next block: ``L = t_1 log2 K - sum_i log2 p_i(y_{t_i+1 : t_{i+1}} | x)``. A representation from
which little data suffices to read the label is short, one whose label a probe has to memorise is not: unlike the
accuracy, the code length counts the effort. ``compression = n log2 K / L`` is 1 for no information.

Which penalty a probe should have is not known while few labels are sent. So every block is sent by the Bayesian mixture of
probes with each penalty and of the uniform code: ``p(y_1..y_n) = 1/E sum_e prod_i p_e(y_i)``. It is at most ``log2 E`` bits longer
than the best of them in hindsight, so features that say nothing are never much longer than the uniform code. A label that
was not seen yet has no probability, so each probe is itself mixed with the uniform code at a weight of 1 / (1 + rows seen).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from otoscope.errors import TaskError
from otoscope.methods.probes.linear import Probe, fit_path

#: shares of the rows at which a block ends (Voita & Titov 2020)
SHARES = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)
#: ``(x, y) -> probes``
Experts = Callable[[np.ndarray, np.ndarray], Sequence[Probe]]
#: rows below which no probe is fitted
_FEWEST = 16


@dataclass(frozen=True, eq=False)
class CodeLength:
    """The on-line code of some labels.

    Attributes:
        bits: of each row, in the order in which they were given.
        n_labels: different labels, K.
        ends: rows that were sent after each block.
        uniform: bits per row of the uniform code.
    """

    bits: Float[np.ndarray, " row"]
    n_labels: int
    ends: tuple[int, ...]

    @property
    def uniform(self) -> float:
        """Bits per row without any model: ``log2 K``."""
        return float(np.log2(self.n_labels))

    @property
    def total(self) -> float:
        """Bits of all labels."""
        return float(self.bits.sum())

    @property
    def compression(self) -> float:
        """``n log2 K / L``: 1 where the features say nothing, larger where they help."""
        return len(self.bits) * self.uniform / self.total


def online_code(
    x: Float[np.ndarray, "row d"],
    y: Shaped[np.ndarray, " row"],
    groups: Shaped[np.ndarray, " row"] | None = None,
    *,
    shares: Sequence[float] = SHARES,
    experts: Experts | None = None,
    seed: int = 0,
) -> CodeLength:
    """Send the labels of the rows, block after block.

    Args:
        x: features.
        y: labels.
        groups: sent one after the other in random order (speakers), so that a block's speakers are mostly new to its probe.
            None: rows in random order.
        shares: of the rows, at which blocks end; those with too few rows for a probe are joined.
        experts: ``(x, y) -> probes``, always as many; they see nothing but the rows that were sent. By default a linear probe
            per penalty.
        seed: of the order.

    Raises:
        TaskError: one label only.
    """
    x, y = np.asarray(x, np.float32), np.asarray(y)
    labels, codes = np.unique(y, return_inverse=True)
    if len(labels) < 2:
        raise TaskError(f"all {len(y)} rows have one label, which takes no bits: a code needs at least two.")
    order = _order(len(y), groups, seed)
    ends = sorted({end for end in (round(share * len(y)) for share in shares) if end >= _FEWEST} | {len(y)})
    # one label alone fits no probe
    while len(ends) > 1 and len(np.unique(y[order[: ends[0]]])) < 2:
        ends = ends[1:]
    first = ends[0]
    lengths = [
        _block(x, y, order[:start], order[start:end], codes, labels, experts or fit_path)
        for start, end in zip(ends, ends[1:])
    ]
    bits = np.full(len(y), np.log2(len(labels)))
    if lengths:
        bits[order[first:]] = _mixed(np.concatenate(lengths, axis=1))
    return CodeLength(bits, len(labels), tuple(ends))


def _mixed(lengths: Float[np.ndarray, "expert row"]) -> Float[np.ndarray, " row"]:
    """Bits of each row under the Bayesian mixture of codes: how much the mixture's total grows by it."""
    sums = np.cumsum(lengths, axis=1)
    least = sums.min(axis=0)
    totals = least - np.log2(np.exp2(least - sums).mean(axis=0))
    return np.diff(totals, prepend=0.0)


def _order(n: int, groups: Shaped[np.ndarray, " row"] | None, seed: int) -> Int[np.ndarray, " row"]:
    rng = np.random.default_rng(seed)
    if groups is None:
        return rng.permutation(n)
    _, code = np.unique(groups, return_inverse=True)
    rank = rng.permutation(code.max() + 1)[code]
    return np.lexsort((rng.random(n), rank))


def _block(
    x: Float[np.ndarray, "row d"],
    y: Shaped[np.ndarray, " row"],
    seen: Int[np.ndarray, " seen"],
    sent: Int[np.ndarray, " sent"],
    codes: Int[np.ndarray, " row"],
    labels: Shaped[np.ndarray, " label"],
    experts: Experts,
) -> Float[np.ndarray, "expert sent"]:
    """Bits of each label of one block, by the uniform code and by each expert."""
    blank = 1 / (1 + len(seen))
    made = [np.full(len(sent), np.log2(len(labels)))]
    for probe in experts(x[seen], y[seen]):
        probs = np.zeros((len(sent), len(labels)))
        probs[:, np.searchsorted(labels, probe.classes)] = np.exp(probe.log_probs(x[sent]))
        probs = (1 - blank) * probs + blank / len(labels)
        made.append(-np.log2(probs[np.arange(len(sent)), codes[sent]]))
    return np.stack(made)
