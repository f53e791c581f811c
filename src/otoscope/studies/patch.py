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
from torch import Tensor

from otoscope.audio.clip import Clip
from otoscope.engine.capture import capture_until
from otoscope.engine.model import Model
from otoscope.engine.patch import Patch
from otoscope.engine.sweep import Observe
from otoscope.errors import TaskError
from otoscope.methods.contrast import Contrast, contrast
from otoscope.methods.controls import untrained
from otoscope.methods.natural import Natural
from otoscope.methods.patching import ActivationPatching, EffectMap, Grid, Mode
from otoscope.models.inputs import Inputs
from otoscope.models.site import Site
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
        encoder_parts: also patch each part of each encoder layer, at all frames.
        seed: seed of every random choice.
    """

    mode: Mode = "denoise"
    width: float = 0.1
    controls: bool = True
    neurons: bool = False
    encoder_parts: bool = True
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
    natural: Natural | None = None,
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
        natural: natural states of the last encoder layer; cells of the time map whose patched run leaves them are flagged.
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
    observe = None if natural is None else _departure(model, natural)
    patching = ActivationPatching(
        model, clean, corrupt, found.metric, config.mode, observe=observe, options=options or {}, **extra
    )
    # the encoder is the long part: one null there, all of them in the decoder
    grids = {
        "encoder_time": replace(patching.time_grid("encoder", config.width), controls=("random direction",)),
    }
    if config.encoder_parts:
        parts = replace(patching.component_grid("encoder"), controls=("random direction",))
        grids["encoder_components"] = parts
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
    flagged = maps["encoder_time"].observed
    return PairResult(pair, found, maps, None if flagged is None else np.nan_to_num(flagged) > 0)


class NaturalStates:
    """What plain runs put into the last encoder layer: captured once, fitted for each pair on the sounds of the others."""

    def __init__(self, model: Model, pairs: Sequence[Pair]):
        self.site = _last_encoder_site(model)
        self.states = (
            [[self._of(model, clip) for clip in (p.clean, p.corrupt)] for p in pairs] if len(pairs) > 3 else []
        )

    def _of(self, model: Model, clip: Clip) -> np.ndarray:
        inputs = model.inputs(clip)
        valid = model.clock("encoder", inputs.n_samples[0]).n_valid
        value = capture_until(model.adapter, inputs, [Site.parse(self.site)])[self.site]
        return value[0, :valid].double().cpu().numpy()

    def without(self, pair: int) -> Natural | None:
        """Natural states of all pairs but one; None where there are too few pairs to say what is natural."""
        others = [clip for i, clips in enumerate(self.states) if i != pair for clip in clips]
        return Natural.of({self.site: others}) if others else None


def _last_encoder_site(model: Model) -> str:
    return f"encoder.{model.stacks['encoder'].n_layers - 1}.resid_post"


def _departure(model: Model, natural: Natural) -> Observe:
    """1 where a patched run leaves the natural states of the last encoder layer at the patched frames, else 0."""
    site = _last_encoder_site(model)

    def observe(patch: Patch, states: Tensor) -> float:
        if not str(patch.site).startswith("encoder") or patch.positions is None:
            return float("nan")
        strange = natural.strangeness(site, natural.score(site, states[list(patch.positions)]))
        return float(strange.mean() > natural.threshold(site, "any", len(patch.positions)))

    return observe


def _random_donor(model: Model, found: Contrast, pair: Pair, donor: Pair | None) -> Inputs:
    clip = pair.clean
    samples = clip.samples[::-1] if donor is None else np.resize(donor.clean.resample(clip.rate).samples, len(clip))
    return found.inputs(
        model, clip.replace(samples=np.ascontiguousarray(samples), words=(), phones=(), name="random donor")
    )


def summarise(results: Sequence[PairResult]) -> tuple[dict[str, Any], list[Claim]]:
    """Metrics (flat, some with intervals) and claims over all pairs.

    Raises:
        TaskError: there is no result to summarise.
    """
    if not results:
        raise TaskError("no pair could be localised: every pair was transcribed alike on both sides.")
    places = [r.in_place() for r in results if not np.isnan(r.peak()[0])]
    metrics: dict[str, Any] = {"pairs": len(results)}
    if len(results) == 1:
        metrics |= dict(zip(("peak_start", "peak_end"), results[0].peak()))
    share = clopper_pearson(sum(places), len(places)) if places else Interval(np.nan, np.nan, np.nan, 0)
    metrics["peak_in_span"] = share
    claims = [
        Claim.of(
            "place",
            f"The largest effect at the input lies where the sounds differ, give or take {TOLERANCE * 1000:.0f} ms.",
            Threshold(">=", PLACE_BAR),
            share if len(results) > 1 else Interval(share.value, np.nan, np.nan, 1),
            {"windows by chance": Control.of(float(np.mean([_chance(r) for r in results])))},
        )
    ]
    for key, what in JUDGED.items():
        held = [r.maps[key] for r in results if key in r.maps]
        if held:
            metrics[f"best_effect.{key}"] = bootstrap([float(np.nanmax(_judged(m, m.effects))) for m in held])
            if len({m.values.shape for m in held}) == 1 and len(held) > 1:
                metrics[f"shared_effect.{key}"] = bootstrap(_cross_chosen([_judged(m, m.effects) for m in held]))
            if "random direction" in held[0].controls:
                claims.append(_beyond_random(key, what, held))
    return metrics, claims


#: maps that a claim is made about -> what their cells are
JUDGED = {
    "encoder_time": "encoder window",
    "decoder_components": "part of a decoder layer",
    "decoder_cross_heads": "cross-attention head",
}


def _judged(m: EffectMap, values: np.ndarray) -> np.ndarray:
    """Cells that can fail: not the input row, and not the whole stream, which at the last layer is the answer itself."""
    columns = [i for i, c in enumerate(m.columns) if c != "resid_post"]
    rows = [i for i, r in enumerate(m.rows) if r != "input"]
    return values[np.ix_(rows, columns)]


def _cross_chosen(effects: Sequence[np.ndarray]) -> list[float]:
    """Each pair's effect at the cell that is strongest in the *other* pairs' mean, so that choosing costs nothing."""
    stack = np.stack(effects)
    chosen = []
    for i in range(len(stack)):
        mean = np.nanmean(np.delete(stack, i, axis=0), axis=0)
        chosen.append(float(stack[i].flat[int(np.nanargmax(mean))]))
    return chosen


def _beyond_random(key: str, what: str, maps: Sequence[EffectMap]) -> Claim:
    """The strongest place must move the answer more than a random direction of equal size does anywhere in its map."""

    def best(name: str) -> list[float]:
        return [float(np.nanmax(_judged(m, m.control_effects(name)))) for m in maps]

    real = [float(np.nanmax(_judged(m, m.effects))) for m in maps]
    turned = best("random direction")
    controls = {name: Control.of(bootstrap(best(name))) for name in maps[0].controls}
    return Claim.of(
        f"beyond_random.{key}",
        f"The strongest {what} moves the answer further than the strongest random direction of equal size.",
        Threshold(">", 0.0),
        bootstrap(np.subtract(real, turned)),
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
