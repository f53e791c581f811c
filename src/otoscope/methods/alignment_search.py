"""Distributed alignment search: which subspace of the states carries what the sound says, or what the text says?

At layer k, an orthonormal basis Q of r directions is learned, shared by all positions of a group. Only that subspace is
exchanged between two runs,

    x_base + (x_source - x_base) Q Q',

and Q is trained so that the answer becomes the source's label (Geiger et al. 2024, arXiv 2303.02536). *Interchange
accuracy* (IIA) is the share of held-out exchanges after which it is. With c the share that answers so without any exchange,

    corrected(side) = max(0, (IIA - c) / (1 - c)),    gc_das(k) = corrected(audio) / (corrected(audio) + corrected(text)).

An accuracy is coarse, and 0 where an exchange moves the answer without turning it. So gc_das is also formed of *effects*: how
far the exchange moves ``log p(wanted label) - log p(base's label)``, in the units of :mod:`otoscope.methods.grounding`.

Bases are runs whose sound and text agree, and the exchanged side says the other label: text cannot pass for sound.

A free Q can do what no exchange of whole states does: it turns the difference into directions that never vary at these
positions but that later layers read (the subspace illusion, Makelov et al. 2023, arXiv 2311.17030). So Q is kept inside the
leading directions of natural differences there, and the control ``whole state`` shows what exchanging everything does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from otoscope.engine.model import Model
from otoscope.engine.sweep import NOISE, Step
from otoscope.errors import TaskError
from otoscope.methods.controls import untrained
from otoscope.methods.grounding import Corners, Grounding, check_choices
from otoscope.methods.grounding_curve import Curve, ratio_curve
from otoscope.methods.interchange import PairSide, pairs
from otoscope.methods.resume import fingerprint, identity, kept
from otoscope.methods.subspace import Kind, Search, Training
from otoscope.stats import Interval, clopper_pearson, spearman
from otoscope.stats.bootstrap import units_of
from otoscope.stats.tests import Correlation

SIDES: tuple[PairSide, ...] = ("audio", "text")
CONTROLS: tuple[Kind, ...] = ("whole state", "random labels", "random subspace", "untrained")


@dataclass(frozen=True)
class Alignment:
    """Held-out exchanges of every side, kind and layer.

    Attributes:
        model: its name.
        layers: where exchanges were made.
        training: how.
        hits: ``side/kind`` -> whether the answer became the wanted label, ``[layer, pair]``.
        plain: ``side/kind`` -> whether it was that label without an exchange, ``[pair]``.
        effects: ``side/kind`` -> how far the exchange moved the wanted label against the base's, ``[layer, pair]``.
        units: unit of each held-out pair, the same on both sides.
        n_train: training pairs per side.
    """

    model: str
    layers: tuple[int, ...]
    training: Training
    hits: dict[str, Bool[np.ndarray, "layer pair"]]
    plain: dict[str, Bool[np.ndarray, " pair"]]
    effects: dict[str, Float[np.ndarray, "layer pair"]]
    units: tuple[str, ...]
    n_train: int

    def iia(self, side: PairSide, kind: Kind = "learned", level: float = 0.95) -> list[Interval]:
        """Interchange accuracy per layer, with exact intervals over held-out pairs."""
        return [clopper_pearson(int(row.sum()), len(row), level) for row in self.hits[f"{side}/{kind}"]]

    def corrected(self, side: PairSide, kind: Kind = "learned") -> Float[np.ndarray, " layer"]:
        """Interchange accuracy beyond what no exchange gives: 0 for nothing gained, 1 for all that could be."""
        name = f"{side}/{kind}"
        return _corrected(self.hits[name].mean(1), self.plain[name].mean())

    def gc(
        self, kind: Kind = "learned", n_resamples: int = 2000, level: float = 0.95, seed: int = 0
    ) -> Float[np.ndarray, "layer 3"]:
        """gc_das with its bootstrap interval over units; NaN where neither side gains more than chance would."""
        members = units_of(self.units, np.zeros(len(self.units), bool), len(self.units))
        n = len(members)
        member = np.zeros((n, len(self.units)))
        for i, index in enumerate(members):
            member[i, index] = 1.0
        draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_resamples) @ member
        weights = draws / draws.sum(1, keepdims=True)
        shares = [(1 - level) / 2, (1 + level) / 2]
        found = np.full((len(self.layers), 3), np.nan)
        for k in range(len(self.layers)):
            values, gains = [], []
            for side in SIDES:
                hits, plain = self.hits[f"{side}/{kind}"][k].astype(float), self.plain[f"{side}/{kind}"].astype(float)
                values.append((_corrected(hits.mean(), plain.mean()), _corrected(weights @ hits, weights @ plain)))
                gains.append(np.quantile(weights @ (hits - plain), shares[0]) > 0)
            (audio, audios), (text, texts) = values
            if any(gains) and audio + text > 0:
                with np.errstate(invalid="ignore", divide="ignore"):
                    ends = np.nanquantile(audios / (audios + texts), shares)
                found[k] = audio / (audio + text), *ends
        return found

    def curve(self, kind: Kind = "learned", **options: Any) -> Curve:
        """gc_das of effects, with its bootstrap interval over units; NaN where both sides do nothing beyond noise."""
        audio, text = (self.effects[f"{side}/{kind}"].T for side in SIDES)
        return ratio_curve(audio, text, self.units, NOISE, **options)

    def agreement(self, grounding: Grounding, **options: Any) -> Correlation:
        """Spearman's rho over layers of gc_das (of effects) and of the patching estimate; layers without one are left out."""
        return spearman(self.curve().gc, grounding.curve(**options).gc[list(self.layers)])

    def table(self) -> list[dict[str, Any]]:
        """One row per layer: accuracies of both sides under every kind, what no exchange gives, and gc_das."""
        gc, by_effect, rows = self.gc(), self.curve(), []
        for k, layer in enumerate(self.layers):
            row: dict[str, Any] = {"layer": layer, **dict(zip(("gc", "low", "high"), map(float, gc[k])))}
            row |= {f"{name} of effects": float(getattr(by_effect, name)[k]) for name in ("gc", "low", "high")}
            for name, hits in self.hits.items():
                row |= {f"{name} iia": float(hits[k].mean()), f"{name} plain": float(self.plain[name].mean())}
            rows.append({**row, "n_pairs": len(self.units), "n_train": self.n_train, "rank": self.training.rank})
        return rows


def das(
    model: Model,
    items: Sequence[Corners],
    layers: Sequence[int],
    *,
    training: Training | None = None,
    controls: Sequence[Kind] = (),
    n_train: int = 48,
    n_test: int = 48,
    seed: int = 0,
    step: Step | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Alignment:
    """Learn and test a subspace for the sound and one for the text at every layer asked for.

    Args:
        model: any model with a causal decoder in which sound and text are positions, in float32.
        items: conflict items; each gives two exchanges per side. Those with equal sounds or contexts are left out.
        layers: decoder layers.
        training: how; None for the defaults.
        controls: ``whole state`` (everything is exchanged: what the subspace should not exceed), ``random labels`` (trained
            and tested on labels drawn at random: about half right), ``random subspace`` (of the same rank, not trained),
            ``untrained`` (the same training on a model with fresh weights).
        n_train, n_test: pairs per side at most; units are never on both sides of the split.
        seed: of the split, the order of training, and the random draws.
        step: keeps finished (side, layer, kind) results, such as ``Run.step``.
        progress: called with (done, total) such results.

    Raises:
        TaskError: there are no layers or too few units, a control that there is not, or a rank below 1.
        ModelError: the decoder attends to an encoder.
    """
    how = training or Training()
    spec = model.stacks["decoder"]
    if controls:
        check_choices("control", controls, CONTROLS)
    check_choices("decoder layer", [str(k) for k in layers], [str(k) for k in range(spec.n_layers)])
    if how.rank < 1:
        raise TaskError(f"rank {how.rank} makes no subspace: expected at least 1.")
    items = [item for item in items if not (item.alike("audio") or item.alike("text"))]
    train, test = _split(items, n_train // 2, n_test // 2, seed)
    kinds: list[Kind] = ["learned", *controls]
    who = identity(model, items[0].ab.inputs) if step else ""
    asked = [c.inputs for i in (*train, *test) for c in (items[i].ab, items[i].bb, items[i].aa, items[i].ba)]
    data = fingerprint(who, how, seed, train, test, [item.labels for item in items], *asked) if step else ""
    searches: dict[bool, Search] = {}
    hits: dict[str, list[np.ndarray]] = {}
    plain: dict[str, np.ndarray] = {}
    effects: dict[str, list[np.ndarray]] = {}
    total, done = len(kinds) * len(layers) * len(SIDES), 0
    for kind in kinds:
        fresh = kind == "untrained"
        for side in SIDES:
            for layer in layers:

                def compute(kind: Kind = kind, side: PairSide = side, layer: int = layer, fresh: bool = fresh) -> Any:
                    if fresh not in searches:
                        searched = untrained(model, seed) if fresh else model
                        searches[fresh] = Search(searched, items, [*train, *test], layers, how, seed)
                    return searches[fresh].run(side, layer, kind, train, test)

                found = kept(step, f"das-{data}-{kind}-{side}-{layer}", compute)
                hits.setdefault(f"{side}/{kind}", []).append(np.asarray(found["hits"], bool))
                plain[f"{side}/{kind}"] = np.asarray(found["plain"], bool)
                effects.setdefault(f"{side}/{kind}", []).append(np.asarray(found["effects"]))
                done += 1
                if progress:
                    progress(done, total)
    units = tuple(items[pair.item].unit for pair in pairs("audio", test))
    return Alignment(
        model.name,
        tuple(layers),
        how,
        {name: np.stack(v) for name, v in hits.items()},
        plain,
        {name: np.stack(v) for name, v in effects.items()},
        units,
        2 * len(train),
    )


def _corrected(iia: Any, plain: Any) -> Any:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(plain < 1, np.maximum(0, (iia - plain) / (1 - plain)), np.nan)


def _split(items: Sequence[Corners], n_train: int, n_test: int, seed: int) -> tuple[list[int], list[int]]:
    """Items to train on and to test on, with no unit on both sides."""
    units = sorted({item.unit for item in items})
    if len(units) < 2:
        raise TaskError(
            f"training and testing need items of at least two units (speakers), not {len(units)}: give more."
        )
    order = np.random.default_rng((seed, 0)).permutation(units).tolist()
    shares = n_train / max(1, n_train + n_test)
    cut = min(max(1, round(len(units) * shares)), len(units) - 1)
    chosen = set(order[:cut])
    train = [i for i, item in enumerate(items) if item.unit in chosen][:n_train]
    test = [i for i, item in enumerate(items) if item.unit not in chosen][:n_test]
    if not train or not test:
        raise TaskError("no pair is left to train or to test on: give more items, or larger n_train and n_test.")
    return train, test
