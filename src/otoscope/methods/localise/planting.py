"""Plant a fault so severe that the behaviour breaks measurably but not wholly, and make the cases that ask for its place."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from otoscope.engine.base_run import crosses
from otoscope.engine.hearing import hearing
from otoscope.engine.model import Model
from otoscope.methods.localise.case import Case, Side
from otoscope.methods.localise.places import Place, components, layers
from otoscope.methods.localise.registry import Arm
from otoscope.methods.pose import Posed
from otoscope.models.site import Site
from otoscope.tasks.faults import SEVERITIES, Fault, planted

#: share of the healthy logit difference that a faulty model keeps: it is broken measurably, but not wholly
KEPT = (0.25, 0.75)
#: the same for faults without a severity, of which few fall into the narrower range
KEPT_FIXED = (0.1, 0.9)
#: bisections of the severity's logarithm
STEPS = 8


def scratch_copy(model: Model) -> Model:
    """A second model of the same weights, to be broken; tokenizer and feature extractor are shared."""
    adapter = model.adapter
    made = type(adapter)(copy.deepcopy(adapter.hf), adapter.name, adapter.tokenizer, adapter.feature_extractor)
    return Model(made)


@dataclass(frozen=True, eq=False)
class Workbench:
    """A healthy model, a copy of it to be broken, and items that the healthy one answers rightly.

    Attributes:
        healthy, scratch: two models of equal weights.
        posed: the items that methods are asked about.
        tuning: other items, by which severities are chosen.
        seed: of every random choice.
    """

    healthy: Model
    scratch: Model
    posed: Sequence[Posed]
    tuning: Sequence[Posed]
    seed: int = 0

    @cached_property
    def clean(self) -> Side:
        """The healthy model on the clean sounds."""
        return Side(self.healthy, [p.clean for p in self.posed], [p.metric for p in self.posed])

    @cached_property
    def corrupt(self) -> Side:
        """The healthy model on the corrupt sounds."""
        return Side(self.healthy, [p.corrupt for p in self.posed], [p.metric for p in self.posed])

    @cached_property
    def rehearsed(self) -> Side:
        """The healthy model on the clean sounds of the tuning items."""
        return Side(self.healthy, [p.clean for p in self.tuning], [p.metric for p in self.tuning])

    @cached_property
    def places(self) -> dict[str, tuple[Place, ...]]:
        """The candidates of each universe."""
        return {"components": components(self.healthy), "layers": layers(self.healthy)}

    @cached_property
    def towards(self) -> Float[Tensor, " d_model"]:
        """Unit vector of the mean final state over the items, after the final norm."""
        adapter, last = self.healthy.adapter, self.healthy.adapter.order[-1]
        site = Site(last, adapter.stacks[last].n_layers - 1, "resid_post")
        ends = []
        for i, metric in enumerate(self.clean.metrics):
            end = self.clean.values(i)[site][:, [metric.position]]
            ends.append(adapter.final(last, end)[0, 0].detach())
        mean = torch.stack(ends).mean(0)
        return mean / mean.norm()

    def aimed(self, fault: Fault) -> Fault:
        """The fault with the token it biases towards: the most frequent foil of the items. Other faults as they are."""
        if fault.part != "unembed":
            return fault
        foils = [metric.foil for metric in self.clean.metrics]
        token = max(dict.fromkeys(foils), key=foils.count)
        return replace(fault, index=(token,))

    def concerned(self, fault: Fault, side: Side) -> list[int]:
        """The items that a fault can concern: with a biased row, those whose foil it is."""
        if fault.part != "unembed":
            return list(range(len(side.inputs)))
        return [i for i, metric in enumerate(side.metrics) if metric.foil == fault.index[0]]

    def hears(self, fault: Fault) -> bool:
        """Whether the faulty model's encoder is the healthy one's."""
        return fault.stack == "decoder" and crosses(self.healthy.adapter)


def tuned(bench: Workbench, fault: Fault) -> tuple[Fault, float] | None:
    """The fault at a severity that keeps a share of the behaviour within :data:`KEPT`, and that share.

    Found by bisection on the tuning items; a fault without a severity is taken or left as it is. None where no severity
    does it: that part of the model does not carry this behaviour.
    """
    aimed = bench.aimed(fault)
    if not aimed.tunable:
        kept = kept_share(bench, aimed)
        return (aimed, kept) if KEPT_FIXED[0] <= kept <= KEPT_FIXED[1] else None
    low, high = SEVERITIES[aimed.kind]
    if not kept_share(bench, aimed.at(high)) < KEPT[1]:
        return None
    for _ in range(STEPS):
        middle = math.sqrt(low * high)
        kept = kept_share(bench, aimed.at(middle))
        if KEPT[0] <= kept <= KEPT[1]:
            return aimed.at(middle), kept
        low, high = (middle, high) if kept > KEPT[1] else (low, middle)
    return None


@torch.no_grad()
def kept_share(bench: Workbench, fault: Fault) -> float:
    """Share of the healthy logit difference that the faulty model keeps, summed over the tuning items (over the items
    themselves for a biased row, which concerns few)."""
    healthy = bench.clean if fault.part == "unembed" else bench.rehearsed
    items = bench.concerned(fault, healthy)
    whole = sum(healthy.metric(i) for i in items)
    with planted(bench.scratch, fault, _towards(bench, fault)):
        left = 0.0
        for i in items:
            adapter, metric = bench.scratch.adapter, healthy.metrics[i]
            heard = hearing(adapter, healthy.encoded(i)) if bench.hears(fault) else nullcontext()
            with heard:
                pair = bench.scratch.run(healthy.inputs[i]).logits[0, metric.position, list(metric.vocab)]
            left += float(pair[0] - pair[1])
    return left / whole if whole and math.isfinite(left) else -math.inf


@contextmanager
def cases(bench: Workbench, fault: Fault, arms: Sequence[Arm] = ("repair", "pairs")) -> Iterator[dict[Arm, Case]]:
    """The fault in force, and one case per arm; the cases hold inside the block only."""
    with planted(bench.scratch, fault, _towards(bench, fault)) as edits:
        hears = bench.hears(fault)
        faulty = [
            Side(bench.scratch, healthy.inputs, healthy.metrics, healthy if hears else None)
            for healthy in (bench.clean, bench.corrupt)
        ]
        places = bench.places[fault.universe]
        options = {
            "chain": fault.universe == "layers",
            "seed": bench.seed,
            "items": bench.concerned(fault, bench.clean),
        }
        found: dict[Arm, Case] = {}
        if "repair" in arms:
            found["repair"] = Case(fault.name, places, faulty[0], bench.clean, "repair", healthy=edits, **options)
        if "pairs" in arms:
            found["pairs"] = Case(fault.name, places, faulty[1], faulty[0], "pairs", **options)
        yield found


def rounded(model: Model) -> None:
    """Round every weight to bfloat16, in place: a model that differs everywhere a little, and is faulty nowhere."""
    with torch.no_grad():
        for parameter in model.hf.parameters():
            parameter.data = parameter.data.to(torch.bfloat16).to(parameter.dtype)


def truth_of(fault: Fault, places: Sequence[Place]) -> list[int]:
    """Indices of the true places."""
    names = {place.name: i for i, place in enumerate(places)}
    return [names[name] for name in fault.truth]


def _towards(bench: Workbench, fault: Fault) -> Tensor | None:
    return bench.towards if fault.part == "unembed" else None
