"""The grounding coefficient: how far a model's answer follows the sound, and how far the text around it.

Take a sound that says A in a context that says B, written (A, B), and ``m = log p(A) - log p(B)`` over whole labels. At
decoder layer k, exchange the states at the audio positions only for those of the run (B, B), or the states at the context
positions only for those of the run (A, A):

    E_audio(k) = m(A, B) - m((A, B) with audio states of (B, B))
    E_text(k)  = m((A, B) with context states of (A, A)) - m(A, B)
    gc(k)      = E_audio(k) / (E_audio(k) + E_text(k))

with both effects averaged over items first. That is the *noise* direction; the *denoise* direction puts the states of
(A, B) into (B, B) and into (A, A). At k = 0 both directions compare whole runs and agree: the total effect, and the summary
"listens N%". No published measure has this name; the exchange is that of Vig et al. 2020 and Geiger et al. 2021.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from otoscope.engine.model import Model
from otoscope.engine.sweep import NOISE, Step
from otoscope.errors import TaskError
from otoscope.methods.grounding_curve import Curve, ratio_curve
from otoscope.methods.grounding_sweep import ALL, CONTROLS, EQUAL, Direction, Side, arm, ask_item, stranger_of
from otoscope.methods.label_sweep import Label, check_labels
from otoscope.methods.resume import fingerprint, identity, kept
from otoscope.models.prompt import Asked
from otoscope.stats.bootstrap import Interval
from otoscope.tasks.conflict import ConflictItem
from otoscope.tasks.conflict_corners import corners as corner_runs

PER_TOKEN = "per token"


@dataclass(frozen=True)
class Corners:
    """The four runs of one conflict item; the first letter is what the sound says, the second what the context says.

    Attributes:
        ab, bb, aa, ba: one prompt each, of equal length, with every group at the same positions.
        audio_label: tokens of A, as the answer right after the prompt.
        text_label: tokens of B.
        unit: what intervals resample, such as the speaker.
        others: further options that the answer could be.

    Raises:
        TaskError: the runs differ in length or groups, lack audio or context positions, or the labels cannot be told apart.
    """

    ab: Asked
    bb: Asked
    aa: Asked
    ba: Asked
    audio_label: Label
    text_label: Label
    unit: str
    others: tuple[Label, ...] = ()

    def __post_init__(self) -> None:
        check_labels(self.labels)
        self.check_groups("context", "answer")
        for name in ("bb", "aa", "ba"):
            if self._layout(getattr(self, name)) != self.layout:
                raise TaskError(
                    f"the runs ab and {name} of the item '{self.unit}' differ in length or in where their groups are, so "
                    "their states cannot be exchanged: use contexts that differ in the label alone, and labels of equally "
                    "many tokens."
                )

    @classmethod
    def of(cls, model: Model, item: ConflictItem) -> Corners:
        """Ask the model an item in its four corners.

        Raises:
            TaskError: it has no counterfactual sound, its labels collide, or its runs differ in length.
        """
        runs = corner_runs(model, item)
        labels = {label: model.label_tokens(label) for label in item.labels}
        a, b = labels.pop(item.sound_label), labels.pop(item.text_label)
        unit = f"speaker {item.speaker}" if item.speaker else f"item {item.id}"
        return cls(runs["AB"], runs["BB"], runs["AA"], runs["BA"], a, b, unit, tuple(labels.values()))

    def check_groups(self, *names: str) -> None:
        """Raises ``TaskError`` where a group has no positions."""
        for name in names:
            if not self.ab.groups.get(name):
                raise TaskError(
                    f"the item '{self.unit}' has no {name} positions in its prompt, so nothing can be exchanged there: ask "
                    "an audio-LLM, with a sound, a context and a question."
                )

    @property
    def labels(self) -> tuple[Label, ...]:
        """All options: the sound's label, the text's, the others."""
        return (self.audio_label, self.text_label, *self.others)

    @property
    def layout(self) -> tuple:
        """Length and groups: states can be exchanged between runs of equal layout."""
        return self._layout(self.ab)

    @staticmethod
    def _layout(asked: Asked) -> tuple:
        tokens, features = asked.inputs.tokens, asked.inputs.features
        groups = tuple(tuple(asked.groups.get(name, ())) for name in ("audio", "context", "answer"))
        return (*(None if t is None else tuple(t.shape) for t in (tokens, features)), groups)

    def alike(self, side: Side) -> bool:
        """Whether both sounds (or both contexts) are the same, so that there is nothing to exchange."""
        one, other = (self.ab, self.aa) if side == "text" else (self.ab, self.bb)
        at = list(one.groups["context" if side == "text" else "audio"])
        pairs = [(one.inputs.tokens[:, at], other.inputs.tokens[:, at])]  # type: ignore[index]
        if side != "text" and one.inputs.features is not None:
            pairs.append((one.inputs.features, other.inputs.features))  # type: ignore[arg-type]
        return all(torch.equal(a, b) for a, b in pairs)


@dataclass(frozen=True)
class Grounding:
    """Raw answers of all items, and what follows from them. Arms are named by :func:`otoscope.methods.grounding_sweep.arm`.

    Attributes:
        model: its name.
        units: what intervals resample, per item.
        margin: arm -> ``m`` of the patched runs, ``[item, layer]``; NaN where an item lacks the arm.
        answer: arm -> what they answer: 0 the sound's label A, 1 the text's label B, 2 another option, -1 missing.
        corners: ``m`` of the plain runs (A, B), (B, B), (A, A), ``[item, 3]``.
        corner_answers: what they answer.
        n_tokens: ``audio`` and ``text`` -> exchanged positions per item.
        alike: ``audio`` and ``text`` -> items whose two sounds or contexts are the same: nothing to exchange, so no effect.
        chance: per item, 1 / number of options.
    """

    model: str
    units: tuple[str, ...]
    margin: dict[str, Float[np.ndarray, "item layer"]]
    answer: dict[str, Int[np.ndarray, "item layer"]]
    corners: Float[np.ndarray, "item 3"]
    corner_answers: Int[np.ndarray, "item 3"]
    n_tokens: dict[str, Int[np.ndarray, " item"]]
    alike: dict[str, Bool[np.ndarray, " item"]]
    chance: Float[np.ndarray, " item"]

    @property
    def n_layers(self) -> int:
        """Decoder layers."""
        return next(iter(self.margin.values())).shape[1]

    @property
    def directions(self) -> list[Direction]:
        """The directions that were asked."""
        asked = {name.split("/")[0] for name in self.margin}
        return [d for d in ("noise", "denoise") if d in asked]  # type: ignore[misc]

    @property
    def variants(self) -> list[str]:
        """The variants and controls that were asked, and the per-token one that follows from them."""
        asked = list(dict.fromkeys(name.split("/")[2] for name in self.margin))
        return [*asked[:1], PER_TOKEN, *asked[1:]] if ALL in asked[:1] else asked

    def effect(self, side: Side, direction: Direction = "noise", variant: str = ALL) -> Float[np.ndarray, "item layer"]:
        """Effect per item and layer, positive where the exchanged states pull the answer to their own label.

        Raises:
            TaskError: this was not asked.
        """
        name = arm(direction, side, ALL if variant == PER_TOKEN else variant)
        if name not in self.margin:
            raise TaskError(f"'{name}' was not asked: this study has {', '.join(self.margin)}.")
        base = self.corners[:, 0 if direction == "noise" else 2 if side == "text" else 1]
        # the sound's states carry B in the noise direction and A in the denoise one; the context's the other way round
        sign = -1 if (direction == "noise") == (side != "text") else 1
        found = sign * (self.margin[name] - base[:, None])
        found[self.alike["text" if side == "text" else "audio"] & (variant not in CONTROLS)] = np.nan
        return found / self.n_tokens[side][:, None] if variant == PER_TOKEN else found

    def curve(
        self,
        direction: Direction = "noise",
        variant: str = ALL,
        *,
        n_resamples: int = 2000,
        level: float = 0.95,
        seed: int = 0,
    ) -> Curve:
        """gc(k) and its parts, with percentile bootstrap intervals over units; every resample forms the ratio anew."""
        audio, text = (self.effect(side, direction, variant) for side in ("audio", "text"))
        most = max(int(n.max()) for n in self.n_tokens.values()) if variant == PER_TOKEN else 1
        return ratio_curve(audio, text, self.units, NOISE / most, n_resamples, level, seed)

    def summary(self, direction: Direction | None = None, **options: Any) -> Interval:
        """gc at k = 0, the total effect; both directions agree there when all tokens are exchanged."""
        curve = self.curve(direction or self.directions[0], **options)
        level = options.get("level", 0.95)
        return Interval(float(curve.gc[0]), float(curve.low[0]), float(curve.high[0]), curve.n_units, level)

    def listens(self, direction: Direction | None = None, **options: Any) -> str:
        """The summary in words; shares are cut at 0% and 100% here, and nowhere else."""
        value, low, high, _, level, _ = self.summary(direction, **options)
        if np.isnan(value):
            return "neither the sound nor the text moves the answer beyond noise"
        shown = [f"{100 * min(max(x, 0.0), 1.0):.0f}%" for x in (value, low, high) if not np.isnan(x)]
        within = f" ({100 * level:.0f}% interval {shown[1]} to {shown[2]})" if len(shown) == 3 else ""
        return f"listens {shown[0]}{within}"

    def table(self, **options: Any) -> list[dict[str, Any]]:
        """One row per direction, variant (controls included) and layer, of plain numbers, ready for CSV or JSON."""
        rows = []
        for direction in self.directions:
            for variant in self.variants:
                if arm(direction, "audio", ALL if variant == PER_TOKEN else variant) not in self.margin:
                    continue  # a control may have been asked in one direction only
                curve = self.curve(direction, variant, **options)
                for layer in range(self.n_layers):
                    row: dict[str, Any] = {"direction": direction, "variant": variant, "layer": layer}
                    for name in ("gc", "low", "high", *(f"{s}{e}" for s in ("audio", "text") for e in _ENDS)):
                        row[name] = float(getattr(curve, name)[layer])
                    rows.append({**row, "n_items": curve.n_items, "n_units": curve.n_units})
        return rows


_ENDS = ("", "_low", "_high")


def grounding(
    model: Model,
    items: Sequence[Corners],
    *,
    directions: Sequence[Direction] = ("noise", "denoise"),
    variants: Sequence[str] = (ALL,),
    controls: Sequence[str] = (),
    after: bool = True,
    seed: int = 0,
    step: Step | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Grounding:
    """Exchange the states of the sound and of the context at every decoder layer of every item.

    Args:
        model: any model with a causal decoder in which sound and text are positions.
        items: conflict items in their four corners.
        directions: ``noise``, ``denoise`` or both.
        variants: ``all tokens``, and ``equal tokens`` (the same number of positions on both sides, drawn at random); none
            where only controls are wanted.
        controls: any of ``random donor`` (another item's states), ``random direction`` (a change of equal norm and rank)
            and ``same input`` (the run's own states: must give NaN).
        after: also exchange all positions after the context, which :mod:`otoscope.methods.listen_layer` needs.
        seed: of random positions and rotations.
        step: keeps finished items, such as ``Run.step``.
        progress: called with (done, total) items.
        options: passed to every sweep (``memory_gb``, ``method="naive"``).

    Raises:
        TaskError: no items, or a variant, direction or control that there is not.
        KeyboardInterrupt: it was interrupted; finished items are kept where ``step`` is given.
    """
    if not items:
        raise TaskError("there is no item to measure grounding on: give at least one.")
    check_choices("direction", directions, ("noise", "denoise"))
    if variants or not controls:
        check_choices("variant", variants, (ALL, EQUAL))
    if unknown := set(controls) - set(CONTROLS):
        raise TaskError(f"'{unknown.pop()}' is not a control: expected some of {', '.join(CONTROLS)}.")
    for item in items:
        item.check_groups("audio")
    who = identity(model, items[0].ab.inputs) if step else ""
    found = []
    for i, item in enumerate(items):
        stranger = stranger_of(items, i) if "random donor" in controls else None

        def compute(i: int = i, item: Corners = item, stranger: Corners | None = stranger) -> dict[str, Any]:
            return vars(
                ask_item(model, item, stranger, directions, variants, controls, after, seed * 1009 + i, **options)
            )

        runs = [c.inputs for c in (item.ab, item.bb, item.aa)] + ([stranger.ab.inputs] if stranger else [])
        settings = (directions, variants, controls, after, seed, i, item.labels, item.layout)
        found.append(kept(step, f"grounding-{fingerprint(who, *map(str, settings), *runs)}" if step else "", compute))
        if progress:
            progress(i + 1, len(items))
    return collect(model, items, found)


def collect(model: Model, items: Sequence[Corners], found: Sequence[dict[str, Any]]) -> Grounding:
    """The answers of all items (see :class:`otoscope.methods.grounding_sweep.Answers`) as one result."""
    n_layers = model.stacks["decoder"].n_layers
    arms = dict.fromkeys(name for one in found for name in one["margin"])

    def stacked(kind: str, missing: float, name: str) -> np.ndarray:
        return np.stack([np.asarray(one[kind].get(name, np.full(n_layers, missing))) for one in found])

    groups = {"audio": "audio", "text": "context"}
    return Grounding(
        model.name,
        tuple(item.unit for item in items),
        {name: stacked("margin", np.nan, name) for name in arms},
        {name: stacked("answer", -1, name) for name in arms},
        np.stack([np.asarray(one["corners"]) for one in found]),
        np.stack([np.asarray(one["corner_answers"]) for one in found]),
        {side: np.array([max(1, len(item.ab.groups[group])) for item in items]) for side, group in groups.items()},
        {side: np.array([item.alike(side) for item in items]) for side in ("audio", "text")},  # type: ignore[arg-type]
        np.array([1 / len(item.labels) for item in items]),
    )


def check_choices(what: str, given: Sequence[str], known: Sequence[str]) -> None:
    """Raises ``TaskError`` where nothing, or something unknown, was chosen."""
    wrong = [g for g in given if g not in known]
    if wrong or not given:
        raise TaskError(f"'{wrong[0] if wrong else ''}' is not a {what}: expected some of {', '.join(known)}.")
