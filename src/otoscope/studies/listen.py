"""Does an audio-LLM listen, or does it guess from the text around the sound? Layer by layer, with a known truth.

Thresholds of all claims stand here and were set before any run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from otoscope.engine.model import Model
from otoscope.methods.alignment_search import Alignment, das
from otoscope.methods.audio_lens import AudioLens, LensItem, audio_lens
from otoscope.methods.behaviour import NEEDED, Answers, Behaviour, ask_all, behaviour
from otoscope.methods.grounding import Corners, Grounding, grounding
from otoscope.methods.grounding_asr import grounding_asr
from otoscope.methods.grounding_sweep import ALL, CONTROLS, EQUAL, SAME
from otoscope.methods.listen_layer import HeadEffects, HeldOutBand, ListenLayer, heads, held_out_band, listen_layer
from otoscope.runs import Claim
from otoscope.runs.claim import Control, Threshold
from otoscope.stats import Interval
from otoscope.studies.listen_dial import DialTruth, dial_truth
from otoscope.studies.listen_models import Compared
from otoscope.studies.outcome import Step
from otoscope.tasks.conflict import ConflictTask
from otoscope.tasks.conflict_corners import Refused, usable

#: bars of the claims
RHO, OFTEN, RARELY, AGREE = 0.95, 0.9, 0.1, 0.8
#: what a control may flip beyond chance
SLACK = 0.05
#: fewer speakers than this make no interval over speakers; items are resampled instead
_SPEAKERS = 12
#: the setting that flips, listen layer and heads are measured on, where there is one
_LISTENER = "listener"


@dataclass(frozen=True)
class ListenConfig:
    """What is computed.

    Attributes:
        n: items at most.
        noise: also the noise direction (exchange the counterfactual's states into the run, not only the reverse).
        variants: also with equally many tokens on both sides (the first setting).
        controls: random donor, random direction and same input, for the listener (for the one model, where there is one).
        dial: settings of the dial, where the model has one.
        das_layers: decoder layers at which subspaces are searched, spread evenly; 0 for none.
        heads: which heads carry the sound to the answer (of the listener).
        lens: from which layer on the logit lens reads the sound's label (AudioLens), with and without the sound.
        seed: of everything drawn.
    """

    n: int = 64
    noise: bool = True
    variants: bool = True
    controls: bool = True
    dial: bool = True
    das_layers: int = 10
    heads: bool = True
    lens: bool = True
    seed: int = 0

    @classmethod
    def quick(cls, n: int = 24, seed: int = 0) -> ListenConfig:
        """What the demonstration computes: the curve, the flips and the dial."""
        return cls(n=n, noise=False, variants=False, controls=False, das_layers=0, heads=False, lens=False, seed=seed)


@dataclass(frozen=True)
class Setting:
    """What was found for one model (one setting of the dial)."""

    name: str
    answers: Answers
    behaviour: Behaviour
    grounding: Grounding
    layer: ListenLayer | None
    """None where it was not asked"""


@dataclass(frozen=True)
class Found:
    """Everything a listening study found.

    Attributes:
        model: name of the model.
        task: the items that were asked.
        refused: items that the model cannot be asked, with the reason.
        settings: by name.
        main: the setting that flips and heads were measured on.
        band: its flips on held-out items (see ``held_out_band``).
        dial: along the dial; None without one.
        das: subspaces of the plain model; None where not asked.
        das_nulls: the same at the first and the middle one of these layers with random labels and on untrained weights.
        heads: of the main setting; None where not asked.
        lens: AudioLens of the first setting; None where not asked.
    """

    model: str
    task: ConflictTask
    refused: Sequence[Refused]
    settings: Mapping[str, Setting]
    main: str
    band: HeldOutBand
    dial: DialTruth | None = None
    das: Alignment | None = None
    das_nulls: Alignment | None = None
    heads: HeadEffects | None = None
    lens: AudioLens | None = None


def study(
    those: Compared,
    task: ConflictTask,
    config: ListenConfig,
    step: Step,
    progress: Callable[[int, int], None] | None,
    notify: Callable[[str], None],
) -> Found:
    """Ask, exchange and summarise; every finished part is kept by ``step``."""
    model = those.model
    task, refused = usable(model, task.first(config.n))
    n_layers = model.stacks["decoder"].n_layers
    items = _units([Corners.of(model, item) for item in task])
    units = [item.unit for item in items]
    main = _LISTENER if _LISTENER in those.settings else next(iter(those.settings))
    found: dict[str, Setting] = {}
    band: HeldOutBand | None = None
    carried: HeadEffects | None = None
    searched: Alignment | None = None
    nulls: Alignment | None = None
    read: AudioLens | None = None
    for name in those.each():
        own = _prefixed(step, name)
        notify(f"{name}: asking {len(items)} items in {len(NEEDED)} conditions")
        answers = _answers(own, model, task)
        seen = behaviour(task, answers.choices, seed=config.seed)
        notify(f"{name}: exchanging states at {n_layers} decoder layers")
        later = config.noise or name == main
        shown = replace(config, variants=config.variants and name == next(iter(those.settings)))
        measured = _grounding(model, items, shown, name == main, later, own, progress)
        found[name] = Setting(
            name, answers, seen, measured, listen_layer(measured, seed=config.seed) if later else None
        )
        if name == main:
            band = held_out_band(measured, config.seed)
            if config.heads and model.listens_and_reads:
                notify(f"{name}: exchanging the output of single heads")
                carried = heads(model, items[:24], where=("answer",), seed=config.seed, step=own, progress=progress)
        if name == next(iter(those.settings)):
            if config.das_layers and model.listens_and_reads:
                notify(f"{name}: searching subspaces")
                chosen = das_layers(measured, config.das_layers)
                options: dict[str, Any] = {"seed": config.seed, "step": own, "progress": progress}
                searched = das(model, items, chosen, **options)
                if config.controls:
                    few = sorted({chosen[0], chosen[len(chosen) // 2]})
                    nulls = das(model, items, few, controls=("random labels", "untrained"), **options)
            if config.lens:
                notify(f"{name}: reading the layers by the logit lens")
                read = audio_lens(model, [LensItem.of(model, item) for item in task], step=own, progress=progress)
    dial = None
    if config.dial and those.dial is not None and len(those.settings) > 1:
        notify("turning the dial from guesser to listener")
        dial = dial_truth(those, task, units, step=step, progress=progress, seed=config.seed)
    assert band is not None
    return Found(model.name, task, refused, found, main, band, dial, searched, nulls, carried, read)


def das_layers(measured: Grounding, n: int) -> list[int]:
    """``n`` layers: a third spread over the whole stack, the others where the effect of sound and text changes most.

    Most layers of a deep stack only pass the states on, and their coefficients differ by rounding. An order over layers can
    be seen only where something changes.
    """
    curve = measured.curve(measured.directions[-1])
    changes = np.abs(np.gradient(curve.audio + curve.text))
    chosen = dict.fromkeys(np.linspace(0, len(changes) - 1, max(2, n // 3)).round().astype(int).tolist())
    chosen |= dict.fromkeys(int(k) for k in np.argsort(-changes, kind="stable"))
    return sorted(list(chosen)[:n])


def _prefixed(step: Step, name: str) -> Step:
    return lambda key, compute: step(f"{name}-{key}", compute)


def _units(items: list[Corners]) -> list[Corners]:
    """Intervals resample speakers where there are enough of them, and items where not."""
    if len({item.unit for item in items}) >= _SPEAKERS:
        return items
    return [replace(item, unit=f"item {i}") for i, item in enumerate(items)]


def _answers(step: Step, model: Model, task: ConflictTask) -> Answers:
    def ask() -> dict[str, Any]:
        got = ask_all(model, task, NEEDED)
        return {
            "choices": [list(got.choices[c]) for c in NEEDED], "margins": np.stack([got.margins[c] for c in NEEDED]),
        }  # fmt: skip

    kept = step(f"answers-{task.digest()[:16]}", ask)
    return Answers(
        dict(zip(NEEDED, (tuple(c) for c in kept["choices"]))), dict(zip(NEEDED, np.asarray(kept["margins"])))
    )


def _grounding(
    model: Model,
    items: Sequence[Corners],
    config: ListenConfig,
    controls: bool,
    later: bool,
    step: Step,
    progress: Callable[[int, int], None] | None,
) -> Grounding:
    """Both directions, and the controls in the one that flips are counted in."""
    measure: Any = grounding
    options: dict[str, Any] = {"seed": config.seed, "step": step, "progress": progress}
    arms: dict[str, Any] = {"variants": (ALL, EQUAL) if config.variants else (ALL,), "after": later}
    alone: dict[str, Any] = {"variants": (), "after": False}  # what the nulls are compared with is there already
    if not model.listens_and_reads:  # a speech recogniser hears by cross-attention, so it has no tokens to count
        measure, arms, alone = grounding_asr, {}, {}
    made = measure(model, items, directions=("noise", "denoise") if config.noise else ("denoise",), **arms, **options)
    if not (config.controls and controls):
        return made
    nulls = measure(model, items, directions=("denoise",), controls=CONTROLS, **alone, **options)
    return replace(made, margin={**made.margin, **nulls.margin}, answer={**made.answer, **nulls.answer})


def metrics(found: Found) -> dict[str, Interval | float | None]:
    """The flat numbers of the results object."""
    out: dict[str, Interval | float | None] = {"items": len(found.task)}
    for name, setting in found.settings.items():
        out[f"gc.{name}"] = setting.grounding.summary()
        out[f"listen_rate.{name}"] = setting.behaviour.rates.listen
        for measure, value in setting.behaviour.table().items():
            if measure != "listen_rate":
                out[f"{measure}.{name}"] = value
        if setting.layer is not None:
            out[f"listen_layer.{name}"] = setting.layer.layer
    out["flip_rate_before"], out["flip_rate_after"] = found.band.last[ALL], found.band.first[ALL]
    if found.dial is not None:
        out["dial_spearman"], out["dial_calibration_error"] = found.dial.rho, found.dial.calibration
    if found.das is not None:
        first = next(iter(found.settings.values()))
        out["das_spearman"] = found.das.agreement(first.grounding).rho
    if found.lens is not None:
        out["critical_layer"] = found.lens.critical_layer()
    return out


def claims(found: Found) -> list[Claim]:
    """What is claimed, and under which controls."""
    made: list[Claim] = []
    main = found.settings[found.main]
    assert main.layer is not None
    ceiling = Threshold("<=", main.layer.chance + SLACK)
    if found.dial is not None:
        made.append(
            Claim.of(
                "dial",
                "gc orders the settings of the dial as they behave (Spearman)",
                Threshold(">=", RHO),
                found.dial.rho,
            )
        )
    if {"listener", "guesser"} <= set(found.settings):
        low, high = (found.settings[n].grounding.summary() for n in ("listener", "guesser"))
        made.append(
            Claim.of(
                "twins", "gc of the listener lies above gc of the guesser, their 95% intervals apart by",
                Threshold(">", 0.0), low.low - high.high,
            )
        )  # fmt: skip
    for id_, shares, bound, words in (
        (
            "flip-before",
            found.band.last,
            Threshold(">=", OFTEN),
            "up to the listen layer they give the exchanged sound's answer",
        ),
        ("flip-after", found.band.first, Threshold("<=", RARELY), "after it they do not"),
    ):
        if shares[ALL].n:
            controls = {name: Control.of(value.value, ceiling) for name, value in shares.items() if name != ALL}
            made.append(Claim.of(id_, f"{found.main}, held-out items: {words}", bound, shares[ALL], controls))
    if "same input" in main.grounding.variants:
        curve = main.grounding.curve("denoise", SAME)
        made.append(
            Claim.of(
                "null", "with the same sound and text on both sides gc has a value at this share of layers",
                Threshold("<=", 0.0), float(np.mean(~np.isnan(curve.gc))),
            )
        )  # fmt: skip
    if found.das is not None:
        first = next(iter(found.settings.values()))
        made.append(
            Claim.of(
                "das", "a learned subspace orders the layers as whole states do (Spearman of gc)", Threshold(">=", AGREE),
                found.das.agreement(first.grounding).rho.value,
            )
        )  # fmt: skip
    return made


def describe(config: ListenConfig) -> dict[str, Any]:
    """The config as plain data, for the identity of a run."""
    return asdict(config)
