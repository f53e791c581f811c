"""Where a model stops listening: flips of the answer, the listen layer, and the heads that carry the sound to the answer.

**Flip test.** In the run (sound B, context B), exchange the states at the audio positions at layer k for those of a run
whose sound says A. A flip is the answer A: the exchanged sound's label against the text, so that a model that follows the
text never flips.

**Listen layer.** With E_audio(k) the effect of exchanging the audio positions and E_after(k) that of exchanging all
positions after the context, the causal role passes where E_audio falls below E_after. The crossing is interpolated between
layers; a value of 12.5 says between the inputs of layers 12 and 13.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from otoscope.engine.model import Model
from otoscope.engine.patch import Patch
from otoscope.engine.sweep import NOISE, Step
from otoscope.errors import TaskError
from otoscope.methods.grounding import Corners, Grounding, check_choices
from otoscope.methods.grounding_sweep import ALL, CONTROLS, RANDOM_DIRECTION, RANDOM_DONOR, after_context, arm
from otoscope.methods.label_sweep import sweep_labels
from otoscope.methods.resume import fingerprint, identity, kept
from otoscope.stats import Interval, bootstrap_map, clopper_pearson, sign_flip_map
from otoscope.stats.bootstrap import units_of

#: shares of flips that bound the band, as the issue has them: nearly always, nearly never
OFTEN, RARELY = 0.9, 0.1


@dataclass(frozen=True)
class ListenLayer:
    """Where the causal role passes from the audio positions to the positions after the context.

    Attributes:
        layer: the crossing with its bootstrap interval over units; None where no listen layer can be claimed.
        reason: why none is claimed; empty where one is.
        band: the last layer with flips in at least 90% of items, and the first layer with flips in at most 10%.
        flips: share of flips per layer, with exact intervals.
        controls: control -> the same under it.
        chance: share of flips of a model that chooses its answer at random.
        audio, after: mean E_audio and E_after with their intervals, ``[layer, 3]`` (mean, low, high).
    """

    layer: Interval | None
    reason: str
    band: tuple[int | None, int | None]
    flips: list[Interval]
    controls: dict[str, list[Interval]]
    chance: float
    audio: Float[np.ndarray, "layer 3"]
    after: Float[np.ndarray, "layer 3"]

    def table(self) -> list[dict[str, Any]]:
        """One row per layer of plain numbers, ready for CSV or JSON."""
        rows = []
        for k, flip in enumerate(self.flips):
            row = {"layer": k, "flips": flip.value, "flips_low": flip.low, "flips_high": flip.high, "n": flip.n}
            for name, shares in self.controls.items():
                row[f"{name}_flips"] = shares[k].value
            for name in ("audio", "after"):
                row |= dict(zip((name, f"{name}_low", f"{name}_high"), map(float, getattr(self, name)[k])))
            rows.append(row)
        return rows


def flips(grounding: Grounding, variant: str = ALL) -> Bool[np.ndarray, "item layer"]:
    """Which items answer the exchanged sound's label A, at each layer; items that lack the arm are left out.

    Raises:
        TaskError: the denoise direction or the variant was not asked.
    """
    answers, there = _answers(grounding, variant)
    return answers[there] == 0


def flip_rates(grounding: Grounding, variant: str = ALL, level: float = 0.95) -> list[Interval]:
    """Share of flips per layer, with exact (Clopper-Pearson) intervals over items."""
    found = flips(grounding, variant)
    return [clopper_pearson(int(column.sum()), len(column), level) for column in found.T]


def band(rates: Sequence[float]) -> tuple[int | None, int | None]:
    """The last layer that flips at least 90% of items, and the first that flips at most 10%; None where there is none."""
    often = [k for k, rate in enumerate(rates) if rate >= OFTEN]
    rarely = [k for k, rate in enumerate(rates) if rate <= RARELY]
    return (often[-1] if often else None), (rarely[0] if rarely else None)


@dataclass(frozen=True)
class HeldOutBand:
    """A band that was chosen on one half of the units, and flips of the other half there.

    Attributes:
        band: last layer with frequent flips and first layer with rare ones, on the first half.
        last, first: arm (``all tokens`` or a control) -> share of flips of the other half at these two layers, with exact
            intervals; NaN where the band has no such layer.
    """

    band: tuple[int | None, int | None]
    last: dict[str, Interval]
    first: dict[str, Interval]


def held_out_band(grounding: Grounding, seed: int = 0, level: float = 0.95) -> HeldOutBand:
    """Choose the band on a random half of the units and report the flips of the other half, so that choosing costs nothing.

    Raises:
        TaskError: grounding() was called without the denoise direction.
    """
    units = sorted(set(grounding.units))
    chosen = set(np.random.default_rng(seed).permutation(units)[: (len(units) + 1) // 2].tolist())
    mine = np.array([unit in chosen for unit in grounding.units])
    real, there = _answers(grounding, ALL)
    found = band((real[there & mine] == 0).mean(0)) if (there & mine).any() else (None, None)
    shares: list[dict[str, Interval]] = [{}, {}]
    for variant in (ALL, RANDOM_DONOR, RANDOM_DIRECTION):
        if arm("denoise", "audio", variant) not in grounding.answer:
            continue
        answers, there = _answers(grounding, variant)
        others = answers[there & ~mine] == 0
        for share, layer in zip(shares, found):
            hits = 0 if layer is None else int(others[:, layer].sum())
            share[variant] = clopper_pearson(hits, 0 if layer is None else len(others), level)
    return HeldOutBand(found, *shares)


def _answers(grounding: Grounding, variant: str) -> tuple[Int[np.ndarray, "item layer"], Bool[np.ndarray, " item"]]:
    """What the items answer after the exchange, and which of them count."""
    name = arm("denoise", "audio", variant)
    if name not in grounding.answer:
        raise TaskError(
            f"flips need '{name}', which was not asked: call grounding() with both directions and that arm."
        )
    answers = grounding.answer[name]
    return answers, np.asarray((answers[:, 0] >= 0) & ~grounding.alike["audio"])


def listen_layer(grounding: Grounding, *, n_resamples: int = 2000, level: float = 0.95, seed: int = 0) -> ListenLayer:
    """Find the listen layer in the answers of :func:`otoscope.methods.grounding.grounding`.

    Effects are averaged over the directions that were asked. None is claimed where the total effect of the sound (k = 0)
    is within noise, where flips at k = 0 are not above chance, or where the two effects do not cross.

    Raises:
        TaskError: grounding() was called without the denoise direction or without ``after``.
    """
    audio, after = (_mean_effect(grounding, side) for side in ("audio", "after"))
    rates = flip_rates(grounding, level=level)
    controls = {
        name: flip_rates(grounding, name, level)
        for name in CONTROLS
        if arm("denoise", "audio", name) in grounding.answer
    }
    chance = float(grounding.chance.mean())
    missing = np.asarray(np.isnan(audio).any(1) | np.isnan(after).any(1))
    members = units_of(grounding.units, missing, int((~missing).sum()))
    a, b = audio[~missing], after[~missing]
    shown = [_with_interval(x, np.array(grounding.units)[~missing], n_resamples, level, seed) for x in (a, b)]
    value, reason = float("nan"), ""
    if len(members) == 0:
        reason = "no item has two different sounds"
    elif not (shown[0][0, 0] > NOISE and (len(members) < 2 or shown[0][0, 1] > 0)):
        reason = "exchanging the sound at the first layer moves the answer no further than noise"
    elif not rates[0].low > chance:
        reason = (
            f"exchanging the sound at the first layer flips {100 * rates[0].value:.0f}% of the answers, which is not above "
            f"chance ({100 * chance:.0f}%)"
        )
    else:
        value = _crossing(a.mean(0) - b.mean(0))
        reason = (
            "" if np.isfinite(value) else "the effect of the audio positions never falls below that of the later ones"
        )
    layer = None
    if not reason:
        sums = np.stack([(a - b)[m].sum(0) for m in members])
        n = len(members)
        draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_resamples)
        crossings = np.array([_crossing(row) for row in draws @ sums])
        crossings = crossings[np.isfinite(crossings)]
        low, high = np.quantile(crossings, [(1 - level) / 2, (1 + level) / 2]) if n > 1 else (np.nan, np.nan)
        layer = Interval(value, float(low), float(high), n, level)
    return ListenLayer(layer, reason, band([r.value for r in rates]), rates, controls, chance, shown[0], shown[1])


def _mean_effect(grounding: Grounding, side: Any) -> Float[np.ndarray, "item layer"]:
    """Effect of one group of positions, averaged over the directions."""
    return np.mean([grounding.effect(side, direction) for direction in grounding.directions], axis=0)


def _with_interval(
    x: Float[np.ndarray, "item layer"], units: np.ndarray, n_resamples: int, level: float, seed: int
) -> Float[np.ndarray, "layer 3"]:
    if not len(x):
        return np.full((x.shape[1], 3), np.nan)
    return np.stack(bootstrap_map(x, units, n_resamples, level, seed), 1)


def _crossing(difference: Float[np.ndarray, " layer"]) -> float:
    """First place where a difference that starts above 0 reaches 0, interpolated; NaN where it does not."""
    below = np.flatnonzero(difference <= 0)
    if not len(below) or below[0] == 0:
        return float("nan")
    k = int(below[0])
    return float(k - 1 + difference[k - 1] / (difference[k - 1] - difference[k]))


# -- heads -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HeadEffects:
    """Effect of giving one head's output the counterfactual sound's, in the run (A, B): ``m(A, B) - m(patched)``.

    Attributes:
        where: names of the groups of positions.
        layers: decoder layers.
        values: ``[item, where, layer, head]``.
        mean, low, high: over items, ``[where, layer, head]``, with bootstrap intervals over units.
        p: family-wise p value of each cell among all of them (largest cell under flipped signs).
    """

    where: tuple[str, ...]
    layers: tuple[int, ...]
    values: Float[np.ndarray, "item where layer head"]
    mean: Float[np.ndarray, "where layer head"]
    low: Float[np.ndarray, "where layer head"]
    high: Float[np.ndarray, "where layer head"]
    p: Float[np.ndarray, "where layer head"]

    def table(self) -> list[dict[str, Any]]:
        """One row per group, layer and head, the strongest first."""
        cells = sorted(np.ndindex(*self.mean.shape), key=lambda cell: -abs(self.mean[cell]))
        return [
            {
                "where": self.where[w], "layer": self.layers[k], "head": h, "effect": float(self.mean[w, k, h]),
                "low": float(self.low[w, k, h]), "high": float(self.high[w, k, h]), "p": float(self.p[w, k, h]),
            }
            for w, k, h in cells
        ]  # fmt: skip


def heads(
    model: Model,
    items: Sequence[Corners],
    *,
    where: Sequence[str] = ("answer", "question"),
    layers: Sequence[int] | None = None,
    level: float = 0.95,
    seed: int = 0,
    step: Step | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> HeadEffects:
    """Exchange every decoder head's ``z`` at the answer and at the question for that of the counterfactual sound (B, B).

    Args:
        model: any model with a causal decoder in which sound and text are positions.
        items: conflict items; those with two equal sounds are left out.
        where: ``answer`` (the positions that the answer is read at), ``question``, or ``after`` (all after the context).
        layers: decoder layers; None for all.
        level, seed: of the intervals.
        step, progress, options: as in :func:`otoscope.methods.grounding.grounding`.

    Raises:
        TaskError: there is no item with two different sounds, or a group that there is not.
    """
    items = [item for item in items if not item.alike("audio")]
    if not items:
        raise TaskError("no item has two different sounds, so no head can carry their difference: give other items.")
    check_choices("group of positions", where, ("answer", "question", "after"))
    spec = model.stacks["decoder"]
    chosen = tuple(range(spec.n_layers) if layers is None else layers)
    who = identity(model, items[0].ab.inputs) if step else ""
    found = []
    for i, item in enumerate(items):
        item.check_groups("audio", *(name for name in where if name == "question"))

        def patches(n_tail: int, item: Corners = item) -> list[Patch]:
            start = item.ab.groups["answer"][0]
            groups = {
                "answer": tuple(range(start, start + 1 + n_tail)),
                "question": tuple(item.ab.groups.get("question", ())),
                "after": after_context(item.ab, n_tail),
            }
            return [
                Patch(f"decoder.{k}.z", groups[name], heads=(h,))
                for name in where
                for k in chosen
                for h in range(spec.n_heads)
            ]

        def compute(item: Corners = item, patches: Callable[[int], list[Patch]] = patches) -> Any:
            ab = item.ab
            scores = sweep_labels(
                model, ab.inputs, [item.bb.inputs], patches, item.labels[:2], ab.groups["answer"][0], **options
            )
            return (scores.base[0] - scores.base[1]) - (scores.patched[:, 0] - scores.patched[:, 1])

        settings = (where, chosen, item.labels[:2], item.layout)
        key = f"heads-{fingerprint(who, *map(str, settings), item.ab.inputs, item.bb.inputs)}" if step else ""
        found.append(np.asarray(kept(step, key, compute)).reshape(len(where), len(chosen), spec.n_heads))
        if progress:
            progress(i + 1, len(items))
    values, units = np.stack(found), [item.unit for item in items]
    p = sign_flip_map(values, groups=units, floor=NOISE, seed=seed)
    return HeadEffects(tuple(where), chosen, values, *bootstrap_map(values, units, level=level, seed=seed), p)
