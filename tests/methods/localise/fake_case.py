"""A case of a small made-up network whose true effects can be written down, with everything that a method may ask.

Layers of heads and an MLP write into a stream, which two logits read at every position. ``parallel`` components read the
input instead of the stream, so that each contributes to the metric by itself; ``bend`` is the nonlinearity of every
component (None for a linear network). Nothing here is shared with the package's own case.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from otoscope.engine.capture import Cache
from otoscope.engine.metrics import LogitDiff
from otoscope.methods.localise.places import Place
from otoscope.models.inputs import Inputs
from otoscope.models.site import Site, StackSpec

HEADS, WIDTH, POSITIONS = 4, 8, 3
Change = Callable[[Tensor], Tensor]


class FakeModel:
    """The network; ``gains`` maps names of places to factors on what they write (1 where it says nothing)."""

    def __init__(
        self,
        n_layers: int = 2,
        *,
        parallel: bool = False,
        bend: Callable[[Tensor], Tensor] | None = None,
        gains: Mapping[str, float] | None = None,
        rest: float = 1.0,
        seed: int = 0,
    ):
        draw = torch.Generator().manual_seed(seed)
        self.n_layers, self.parallel, self.bend = n_layers, parallel, bend or (lambda x: x)
        self.read, self.head_out, self.mlp_in, self.mlp_out = (
            [torch.randn(WIDTH, WIDTH, generator=draw, dtype=torch.float64) / WIDTH**0.5 for _ in range(n_layers)]
            for _ in range(4)
        )
        self.unembed = torch.randn(WIDTH, 2, generator=draw, dtype=torch.float64)
        self.gains = {name: (gains or {}).get(name, rest) for name in (p.name for p in places(n_layers))}
        points = ("z", "mlp_out")
        self.stacks = {"decoder": StackSpec("decoder", n_layers, WIDTH, HEADS, WIDTH // HEADS, WIDTH, True, points)}

    def forward(self, x: Tensor, changes: Mapping[Site, list[Change]]) -> tuple[Tensor, dict[Site, Tensor]]:
        """Logits ``[1, pos, 2]`` and the values at every site, with changes in force."""
        seen: dict[Site, Tensor] = {}
        given = x

        def visit(site: Site, value: Tensor) -> Tensor:
            for change in changes.get(site, ()):
                value = change(value)
            seen[site] = value
            return value

        for layer in range(self.n_layers):
            gain = torch.tensor([self.gains[f"decoder.{layer}.head.{h}"] for h in range(HEADS)], dtype=x.dtype)
            source = given if self.parallel else x
            z = self.bend(source @ self.read[layer]).unflatten(-1, (HEADS, -1)) * gain[:, None]
            x = x + visit(Site("decoder", layer, "z"), z).flatten(-2) @ self.head_out[layer]
            source = given if self.parallel else x
            out = self.bend(source @ self.mlp_in[layer]) @ self.mlp_out[layer] * self.gains[f"decoder.{layer}.mlp"]
            x = x + visit(Site("decoder", layer, "mlp_out"), out)
        # the input itself is no place, so nothing of it reaches the logits past the components
        return (x - given if self.parallel else x) @ self.unembed, seen

    def run(self, inputs: SimpleNamespace, interventions=()) -> SimpleNamespace:
        """As ``Model.run``: interventions with heads and channels."""
        changes: dict[Site, list[Change]] = {}
        for one in interventions:

            def change(value: Tensor, one=one) -> Tensor:
                new = one.change(value, torch.arange(value.shape[1]))
                mask = torch.zeros(value.shape, dtype=torch.bool)
                mask[:, :, list(one.heads) if one.heads is not None else slice(None)] = True
                return torch.where(mask, new, value)

            changes.setdefault(Site.parse(one.site), []).append(change)
        return SimpleNamespace(logits=self.forward(inputs.x, changes)[0])


def places(n_layers: int) -> tuple[Place, ...]:
    """Every head and MLP, named as in a real model."""
    found = []
    for layer in range(n_layers):
        z, mlp = Site("decoder", layer, "z"), Site("decoder", layer, "mlp_out")
        found += [Place(f"decoder.{layer}.head.{h}", z, heads=(h,)) for h in range(HEADS)]
        found.append(Place(f"decoder.{layer}.mlp", mlp))
    return tuple(found)


class FakeCase:
    """As the package's case. Base and donor differ in ``base.gains`` (repair) or in their inputs (pairs, circuit)."""

    def __init__(self, base: FakeModel, donor: FakeModel, arm: str = "repair", n_items: int = 2, seed: int = 0):
        self.name, self.arm, self.chain, self.seed = "fake", arm, False, seed
        self.model, self.other, self.places = base, donor, places(base.n_layers)
        self.items = list(range(n_items))
        draw = torch.Generator().manual_seed(100 + seed)

        def sounds() -> list[Tensor]:
            return [torch.randn(1, POSITIONS, WIDTH, generator=draw, dtype=torch.float64) for _ in range(n_items)]

        self.x = sounds()
        self.donor_x = self.x if base is not donor else sounds()

    @property
    def n_items(self) -> int:
        return len(self.items)

    def inputs(self, i: int):
        made = Inputs(tokens=torch.zeros(1, POSITIONS, dtype=torch.long))
        return SimpleNamespace(x=self.x[self.items[i]], tokens=made.tokens, n_samples=made.n_samples)

    def metric(self, i: int) -> LogitDiff:
        return LogitDiff(0, 1, POSITIONS - 1)

    def base_values(self, i: int) -> Cache:
        return Cache(self.model.forward(self.x[self.items[i]], {})[1])

    def donor_values(self, i: int) -> Cache:
        return Cache(self.other.forward(self.donor_x[self.items[i]], {})[1])

    def base_metric(self, i: int) -> float:
        return self._read(self.model, self.x[self.items[i]], {})

    def donor_metric(self, i: int) -> float:
        return self._read(self.other, self.donor_x[self.items[i]], {})

    def changed(self, i: int) -> dict[Site, bool]:
        base, donor = self.base_values(i), self.donor_values(i)
        return {site: not torch.equal(base[site], donor[site]) for site in base.sites()}

    def patched(self, i: int, places) -> np.ndarray:
        donor = self.donor_values(i)
        found = []
        for place in places:

            def change(value: Tensor, place=place) -> Tensor:
                if place.heads is None:
                    return donor[place.site]
                value = value.clone()
                value[:, :, list(place.heads)] = donor[place.site][:, :, list(place.heads)]
                return value

            found.append(self._read(self.model, self.x[self.items[i]], {place.site: [change]}))
        return np.array(found)

    def slopes(self, i: int, at: float = 0.0, *, everywhere: bool = False) -> dict[Site, Tensor]:
        model, x = copy.copy(self.model), torch.lerp(self.x[self.items[i]], self.donor_x[self.items[i]], at)
        model.gains = {name: (1 - at) * own + at * self.other.gains[name] for name, own in self.model.gains.items()}
        nudges = {site: torch.zeros_like(value, requires_grad=True) for site, value in model.forward(x, {})[1].items()}
        changes: dict[Site, list[Change]] = {site: [lambda v, n=nudge: v + n] for site, nudge in nudges.items()}
        pair = model.forward(x, changes)[0][0, -1]
        slopes = dict(zip(nudges, torch.autograd.grad(pair[0] - pair[1], list(nudges.values()))))
        changed = self.changed(i)
        return {s: slope if everywhere or changed[s] else torch.zeros_like(slope) for s, slope in slopes.items()}

    @staticmethod
    def _read(model: FakeModel, x: Tensor, changes: Mapping[Site, list[Change]]) -> float:
        pair = model.forward(x, changes)[0][0, -1]
        return float(pair[0] - pair[1])


def repair(fault: Mapping[str, float], *, n_layers: int = 2, seed: int = 0, **options) -> FakeCase:
    """A network whose places in ``fault`` write so much too much or too little, and the healthy one, on the same input."""
    base = FakeModel(n_layers, gains=fault, seed=seed, **options)
    return FakeCase(base, FakeModel(n_layers, seed=seed, **options), "repair", seed=seed)


def pairs(arm: str = "pairs", *, n_layers: int = 2, seed: int = 0, n_items: int = 2, **options) -> FakeCase:
    """One network on two inputs."""
    model = FakeModel(n_layers, seed=seed, **options)
    return FakeCase(model, model, arm, n_items, seed)
