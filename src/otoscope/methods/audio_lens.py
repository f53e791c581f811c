"""AudioLens: from which layer on does the logit lens read the right label, and is that due to the sound?

Source: *AudioLens*, arXiv 2506.05140. At layer l, every label of a closed set is scored by the final norm and the
unembedding of ``resid_post`` at the answer's positions. The *information score* is the accuracy of the best label,

    I(l) = share of items whose label with the highest score at layer l is the right one,

and the *critical layer* is the mean of the layers with ``I(l) > (1 + alpha) / |Y|``, weighted by ``I(l)``, alpha = 0.2.

A label can be right without any sound, from the question alone. So every item is also read without its sound, and the
difference is what the sound adds. Labels are scored whole: the source's code reads their first token only, under which
"dog" and "door" may be one label. ``read="first"`` does the same and refuses labels that begin alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float

from otoscope.engine.model import Model
from otoscope.engine.sweep import Step
from otoscope.errors import ModelError, TaskError
from otoscope.methods.label_sweep import Label, check_labels, place_labels, tails, with_tail
from otoscope.methods.resume import fingerprint, identity, kept
from otoscope.models.prompt import Asked
from otoscope.stats import Interval, bootstrap_map
from otoscope.stats.bootstrap import units_of
from otoscope.tasks.conflict import ConflictItem, Context

Read = Literal["whole", "first"]
Run = Literal["heard", "silent"]

#: how far the last layer's lens may be from the model's own logits, relative to the largest of them
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}


@dataclass(frozen=True)
class LensItem:
    """One question with its sound and without it.

    Attributes:
        heard: the prompt with the sound.
        silent: the same prompt with silence, or without any sound.
        labels: the options.
        right: which of them is right.
        unit: what intervals resample, such as the speaker.
    """

    heard: Asked
    silent: Asked
    labels: tuple[Label, ...]
    right: int
    unit: str

    def __post_init__(self) -> None:
        check_labels(self.labels)
        if not 0 <= self.right < len(self.labels):
            raise TaskError(
                f"label {self.right} of '{self.unit}' is not among its {len(self.labels)} labels: count from 0."
            )

    @classmethod
    def of(
        cls,
        model: Model,
        item: ConflictItem,
        context: Context = "neutral",
        without: Literal["silent", "none"] = "silent",
    ) -> LensItem:
        """Ask the model about the clean sound, and again with silence (or no sound at all) in its place."""
        silent = item.clip("silent") if without == "silent" else None
        labels = tuple(model.label_tokens(label) for label in item.labels)
        return cls(
            item.ask(model, "clean", context), model.ask(silent, item.question, item.context(context)), labels,
            item.labels.index(item.sound_label), f"speaker {item.speaker}" if item.speaker else f"item {item.id}",
        )  # fmt: skip


@dataclass(frozen=True)
class AudioLens:
    """What every layer would have answered, with the sound and without.

    Attributes:
        model: its name.
        alpha: how far above chance a layer must be to count, as a share of chance.
        right: ``heard`` and ``silent`` -> whether the lens reads the right label, ``[item, layer]``.
        chance: per item, 1 / number of labels.
        units: what intervals resample, per item.
    """

    model: str
    alpha: float
    right: dict[Run, Bool[np.ndarray, "item layer"]]
    chance: Float[np.ndarray, " item"]
    units: tuple[str, ...]

    @property
    def threshold(self) -> float:
        """Information score above which a layer counts: ``(1 + alpha)`` times chance."""
        return (1 + self.alpha) * float(self.chance.mean())

    def information(self, run: Run = "heard", level: float = 0.95, seed: int = 0) -> Float[np.ndarray, "layer 3"]:
        """Information score per layer with its bootstrap interval over units."""
        return np.stack(bootstrap_map(self.right[run], self.units, level=level, seed=seed), 1)

    def difference(self, level: float = 0.95, seed: int = 0) -> Float[np.ndarray, "layer 3"]:
        """What the sound adds per layer: information with it minus information without it, on the same items."""
        added = self.right["heard"].astype(float) - self.right["silent"]
        return np.stack(bootstrap_map(added, self.units, level=level, seed=seed), 1)

    def critical_layer(
        self, run: Run = "heard", n_resamples: int = 2000, level: float = 0.95, seed: int = 0
    ) -> Interval | None:
        """The critical layer with its bootstrap interval over units; None where no layer is above the threshold."""
        value = self._critical(self.right[run].mean(0))
        if np.isnan(value):
            return None
        members = units_of(self.units, np.zeros(len(self.units), bool), len(self.units))
        n = len(members)
        sums = np.stack([self.right[run][m].sum(0) for m in members]).astype(float)
        sizes = np.array([len(m) for m in members], dtype=float)
        draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_resamples)
        drawn = np.array([self._critical(row) for row in (draws @ sums) / (draws @ sizes)[:, None]])
        drawn = drawn[np.isfinite(drawn)]
        if n < 2 or not len(drawn):
            return Interval(value, float("nan"), float("nan"), n, level)
        low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
        return Interval(value, float(low), float(high), n, level)

    def _critical(self, information: Float[np.ndarray, " layer"]) -> float:
        weights = np.where(information > self.threshold, information, 0.0)
        return float(weights @ np.arange(len(weights)) / weights.sum()) if weights.sum() else float("nan")

    def table(self) -> list[dict[str, Any]]:
        """One row per layer of plain numbers, ready for CSV or JSON."""
        parts = {"heard": self.information("heard"), "silent": self.information("silent"), "added": self.difference()}
        return [
            {
                "layer": k,
                **{f"{name}{end}": float(v[k, i]) for name, v in parts.items() for i, end in enumerate(("", "_low", "_high"))},
                "threshold": self.threshold,
                "n": len(self.units),
            }
            for k in range(len(parts["heard"]))
        ]  # fmt: skip


def audio_lens(
    model: Model,
    items: Sequence[LensItem],
    *,
    alpha: float = 0.2,
    read: Read = "whole",
    step: Step | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> AudioLens:
    """Read the answer's positions of every item by the logit lens, with its sound and without.

    Args:
        model: any model with a decoder.
        items: questions with their labels.
        alpha: how far above chance a layer must be to count.
        read: ``whole`` labels under teacher forcing, or the ``first`` token of each.
        step: keeps finished items, such as ``Run.step``.
        progress: called with (done, total) items.

    Raises:
        TaskError: no items, or labels that begin with the same token where only the first is read.
        ModelError: the logits are not the unembedding of the last layer.
    """
    if not items:
        raise TaskError("there is no item to read: give at least one.")
    who = identity(model, items[0].heard.inputs) if step else ""
    runs: tuple[Run, Run] = ("heard", "silent")
    right: dict[Run, list[np.ndarray]] = {run: [] for run in runs}
    for i, item in enumerate(items):
        for run in runs:
            asked: Asked = getattr(item, run)

            def compute(asked: Asked = asked, item: LensItem = item) -> np.ndarray:
                return lens_scores(model, asked, item.labels, read)

            key = f"lens-{fingerprint(who, read, item.labels, dict(asked.groups), asked.inputs)}" if step else ""
            right[run].append(np.asarray(kept(step, key, compute)).argmax(1) == item.right)
        if progress:
            progress(i + 1, len(items))
    chance = np.array([1 / len(item.labels) for item in items])
    return AudioLens(
        model.name, alpha, {run: np.stack(rows) for run, rows in right.items()}, chance, tuple(i.unit for i in items)
    )


@torch.no_grad()
def lens_scores(
    model: Model, asked: Asked, labels: Sequence[Label], read: Read = "whole"
) -> Float[np.ndarray, "layer label"]:
    """Score of every label at every decoder layer: log-probability under the lens, or the logit of single tokens.

    Raises:
        TaskError: labels that cannot be told apart in this way.
        ModelError: the logits are not the unembedding of the last layer.
    """
    check_labels(labels)
    if read == "first":
        labels = [label[:1] for label in labels]
        if len(set(labels)) < len(labels):
            token = next(label[0] for label in labels if labels.count(label) > 1)
            raise TaskError(
                f"two labels begin with the same token ({token}), so the first token cannot tell them apart: read whole "
                'labels (read="whole").'
            )
    n_layers, start = model.stacks["decoder"].n_layers, asked.groups["answer"][0]
    single = all(len(label) == 1 for label in labels)
    found = np.full((n_layers, len(labels)), np.nan)
    for tail in tails(labels):
        sites = [f"decoder.{layer}.resid_post" for layer in range(n_layers)]
        output = model.run(with_tail(asked.inputs, start, tail.tokens), capture_sites=sites)
        row, offset, token, cell = place_labels([(0, tail)], [labels])
        for layer, site in enumerate(sites):
            logits = model.adapter.unembed(model.adapter.final("decoder", output.cache[site][:, start:]))
            if layer == n_layers - 1:
                _check(model, logits, output.logits[:, start:])
            # half precision is too coarse for sums over the vocabulary
            logits = logits if logits.dtype == torch.float64 else logits.float()
            scores = logits if single else logits.log_softmax(-1)
            summed = torch.zeros(len(labels), dtype=scores.dtype).index_add(0, cell, scores[row, offset, token].cpu())
            found[layer, list(tail.labels)] = summed[list(tail.labels)].double().numpy()
    return found


def _check(model: Model, lens: torch.Tensor, own: torch.Tensor) -> None:
    away = float((lens - own).abs().max())
    if away > _TOLERANCE.get(own.dtype, 5e-2) * max(1.0, float(own.abs().max())):
        raise ModelError(
            f"the logits of {model.name} are not the unembedding of its last layer (they differ by {away:.2g}), so a lens "
            "would misread every layer: use a model without scaling or capping of its logits."
        )
