"""Where inside the model is the difference between two sounds decided?

Each pair of sounds is patched place by place: the encoder by time and layer, the decoder by component and head at the
position where the answers part. Every map has its nulls (another sound's values, a random direction of equal size,
untrained weights); claims are judged over pairs against thresholds that stand in this file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from otoscope.engine.model import Model
from otoscope.errors import TaskError
from otoscope.methods.contrast import Contrast, contrast
from otoscope.methods.controls import untrained
from otoscope.methods.patching import ActivationPatching, EffectMap, Grid, Mode
from otoscope.models.inputs import Inputs
from otoscope.runs import Claim, Control, Threshold
from otoscope.stats import Interval, bootstrap, clopper_pearson, sign_flip_map
from otoscope.tasks.pair import Pair

#: the peak at the input must lie within the span of the change, give or take this (seconds)
TOLERANCE = 0.1
#: share of pairs whose peak must lie there
PLACE_BAR = 0.9
#: a cell is called significant when chance would make any cell of its map do so less often than this
ALPHA = 0.05


@dataclass(frozen=True)
class PatchConfig:
    """What is asked of every pair.

    Attributes:
        mode: ``denoise`` or ``noise``.
        width: width of a time window, in seconds.
        controls: compute the nulls as well.
        neurons: also patch the neurons of the decoder MLP with the largest effect, one by one.
        seed: seed of every random choice.
    """

    mode: Mode = "denoise"
    width: float = 0.1
    controls: bool = True
    neurons: bool = False
    seed: int = 0


@dataclass(frozen=True)
class PairResult:
    """Everything measured on one pair; maps by name; ``unnatural`` marks cells of the first map that leave natural states."""

    pair: Pair
    contrast: Contrast
    maps: dict[str, EffectMap]
    unnatural: np.ndarray | None = None

    @property
    def input_map(self) -> EffectMap:
        """Time x layer map of the encoder; its first row is the input."""
        return self.maps["encoder_time"]

    def peak(self) -> tuple[float, float]:
        """Window (seconds) of the largest effect at the encoder's input; NaN where there is no effect."""
        row = self.input_map.effects[0]
        if np.isnan(row).all():
            return float("nan"), float("nan")
        edges = self.input_map.edges
        assert edges is not None
        i = int(np.nanargmax(row))
        return float(edges[i]), float(edges[i + 1])

    def in_place(self) -> bool:
        """Whether the middle of that window lies in the span of the change, give or take :data:`TOLERANCE`."""
        start, end = self.pair.span
        return bool(start - TOLERANCE <= float(np.mean(self.peak())) <= end + TOLERANCE)


Notify = Callable[[str], None]


def patch_pair(
    model: Model,
    pair: Pair,
    config: PatchConfig,
    *,
    donor: Pair | None = None,
    answer: str | None = None,
    foil: str | None = None,
    options: dict[str, Any] | None = None,
    notify: Notify = lambda _: None,
) -> PairResult:
    """Localise one pair.

    Args:
        model: Whisper or a CTC model.
        pair: two sounds of equal length.
        config: what to compute.
        donor: another pair whose clean sound serves as random donor (cut or padded to length); without one, the clean
            sound with its time reversed.
        answer, foil: words to compare instead of what the model writes.
        options: for every sweep (``step``, ``progress``, ``memory_gb``).
        notify: told what is being computed.

    Raises:
        TaskError: the model writes the same for both sounds.
    """
    found = contrast(model, pair.clean, pair.corrupt, answer, foil)
    clean, corrupt = found.inputs(model, pair.clean), found.inputs(model, pair.corrupt)
    extra: dict[str, Any] = {}
    if config.controls:
        extra = {"random_donor": _random_donor(model, found, pair, donor), "directions": True, "seed": config.seed}
    patching = ActivationPatching(model, clean, corrupt, found.metric, config.mode, options=options or {}, **extra)
    grids = {
        "encoder_time": patching.time_grid("encoder", config.width),
        "encoder_components": patching.component_grid("encoder"),
    }
    decoder: dict[str, Grid] = {}
    if "decoder" in model.stacks:
        at = [found.position]
        points = ("attn_out", "cross_attn_out", "mlp_out")
        labels = [model.tokenizer.decode([t]) if model.tokenizer else str(t) for t in found.tokens]
        decoder = {
            "decoder_components": patching.component_grid("decoder", at),
            "decoder_self_heads": patching.head_grid("decoder", "z", at),
            "decoder_cross_heads": patching.head_grid("decoder", "cross_z", at),
            "decoder_tokens": patching.position_grid(points, range(found.position + 1), labels),
        }
    grids |= decoder
    notify("patching the encoder by time and layer" + (", the decoder by part, head and token" if decoder else ""))
    maps = dict(zip(grids, patching.run(list(grids.values()))))
    plain = ActivationPatching(model, clean, corrupt, found.metric, config.mode, options=options or {})
    if config.neurons and decoder:
        notify("patching the neurons of one MLP")
        column = maps["decoder_components"].columns.index("mlp_out")
        layer = int(np.nanargmax(maps["decoder_components"].effects[:, column]))
        maps["decoder_neurons"] = plain.by_neuron(f"decoder.{layer}.mlp_post", None, [found.position])
    if config.controls and decoder:
        notify("the decoder again, on untrained weights")
        null = ActivationPatching(
            untrained(model, config.seed), clean, corrupt, found.metric, config.mode, options=options or {}
        )
        for name, other in zip(decoder, null.run(list(decoder.values()))):
            controls = {**maps[name].controls, "untrained": other.values}
            bases = {**maps[name].control_base, "untrained": other.base}
            maps[name] = replace(maps[name], controls=controls, control_base=bases)
    return PairResult(pair, found, maps)


def _random_donor(model: Model, found: Contrast, pair: Pair, donor: Pair | None) -> Inputs:
    clip = pair.clean
    samples = clip.samples[::-1] if donor is None else np.resize(donor.clean.resample(clip.rate).samples, len(clip))
    return found.inputs(
        model, clip.replace(samples=np.ascontiguousarray(samples), words=(), phones=(), name="random donor")
    )


def summarise(model: Model, results: Sequence[PairResult], config: PatchConfig) -> tuple[dict[str, Any], list[Claim]]:
    """Metrics (flat, some with intervals) and claims over all pairs.

    Raises:
        TaskError: there is no result to summarise.
    """
    if not results:
        raise TaskError("no pair could be localised: every pair was transcribed alike on both sides.")
    places = [r.in_place() for r in results if not np.isnan(r.peak()[0])]
    metrics: dict[str, Any] = {"pairs": len(results)}
    start, end = (np.array([r.peak()[i] for r in results]) for i in (0, 1))
    if len(results) == 1:
        metrics |= {"peak_start": float(start[0]), "peak_end": float(end[0])}
    share = clopper_pearson(sum(places), len(places)) if places else Interval(np.nan, np.nan, np.nan, 0)
    metrics["peak_in_span"] = share
    chance = float(np.mean([_chance(r) for r in results]))
    claims = [
        Claim.of(
            "place",
            f"The largest effect at the input lies where the sounds differ, give or take {TOLERANCE * 1000:.0f} ms.",
            Threshold(">=", PLACE_BAR),
            share if len(results) > 1 else Interval(share.value, np.nan, np.nan, 1),
            {"windows by chance": Control.of(chance)},
        )
    ]
    for key, label in (
        ("encoder_time", "encoder"),
        ("decoder_components", "decoder"),
        ("decoder_cross_heads", "heads"),
    ):
        held = [r.maps[key] for r in results if key in r.maps]
        if held:
            metrics |= _peaks(key, held)
            if "random direction" in held[0].controls:
                claims.append(_beyond_random(key, label, held))
    return metrics, claims


def _peaks(key: str, maps: Sequence[EffectMap]) -> dict[str, Any]:
    """Mean effect of the strongest cell of the mean map, with its interval over pairs."""
    if len({m.values.shape for m in maps}) > 1:
        rows = np.stack([np.nanmax(m.effects, axis=1) for m in maps])
        return {f"effect.{key}.{name}": bootstrap(rows[:, i]) for i, name in enumerate(maps[0].rows)}
    stack = np.stack([m.effects for m in maps])
    if np.isnan(stack).all():
        return {}
    row, column = np.unravel_index(np.nanargmax(np.nanmean(stack, axis=0)), stack.shape[1:])
    name = f"{maps[0].rows[row]}.{maps[0].columns[column]}".replace(" ", "")
    return {f"effect.{key}.{name}": bootstrap(stack[:, row, column])}


def _beyond_random(key: str, label: str, maps: Sequence[EffectMap]) -> Claim:
    """The strongest place must move the answer more than a random direction of equal size does anywhere in its map."""
    gap, null, donor = [], [], []
    for m in maps:
        turned = float(np.nanmax(m.control_effects("random direction")[1 if key == "encoder_time" else 0 :]))
        gap.append(float(np.nanmax(m.effects[1 if key == "encoder_time" else 0 :])) - turned)
        null.append(turned)
        if "random donor" in m.controls:
            donor.append(float(np.nanmax(m.control_effects("random donor")[1 if key == "encoder_time" else 0 :])))
    what = {"encoder": "encoder window", "decoder": "decoder component", "heads": "cross-attention head"}[label]
    controls = {"random direction": Control.of(bootstrap(null))}
    if donor:
        controls["random donor"] = Control.of(bootstrap(donor))
    return Claim.of(
        f"beyond_random.{key}",
        f"The strongest {what} moves the answer further than the strongest random direction of equal size.",
        Threshold(">", 0.0),
        bootstrap(gap),
        controls,
        unit="effect",
    )


def _chance(result: PairResult) -> float:
    """Share of windows whose middle would count as in place."""
    edges = result.input_map.edges
    assert edges is not None
    middles = (edges[:-1] + edges[1:]) / 2
    start, end = result.pair.span
    return float(np.mean((middles >= start - TOLERANCE) & (middles <= end + TOLERANCE)))


def significance(maps: Sequence[EffectMap]) -> np.ndarray:
    """Family-wise p value per cell over pairs, of the raw change in the metric; NaN with cells of unequal maps."""
    if len({m.values.shape for m in maps}) > 1:
        return np.full(maps[0].values.shape, np.nan)
    return sign_flip_map(np.stack([m.change for m in maps]), floor=1e-3)


def describe(config: PatchConfig) -> dict[str, Any]:
    """The configuration as plain data."""
    return asdict(config)
