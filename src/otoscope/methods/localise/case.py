"""A case: two runs that answer differently, the places between which a method must choose, and what it may ask.

``base`` is the run under suspicion, ``donor`` the one it is compared with:

* ``repair``: the faulty model and the healthy one, on the same sound (or the sound with and without its fault);
* ``pairs``: the faulty model alone, on a corrupt and a clean sound;
* ``circuit``: the healthy model, on a clean and a corrupt sound (for faithfulness).

Everything is computed when it is first asked for, counted, and kept until the case is dropped.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from otoscope.engine.base_run import crosses
from otoscope.engine.capture import Cache, capture_until
from otoscope.engine.hearing import hearing
from otoscope.engine.intervene import Intervention, replace_with
from otoscope.engine.metrics import LogitDiff
from otoscope.engine.model import Model
from otoscope.engine.patch import Patch
from otoscope.engine.plain import PlainRuns
from otoscope.engine.sweep import sweep
from otoscope.errors import TaskError
from otoscope.methods.localise.places import LOGITS, Place, whole_sites
from otoscope.methods.localise.registry import Arm
from otoscope.models.inputs import Inputs
from otoscope.models.site import Site

#: what any patch of a component, a layer or an input reads of a plain run
_POINTS = ("resid_pre", "z", "attn_out", "cross_z", "resid_mid", "mlp_out", "resid_post")
#: a run with slopes costs about as much as this many plain runs
SLOPE_COST = 3.0


class Side:
    """One side of a case: a model, its inputs, and the values of its plain runs.

    Args:
        model: the model.
        inputs: one item each.
        metrics: what is read of each item: answer against foil.
        heard: another side on the same sounds whose encoder is the same, so that its encoder is not run again.
    """

    def __init__(self, model: Model, inputs: Sequence[Inputs], metrics: Sequence[LogitDiff], heard: Side | None = None):
        self.model, self.inputs, self.metrics = model, list(inputs), list(metrics)
        self.heard = heard if heard is not None and crosses(model.adapter) else None
        self.plain = PlainRuns(keep=len(self.inputs))
        self.forwards = 0.0
        self._values: dict[int, Cache] = {}
        self._ends: dict[tuple[int, str], Tensor] = {}

    def values(self, i: int) -> Cache:
        """Values of one plain run at every site that a patch may name, and answer and foil at :data:`LOGITS`."""
        if i not in self._values:
            self._values[i] = self._run(i)
        return self._values[i]

    def metric(self, i: int) -> float:
        """Logit of the answer minus logit of the foil."""
        pair = self.values(i)[LOGITS][0, 0]
        return float(pair[0] - pair[1])

    def encoded(self, i: int) -> Float[Tensor, "1 frame d_model"]:
        """The encoder's output, after its final norm."""
        adapter = self.model.adapter
        n = adapter.stacks["encoder"].n_layers
        with torch.no_grad():
            return adapter.final("encoder", self.values(i)[Site("encoder", n - 1, "resid_post")])

    def ends(self, i: int, places: Sequence[Place], donor: Side, memory_gb: float) -> list[Float[Tensor, "1 frame d"]]:
        """The encoder's last stream with ``donor``'s value put into one place of the encoder at a time.

        Many faults of a decoder share one encoder; what a patch does to that encoder is computed once for all of them.
        """
        missing = [place for place in places if (i, place.name) not in self._ends]
        if missing:
            values, inputs = donor.values(i), self.inputs[i]

            def keep(patch: Patch, states: Tensor) -> float:
                self._ends[i, patch.label] = states[None].clone()
                return 0.0

            patches = [place.patch(values[place.site]) for place in missing]
            self.values(i)
            sweep(
                self.model,
                inputs,
                inputs,
                patches,
                self.metrics[i],
                observe=keep,
                plain=self.plain,
                memory_gb=memory_gb,
            )
            self.forwards += len(missing)
        return [self._ends[i, place.name] for place in places]

    @torch.no_grad()
    def _run(self, i: int) -> Cache:
        adapter, inputs = self.model.adapter, self.inputs[i]
        sites = [
            Site(stack, layer, point)
            for stack, spec in adapter.stacks.items()
            if stack != "frontend"
            for layer in range(spec.n_layers)
            for point in _POINTS
            if point in spec.points
        ]
        if self.heard is None:
            found = self.plain.values(adapter, [inputs], sites)
            values = {site: found[site] for site in sites}
            self.forwards += 1
        else:
            before = self.heard.values(i)
            with hearing(adapter, self.heard.encoded(i)):
                after = capture_until(adapter, inputs, [site for site in sites if site.stack == "decoder"])
            values = {site: after[site] if site.stack == "decoder" else before[site] for site in sites}
            self.plain.remember(adapter, inputs, values)
            self.forwards += 1
        metric, last = self.metrics[i], adapter.order[-1]
        end = values[Site(last, adapter.stacks[last].n_layers - 1, "resid_post")][:, [metric.position]]
        vocab = torch.tensor(metric.vocab, device=end.device)
        return Cache({**values, LOGITS: adapter.unembed(adapter.final(last, end), vocab)})


class Case:
    """One question: which of the places?

    Attributes:
        name: of the case, such as the fault's; methods that draw at random seed themselves by it.
        places: the candidates.
        arm: what is compared (see the module).
        chain: whether the places are the stream after each layer, in order: then the step of a score counts.
        seed: of every random choice.
        forwards: how many plain or patched runs were computed so far (a run with slopes counts three times).
    """

    def __init__(
        self,
        name: str,
        places: Sequence[Place],
        base: Side,
        donor: Side,
        arm: Arm = "repair",
        *,
        healthy: Sequence[tuple[nn.Parameter, Tensor]] = (),
        chain: bool = False,
        seed: int = 0,
        items: Sequence[int] | None = None,
        memory_gb: float = 0.5,
    ):
        """Args:
        name, places, base, donor, arm, chain, seed: see the class and :class:`Side`.
        healthy: the parameters in which the base's model differs from the donor's, with the donor's values.
        items: which of the sides' items; None for all.
        memory_gb: budget for one batch of patched runs.
        """
        self.name, self.places, self.chain, self.seed = name, tuple(places), chain, seed
        self.arm: Arm = arm
        self.base, self.donor = base, donor
        self.items = list(range(len(base.inputs))) if items is None else list(items)
        self.memory_gb = memory_gb
        self._healthy = list(healthy)
        self._patched = 0.0
        self._slopes: dict[tuple[int, float], dict[Site, Tensor]] = {}
        self._started = base.forwards + donor.forwards

    @property
    def model(self) -> Model:
        """The model of the base run."""
        return self.base.model

    @property
    def n_items(self) -> int:
        """How many items it compares."""
        return len(self.items)

    @property
    def forwards(self) -> float:
        """Runs computed for this case so far."""
        return self._patched + self.base.forwards + self.donor.forwards - self._started

    def inputs(self, i: int) -> Inputs:
        """The base run's inputs."""
        return self.base.inputs[self.items[i]]

    def metric(self, i: int) -> LogitDiff:
        """What is read of an item."""
        return self.base.metrics[self.items[i]]

    def base_values(self, i: int) -> Cache:
        """The base run's values at every place's whole site."""
        return self.base.values(self.items[i])

    def donor_values(self, i: int) -> Cache:
        """The donor run's values at every place's whole site."""
        return self.donor.values(self.items[i])

    def base_metric(self, i: int) -> float:
        """Logit of the answer minus logit of the foil in the base run."""
        return self.base.metric(self.items[i])

    def donor_metric(self, i: int) -> float:
        """The same in the donor run."""
        return self.donor.metric(self.items[i])

    def changed(self, i: int) -> dict[Site, bool]:
        """Whether base and donor differ at each whole site, bit by bit."""
        base, donor = self.base_values(i), self.donor_values(i)
        sites = dict.fromkeys(place.site for place in self.places)
        return {site: base[site] is not donor[site] and not torch.equal(base[site], donor[site]) for site in sites}

    def first(self, n: int) -> Case:
        """The same question about its first ``n`` items, for a method that asks much of each."""
        part = copy.copy(self)
        part.items = self.items[:n]
        return part

    # -- exact answers -----------------------------------------------------------------------------------------------

    def patched(self, i: int, places: Sequence[Place]) -> Float[np.ndarray, " place"]:
        """The metric with the donor's value put into one place at a time, exactly.

        Places whose values are equal in both runs cost nothing: the patched run is the base run.
        """
        base, donor = self.base_values(i), self.donor_values(i)
        found = np.full(len(places), self.base_metric(i))
        asked: list[int] = []
        for j, place in enumerate(places):
            if place.site == LOGITS:
                found[j] = self.donor_metric(i)
            elif not torch.equal(place.of(base[place.site]), place.of(donor[place.site])):
                asked.append(j)
        if asked:
            inputs = self.inputs(i)
            patches = self._patches(i, [places[j] for j in asked])
            result = sweep(
                self.model, inputs, inputs, patches, self.metric(i), plain=self.base.plain, memory_gb=self.memory_gb
            )
            if result.interrupted:
                raise KeyboardInterrupt
            found[asked] = next(iter(result.values.values()))
            self._patched += len(asked)
        return found

    def _patches(self, i: int, places: Sequence[Place]) -> list[Patch]:
        """The donor's values as patches; those of an encoder that is healthy on both sides by what becomes of its end."""
        donor = self.donor_values(i)
        heard, hears = self.base.heard, self.donor.heard
        if heard is None or hears is None:
            return [place.patch(donor[place.site]) for place in places]
        encoder = [place for place in places if place.site.stack == "encoder"]
        ends = dict(zip((p.name for p in encoder), heard.ends(self.items[i], encoder, hears, self.memory_gb)))
        last = Site("encoder", self.model.stacks["encoder"].n_layers - 1, "resid_post")
        return [
            Patch(last, value=ends[place.name], label=place.name)
            if place.name in ends
            else place.patch(donor[place.site])
            for place in places
        ]

    # -- slopes --------------------------------------------------------------------------------------------------------

    def slopes(self, i: int, at: float = 0.0, *, everywhere: bool = False) -> dict[Site, Tensor]:
        """Slope of the metric at every whole site, ``[1, pos, ...]``, in a run between base and donor.

        Args:
            i: the item.
            at: 0 is the base run, 1 the donor's. Where the models differ, their weights are that share of the way;
                where the inputs differ, what enters the encoder (or, with equal sounds, the decoder) is.
            everywhere: also where base and donor have the same value; otherwise slopes there are given as zeros.
        """
        changed = self.changed(i)
        base = self.base_values(i)
        sites = whole_sites(self.places)
        wanted = [site for site in sites if everywhere or changed[site]]
        found: dict[Site, Tensor] = {
            site: torch.zeros(()).expand_as(base[site]) for site in sites if site not in wanted
        }
        metric = self.metric(i)
        if LOGITS in changed:
            found[LOGITS] = torch.tensor([[[1.0, -1.0]]], dtype=base[LOGITS].dtype)
        known = self._slopes.get((self.items[i], at), {})
        if all(site in known for site in wanted):
            return found | {site: known[site] for site in wanted}
        known_encoder = self._known_encoder(wanted)
        # a run of the whole model gives all slopes for the price of one
        taken = wanted if known_encoder else sites
        nudges: dict[Site, Tensor] = {}

        def nudge(site: Site) -> Intervention:
            # heads are a view and other sites a sum, so the slope is taken at a zero that is added there
            def change(value: Tensor, _at: Tensor) -> Tensor:
                nudges[site] = torch.zeros_like(value, requires_grad=True)
                return value + nudges[site]

            return Intervention(site, change, name="slope")

        with ExitStack() as stack:
            if at:
                stack.enter_context(self._between(at))
            if known_encoder:
                stack.enter_context(hearing(self.model.adapter, self.base.encoded(self.items[i])))
            entry = self._entering(i, at)
            run = self.model.run(self.inputs(i), [*entry, *(nudge(site) for site in taken)], grad=True)
            pair = run.logits[0, metric.position, list(metric.vocab)]
            slopes = torch.autograd.grad(pair[0] - pair[1], [nudges[s] for s in taken], materialize_grads=True)
        self._patched += SLOPE_COST
        known = self._slopes[self.items[i], at] = dict(zip(taken, slopes))
        return found | {site: known[site] for site in wanted}

    @contextmanager
    def _between(self, at: float) -> Iterator[None]:
        """The base's model with its differing weights a share of the way to the donor's."""
        kept = [(parameter, parameter.data) for parameter, _ in self._healthy]
        try:
            for parameter, healthy in self._healthy:
                parameter.data = torch.lerp(parameter.data, healthy, at)
            yield
        finally:
            for parameter, own in kept:
                parameter.data = own

    def _entering(self, i: int, at: float) -> list[Intervention]:
        """What enters the model, a share of the way from the base's input to the donor's."""
        if not at or self._healthy:
            return []
        base, donor = self.base_values(i), self.donor_values(i)
        for stack in ("encoder", "decoder"):
            site = Site(stack, 0, "resid_pre")
            if site in base and not torch.equal(base[site], donor[site]):
                return [replace_with(site, torch.lerp(base[site], donor[site], at))]
        return []

    def _known_encoder(self, wanted: Sequence[Site]) -> bool:
        """Whether the encoder need not be run: only the decoder differs, and only its slopes are asked for."""
        return self.base.heard is not None and all(site.stack == "decoder" for site in wanted)


def scored(score: Any, case: Case) -> Float[np.ndarray, "row place"]:
    """A method's scores of a case as rows (one row where it pools the items); in a chain, the rises from place to place.

    The stream after a fault is repaired by any later layer too, so what counts is where the repair begins: how much the
    score of a place exceeds all scores before it (and 0). The decoder's streams repair an encoder's fault only in part,
    until its cross-attention has heard the repaired sound; they follow the encoder's, so they add no rise.

    Raises:
        TaskError: the method gave another number of places.
    """
    rows = np.atleast_2d(np.asarray(score(case), dtype=float))
    if rows.shape[-1] != len(case.places):
        raise TaskError(
            f"the method gave {rows.shape[-1]} scores for {len(case.places)} places: give one per place, [item, place] or "
            "[place]."
        )
    if not case.chain:
        return rows
    highest = np.fmax.accumulate(np.fmax(rows, 0.0), axis=1)
    return np.where(np.isnan(rows), np.nan, np.diff(highest, axis=1, prepend=0.0))
