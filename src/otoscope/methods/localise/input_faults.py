"""Faults of the input: a spoilt span of the sound, or words before it that mislead. The model is healthy.

A span of the sound is noised or silenced; the preceding text repeats the foil, against a neutral text of as many tokens.
The places are windows of the sound and the group of those words (:mod:`otoscope.methods.localise.places`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from otoscope.audio.corruptions import apply
from otoscope.engine.metrics import LogitDiff
from otoscope.engine.model import Model
from otoscope.errors import OtoscopeError
from otoscope.methods.localise.case import Case, Side
from otoscope.methods.localise.places import Place, windows, words_before
from otoscope.methods.localise.planting import KEPT, KEPT_FIXED, Workbench
from otoscope.methods.pose import Posed
from otoscope.models.inputs import Inputs

InputKind = Literal["noise", "silence", "context"]
INPUT_KINDS: tuple[InputKind, ...] = ("noise", "silence", "context")
#: length of a spoilt span, and width of the windows among which it is looked for, seconds
SPAN, WINDOW = 0.3, 0.1
#: noise levels that are tried, dB relative to the span's own level, from mild to harsh
LEVELS = (15.0, 10.0, 5.0, 0.0, -5.0, -10.0, -15.0)
#: how often the foil is said before the sound, at most
REPEATS = 6
_NEUTRAL = "This is a recording of a person who is speaking in a room, and it was made some time ago."


@dataclass(frozen=True)
class InputFault:
    """One fault of one item's input.

    Attributes:
        kind: ``noise``, ``silence`` or ``context``.
        item: index of the item.
        span: the spoilt seconds (``noise``, ``silence``).
        severity: level of the noise in dB below the sound, or how often the foil was said.
        seed: of the noise.
    """

    kind: InputKind
    item: int
    span: tuple[float, float] = (0.0, 0.0)
    severity: float = 0.0
    seed: int = 0

    @property
    def name(self) -> str:
        """Readable and unique within a task."""
        where = "" if self.kind == "context" else f" {self.span[0]:.2f}-{self.span[1]:.2f} s"
        return f"{self.kind} item {self.item}{where} seed {self.seed}"

    def to_json(self) -> dict[str, Any]:
        """Its fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> InputFault:
        """The fault of :meth:`to_json`."""
        return cls(**{**fields, "span": tuple(fields["span"])})


def draw_inputs(bench: Workbench, seed: int = 0) -> Iterator[InputFault]:
    """Faults without end: kinds in turn, items in turn, spans at random within the sound."""
    rng = np.random.default_rng(seed)
    for count in range(10**9):
        kind = INPUT_KINDS[count % len(INPUT_KINDS)]
        item = (count // len(INPUT_KINDS)) % len(bench.posed)
        duration = bench.posed[item].item.pair.clean.duration
        start = float(rng.uniform(0, max(0.0, duration - SPAN)))
        span = (0.0, 0.0) if kind == "context" else (round(start, 3), round(min(duration, start + SPAN), 3))
        yield InputFault(kind, item, span, seed=int(rng.integers(2**31)))


def tuned_input(bench: Workbench, fault: InputFault) -> tuple[InputFault, float] | None:
    """The fault at the mildest severity that keeps a share of the behaviour within the range, and that share; else None."""
    model, posed = bench.healthy, bench.posed[fault.item]
    if fault.kind == "context" and posed.metric.position != posed.clean.tokens.shape[1] - 1:  # type: ignore[union-attr]
        return None  # the answer is not the first word, so words before the sound cannot be put right before it
    tried = {"noise": LEVELS, "silence": (0.0,), "context": tuple(float(r) for r in range(1, REPEATS + 1))}[fault.kind]
    low, high = KEPT_FIXED if fault.kind == "silence" else KEPT
    for severity in tried:
        try:
            one = replace(fault, severity=severity)
            faulty, healthy, metric, _ = _inputs(model, posed, one)
        except OtoscopeError:  # a silent span has no level, or the words are too many
            return None
        whole, left = _read(model, healthy, metric), _read(model, faulty, metric)
        kept = left / whole if whole > 0 else math.inf
        if low <= kept <= high:
            return one, kept
        if kept < low:
            return None
    return None


def input_case(bench: Workbench, fault: InputFault) -> Case:
    """The case that asks where the input is spoilt: base is the faulty input, donor the healthy one."""
    faulty, healthy, metric, context = _inputs(bench.healthy, bench.posed[fault.item], fault)
    places: tuple[Place, ...] = windows(bench.healthy, healthy.n_samples[0], WINDOW)
    if context:
        places += (words_before("context", context),)
    base, donor = (Side(bench.healthy, [inputs], [metric]) for inputs in (faulty, healthy))
    return Case(fault.name, places, base, donor, "repair", seed=bench.seed)


def true_places(fault: InputFault, case: Case) -> list[int]:
    """Indices of the true places: windows whose centre is within the span, or the words before."""
    if fault.kind == "context":
        return [i for i, place in enumerate(case.places) if place.name == "context"]
    clock = case.model.clock("encoder", case.inputs(0).n_samples[0], 0)
    found = []
    for i, place in enumerate(case.places):
        if place.name != "context" and place.positions:
            centre = (clock.edges(place.positions[0])[0] + clock.edges(place.positions[-1])[1]) / 2
            if fault.span[0] <= centre <= fault.span[1]:
                found.append(i)
    return found


def _inputs(model: Model, posed: Posed, fault: InputFault) -> tuple[Inputs, Inputs, LogitDiff, tuple[int, ...]]:
    """Faulty and healthy inputs, what is read of them, and the positions of the words before."""
    clip = posed.item.pair.clean
    if fault.kind == "context":
        text = " ".join([f"{posed.item.foil.strip().capitalize()}."] * int(fault.severity))
        asked = model.ask(clip, posed.item.question if model.listens_and_reads else "", context=text)
        at, tokens = list(asked.groups["context"]), asked.inputs.tokens
        assert tokens is not None
        neutral = list(model.tokenizer(" " + _NEUTRAL, add_special_tokens=False).input_ids)
        other = tokens.clone()
        other[0, at] = torch.tensor([neutral[i % len(neutral)] for i in range(len(at))])
        metric = replace(posed.metric, position=asked.groups["answer"][0])
        return asked.inputs, asked.inputs.with_tokens(other), metric, tuple(at)
    if fault.kind == "noise":
        spoilt = apply("white_noise", clip, fault.span, fault.seed, snr_db=fault.severity).clip
    else:
        spoilt = apply("silence", clip, fault.span, fault.seed).clip
    if model.listens_and_reads:
        return model.ask(spoilt, posed.item.question).inputs, posed.clean, posed.metric, ()
    return model.inputs(spoilt, tokens=posed.clean.tokens), posed.clean, posed.metric, ()


@torch.no_grad()
def _read(model: Model, inputs: Inputs, metric: LogitDiff) -> float:
    pair = model.run(inputs).logits[0, metric.position, list(metric.vocab)]
    return float(pair[0] - pair[1])
