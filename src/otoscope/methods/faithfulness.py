"""Faithfulness of a circuit: how much of the behaviour the places that a method ranks first keep by themselves.

As in the circuit track of MIB (Mueller et al. 2025, arXiv 2504.13151), with places for nodes. Keep the first ``k`` places of
the ranking and put the corrupt run's values into all others at once. With ``m`` the metric, summed over items, ``N`` the
whole model and the empty circuit that with every place corrupt,

    f(k) = (m(k places) - m(empty)) / (m(N) - m(empty)),   k = floor(fraction * number of places)

    CPR = area under f            places ranked by their signed score: what holds the metric up comes first; high is good
    CMD = area under |1 - f|      places ranked by the size of their score; low is good

Both areas are taken as MIB's code takes them: by the trapezoidal rule over the fraction itself (not its logarithm), from
the smallest fraction given to the largest, nothing added below. So with the usual fractions, from .001 to 1, a circuit
that is perfect from the start has a CPR of .999 and a CMD of 0. CPR may exceed that where a part of the model does better
than the whole, which CMD counts as a fault. MIB's table of CPR reads the ranking by signed score and that of CMD the ranking
by size, where a method gives both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float

from otoscope.engine.intervene import Intervention, replace_with
from otoscope.engine.sweep import NOISE
from otoscope.errors import TaskError
from otoscope.methods.localise.case import Case
from otoscope.methods.localise.places import LOGITS, Place
from otoscope.models.site import Site

#: shares of the places that are kept, as in MIB
FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True)
class Faithfulness:
    """How faithful the circuits of one ranking are.

    Attributes:
        fractions: shares of the places that were kept.
        kept: numbers of places, ``[fraction]``.
        f: faithfulness with places ranked by signed score, ``[fraction]``; its area is ``cpr``.
        f_by_size: faithfulness with places ranked by the size of the score; ``cmd`` is the area between it and 1.
        cpr: circuit performance ratio; higher is better.
        cmd: circuit-model distance; lower is better.
        whole, empty: mean metric of the whole model and of the empty circuit, in logits.
    """

    fractions: tuple[float, ...]
    kept: tuple[int, ...]
    f: Float[np.ndarray, " fraction"]
    f_by_size: Float[np.ndarray, " fraction"]
    cpr: float
    cmd: float
    whole: float = field(repr=False)
    empty: float = field(repr=False)


def faithfulness(
    case: Case, scores: Float[np.ndarray, " place"], fractions: Sequence[float] = FRACTIONS
) -> Faithfulness:
    """Cut circuits of growing size and measure what they keep.

    Args:
        case: of the arm ``circuit``: base is the clean run, donor the corrupt one.
        scores: one per place; larger is kept longer. NaN comes last; ties are broken by the case's seed.
        fractions: increasing shares of the places, each in (0, 1].

    Raises:
        TaskError: another arm, places that are no components, another number of scores, or fractions that do not increase.
    """
    _check(case, scores, fractions)
    n = len(case.places)
    items = range(case.n_items)
    whole, empty = sum(case.base_metric(i) for i in items), sum(without(case, i, case.places) for i in items)
    span = whole - empty
    kept = tuple(int(x * n + 1e-9) for x in fractions)

    def curve(values: np.ndarray) -> np.ndarray:
        if abs(span) <= NOISE * case.n_items:
            return np.full(len(kept), np.nan)
        order = _order(values, case.seed)
        known = {0: empty, n: whole}
        for k in kept:
            if k not in known:
                rest = [case.places[j] for j in order[k:]]
                known[k] = sum(without(case, i, rest) for i in items)
        return np.array([(known[k] - empty) / span for k in kept])

    signed = np.asarray(scores, dtype=float)
    f = curve(signed)
    by_size = curve(np.abs(signed)) if (signed < 0).any() else f
    cpr, cmd = area(fractions, f), area(fractions, np.abs(1 - by_size))
    return Faithfulness(tuple(fractions), kept, f, by_size, cpr, cmd, whole / case.n_items, empty / case.n_items)


def area(fractions: Sequence[float], values: Float[np.ndarray, " fraction"]) -> float:
    """Area under a curve by the trapezoidal rule over the fractions, from the first of them to the last."""
    return float((np.diff(fractions) * (values[:-1] + values[1:]) / 2).sum())


@torch.no_grad()
def without(case: Case, i: int, places: Sequence[Place]) -> float:
    """The metric of item ``i`` with the donor's values in all of ``places`` at once."""
    donor, metric = case.donor_values(i), case.metric(i)
    changes = [_change(site, donor[site], part) for site, part in _joined(places)]
    logits = case.model.run(case.inputs(i), changes).logits[0, metric.position]
    return float(logits[metric.answer] - logits[metric.foil])


def _joined(places: Sequence[Place]) -> list[tuple[Site, Place]]:
    """Places of one site as one place, so that each site is changed once."""
    groups: dict[tuple[Site, tuple[int, ...] | None], list[Place]] = {}
    for place in places:
        groups.setdefault((place.site, place.positions), []).append(place)
    joined = []
    for (site, at), those in groups.items():
        heads, channels = (
            None if any(getattr(p, name) is None for p in those) else tuple(x for p in those for x in getattr(p, name))
            for name in ("heads", "channels")
        )
        joined.append((site, Place(str(site), site, heads, channels, at)))
    return joined


def _change(site: Site, value: torch.Tensor, part: Place) -> Intervention:
    return replace_with(site, value, positions=part.positions, heads=part.heads, neurons=part.channels)


def _order(scores: Float[np.ndarray, " place"], seed: int) -> list[int]:
    """Places from the highest score to the lowest, NaN last, ties at random."""
    values = np.where(np.isnan(scores), -np.inf, scores)
    shuffled = np.random.default_rng(seed).permutation(len(values))
    return shuffled[np.argsort(-values[shuffled], kind="stable")].tolist()


def _check(case: Case, scores: Float[np.ndarray, " place"], fractions: Sequence[float]) -> None:
    if case.arm != "circuit" or case.chain or any(place.site == LOGITS for place in case.places):
        raise TaskError(
            f"the case '{case.name}' has no circuit: give one of the arm 'circuit' (clean base, corrupt donor) whose places "
            "are components."
        )
    if np.shape(scores) != (len(case.places),):
        raise TaskError(f"{np.shape(scores)} scores do not rank {len(case.places)} places: give one score per place.")
    if not fractions or any(not 0 < x <= 1 for x in fractions) or any(np.diff(fractions) <= 0):
        raise TaskError(
            f"the fractions {tuple(fractions)} are not usable: give increasing shares in (0, 1], such as {FRACTIONS}."
        )
