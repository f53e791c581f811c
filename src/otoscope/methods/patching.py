"""Activation patching: what happens to the answer when one place of one run is given the other run's value.

Denoising puts the clean run's value into the corrupt run: an effect of 1 says that this place is sufficient to bring
the clean answer back. Noising puts the corrupt value into the clean run: an effect of 1 says that the clean answer needs
this place. Source: Vig et al. 2020; Meng et al. 2022; Wang et al. 2023; Zhang and Nanda 2024 on the choice of metric.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from otoscope.engine.capture import capture_until
from otoscope.engine.metrics import Metric
from otoscope.engine.model import Model
from otoscope.engine.patch import Patch
from otoscope.engine.sweep import NOISE, Observe, SweepResult, sweep
from otoscope.errors import SiteError
from otoscope.methods.controls import randomly_turned
from otoscope.models.inputs import Inputs
from otoscope.models.site import HEAD_POINTS, PATTERN_POINTS, Site

Mode = Literal["denoise", "noise"]


@dataclass(frozen=True)
class EffectMap:
    """Effects over a grid of places.

    Attributes:
        name: what the grid shows.
        mode: ``denoise`` or ``noise``.
        rows, columns: labels; rows are layers from the input up.
        values: metric of each patched run, ``[row, column]``.
        base, donor: metric of the unpatched run and of the run that values come from.
        edges: time in seconds of the column borders, where columns are windows of time.
        controls: name -> values of the same grid under a null (same units as ``values``).
        control_base: name -> metric of that null's unpatched run, where it is not ``base``.
        observed: what an observer made of each patched run's states, such as whether they left the natural ones.
    """

    name: str
    mode: Mode
    rows: list[str]
    columns: list[str]
    values: Float[np.ndarray, "row column"]
    base: float
    donor: float
    edges: Float[np.ndarray, " border"] | None = None
    controls: dict[str, Float[np.ndarray, "row column"]] = field(default_factory=dict)
    control_base: dict[str, float] = field(default_factory=dict)
    observed: Float[np.ndarray, "row column"] | None = None

    @property
    def change(self) -> Float[np.ndarray, "row column"]:
        """``values - base``, signed so that positive moves the answer toward the donor's, in the metric's units."""
        return (self.values - self.base) * (1 if self.mode == "denoise" else -1)

    @property
    def effects(self) -> Float[np.ndarray, "row column"]:
        """Normalised effects; NaN where the two runs differ by no more than the noise of the logits."""
        span = self.donor - self.base
        return (self.values - self.base) / span if abs(span) > NOISE else np.full_like(self.values, np.nan)

    def control_effects(self, name: str) -> Float[np.ndarray, "row column"]:
        """A null's grid on the scale of the real effects: its change over the real difference of the two runs."""
        span = self.donor - self.base
        change = self.controls[name] - self.control_base.get(name, self.base)
        return change / span if abs(span) > NOISE else np.full_like(change, np.nan)

    def strongest(self) -> tuple[int, int]:
        """Row and column of the largest effect."""
        if np.isnan(self.effects).all():
            raise SiteError(f"the map '{self.name}' has no effect to rank: both runs give the same answer.")
        row, column = np.unravel_index(np.nanargmax(self.effects), self.values.shape)
        return int(row), int(column)

    def table(self) -> dict[str, list[Any]]:
        """Columns for a CSV file: one line per cell, with raw values and every control."""
        grid = [(r, c) for r in range(len(self.rows)) for c in range(len(self.columns))]
        columns: dict[str, list[Any]] = {
            "row": [self.rows[r] for r, _ in grid],
            "column": [self.columns[c] for _, c in grid],
            "value": [self.values[i] for i in grid],
            "effect": [self.effects[i] for i in grid],
        }
        for name in self.controls:
            columns[f"{name}_effect"] = [self.control_effects(name)[i] for i in grid]
        return columns


@dataclass(frozen=True)
class Grid:
    """A map's questions before they are answered: patches in rows and columns, with their labels."""

    name: str
    rows: list[str]
    columns: list[str]
    patches: list[list[Patch]]
    edges: Float[np.ndarray, " border"] | None = None
    controls: tuple[str, ...] = ("random donor", "random direction")


class ActivationPatching:
    """Maps of one clean / corrupt pair on one model.

    Args:
        model: the model.
        clean, corrupt: inputs of equal length.
        metric: what is read, such as ``contrast(...).metric``.
        mode: ``denoise`` (into the corrupt run) or ``noise`` (into the clean run).
        random_donor: another input of the same length; its values are the control ``random donor``.
        directions: whether to add the control ``random direction``.
        seed: seed of the random direction.
        observe: sees the states of every patched run at the end of its stack (see :func:`otoscope.engine.sweep.sweep`);
            what it returns is kept in :attr:`EffectMap.observed`.
        options: passed to every sweep (``memory_gb``, ``progress``, ``announce``, ``step``).
    """

    def __init__(
        self,
        model: Model,
        clean: Inputs,
        corrupt: Inputs,
        metric: Metric,
        mode: Mode = "denoise",
        *,
        random_donor: Inputs | None = None,
        directions: bool = False,
        seed: int = 0,
        observe: Observe | None = None,
        options: dict[str, Any] | None = None,
    ):
        self.model, self.metric = model, metric
        self.mode: Mode = mode
        self.base, self.donor = (corrupt, clean) if mode == "denoise" else (clean, corrupt)
        self.random_donor, self.directions, self.seed = random_donor, directions, seed
        self.observe = observe
        self.options = options or {}

    def by_time(
        self,
        stack: str = "encoder",
        width: float = 0.1,
        points: Sequence[str] = ("resid_post",),
        input_layer: bool = True,
    ) -> EffectMap:
        """Layers x windows of ``width`` seconds over the valid frames; the first row is the stack's input."""
        return self.run([self.time_grid(stack, width, points, input_layer)])[0]

    def by_position(self, points: Sequence[str], positions: Sequence[int], labels: Sequence[str] = ()) -> EffectMap:
        """Decoder layers and points x token positions."""
        return self.run([self.position_grid(points, positions, labels)])[0]

    def by_component(self, stack: str, positions: Sequence[int] | None = None) -> EffectMap:
        """Layers x parts of the layer (attention, cross-attention, MLP; the whole stream too where ``positions`` are named)."""
        return self.run([self.component_grid(stack, positions)])[0]

    def by_head(self, stack: str, point: str = "z", positions: Sequence[int] | None = None) -> EffectMap:
        """Layers x heads of ``z``, ``cross_z``, ``pattern`` or ``cross_pattern``, at ``positions`` (None: all).

        Raises:
            SiteError: the point has no heads.
        """
        return self.run([self.head_grid(stack, point, positions)])[0]

    def by_neuron(
        self, site: str, neurons: Sequence[int] | None = None, positions: Sequence[int] | None = None
    ) -> EffectMap:
        """One MLP's neurons (``mlp_post``), each alone, at ``positions`` (None: all)."""
        return self.run([self.neuron_grid(site, neurons, positions)])[0]

    # -- what to ask ---------------------------------------------------------------------------------------------------

    def time_grid(
        self,
        stack: str = "encoder",
        width: float = 0.1,
        points: Sequence[str] = ("resid_post",),
        input_layer: bool = True,
    ) -> Grid:
        """The questions of :meth:`by_time`."""
        clock = self.model.clock(stack, self.base.n_samples[0])
        windows = clock.windows(width)
        spec = self.model.stacks[stack]
        rows = [(f"{stack}.0.resid_pre", "input")] if input_layer else []
        for point in points:
            tail = "" if len(points) == 1 else f" {point}"
            rows += [(f"{stack}.{i}.{point}", f"layer {i}{tail}") for i in range(spec.n_layers)]
        patches = [[Patch(site, positions=tuple(w)) for w in windows] for site, _ in rows]
        edges = np.array([clock.edges(w[0])[0] for w in windows] + [clock.edges(windows[-1][-1])[1]])
        names = [f"{a:.2f}-{b:.2f} s" for a, b in zip(edges, edges[1:])]
        return Grid(f"{stack} by time", [label for _, label in rows], names, patches, edges)

    def position_grid(self, points: Sequence[str], positions: Sequence[int], labels: Sequence[str] = ()) -> Grid:
        """The questions of :meth:`by_position`."""
        spec = self.model.stacks["decoder"]
        rows = [(f"decoder.{i}.{p}", f"{i} {p}") for i in range(spec.n_layers) for p in points]
        patches = [[Patch(site, positions=(p,)) for p in positions] for site, _ in rows]
        return Grid("decoder by token", [r[1] for r in rows], list(labels) or [str(p) for p in positions], patches)

    def component_grid(self, stack: str, positions: Sequence[int] | None = None) -> Grid:
        """The questions of :meth:`by_component`."""
        spec = self.model.stacks[stack]
        # the whole stream at all positions is the other run itself, so it is asked only where positions are named
        parts = ("attn_out", "cross_attn_out", "mlp_out") + (() if positions is None else ("resid_post",))
        points = [p for p in parts if p in spec.points]
        at = None if positions is None else tuple(positions)
        patches = [[Patch(f"{stack}.{i}.{p}", positions=at) for p in points] for i in range(spec.n_layers)]
        return Grid(f"{stack} components", [f"layer {i}" for i in range(spec.n_layers)], points, patches)

    def head_grid(self, stack: str, point: str = "z", positions: Sequence[int] | None = None) -> Grid:
        """The questions of :meth:`by_head`."""
        if point not in HEAD_POINTS:
            raise SiteError(f"'{point}' has no heads: name z, pattern, cross_z or cross_pattern.")
        spec = self.model.stacks[stack]
        at = None if positions is None else tuple(positions)
        patches = [
            [Patch(Site(stack, i, point, h), positions=at) for h in range(spec.n_heads)] for i in range(spec.n_layers)
        ]
        rows, heads = [f"layer {i}" for i in range(spec.n_layers)], [f"head {h}" for h in range(spec.n_heads)]
        return Grid(f"{stack} heads ({point})", rows, heads, patches)

    def neuron_grid(
        self, site: str, neurons: Sequence[int] | None = None, positions: Sequence[int] | None = None
    ) -> Grid:
        """The questions of :meth:`by_neuron`."""
        at = None if positions is None else tuple(positions)
        chosen = range(self.model.stacks[Site.parse(site).stack].d_mlp) if neurons is None else neurons
        patches = [[Patch(f"{site}.{n}", positions=at) for n in chosen]]
        return Grid(f"neurons of {site}", [site], [f"neuron {n}" for n in chosen], patches)

    # -- one sweep for all of them, controls included --------------------------------------------------------------------

    def run(self, grids: Sequence[Grid]) -> list[EffectMap]:
        """Answer several grids in one sweep: both runs are computed once, however many maps are asked for."""
        pieces: list[tuple[int, str, list[Patch]]] = []
        for i, grid in enumerate(grids):
            flat = [patch for row in grid.patches for patch in row]
            pieces.append((i, "real", flat))
            if self.random_donor is not None and "random donor" in grid.controls:
                pieces.append((i, "random donor", [replace(p, donor=1) for p in flat]))
            # patterns are probabilities: turning them makes no sense, so their null is the random donor alone
            if self.directions and "random direction" in grid.controls and not _has_pattern(flat):
                pieces.append((i, "random direction", flat))
        turned = iter(self._turned([p for _, name, flat in pieces if name == "random direction" for p in flat]))
        asked = [next(turned) if name == "random direction" else patch for _, name, flat in pieces for patch in flat]
        donors = [self.donor] if self.random_donor is None else [self.donor, self.random_donor]
        result = self._sweep(asked, donors)
        metric = next(iter(result.values))
        answers: list[dict[str, np.ndarray]] = [{} for _ in grids]
        flagged: list[np.ndarray | None] = [None for _ in grids]
        at = 0
        for i, name, flat in pieces:
            shape, part = (len(grids[i].rows), len(grids[i].columns)), slice(at, at + len(flat))
            answers[i][name] = result.values[metric][part].reshape(shape)
            if name == "real" and self.observe is not None:
                flagged[i] = result.observed[part].reshape(shape)
            at += len(flat)
        return [
            EffectMap(
                grid.name, self.mode, grid.rows, grid.columns, answer.pop("real"), result.base[metric],
                float(result.donors[metric][0]), grid.edges, answer, observed=observed,
            )
            for grid, answer, observed in zip(grids, answers, flagged)
        ]  # fmt: skip

    def _sweep(self, patches: list[Patch], donors: list[Inputs]) -> SweepResult:
        result = sweep(self.model, self.base, donors, patches, self.metric, observe=self.observe, **self.options)
        if result.interrupted:
            raise KeyboardInterrupt
        return result

    def _turned(self, patches: list[Patch]) -> list[Patch]:
        """The same patches with the difference to the donor turned by a random rotation."""
        if not patches:
            return []
        sites = sorted({str(Site.parse(p.site).whole) for p in patches})
        both = capture_until(self.model.adapter, Inputs.stack([self.base, self.donor]), [Site.parse(s) for s in sites])
        turned = {site: randomly_turned(both[site][:1], both[site][1:2], self.seed) for site in sites}
        return [replace(p, value=turned[str(Site.parse(p.site).whole)]) for p in patches]


def _has_pattern(patches: Sequence[Patch]) -> bool:
    return any(Site.parse(p.site).point in PATTERN_POINTS for p in patches)
