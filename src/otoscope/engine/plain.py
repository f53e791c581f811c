"""Plain runs: unpatched forwards that sweeps take values from, computed once for every different input."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from otoscope.engine.capture import Cache, capture_until
from otoscope.models.adapter import Adapter
from otoscope.models.inputs import Inputs
from otoscope.models.linear import fast_linears
from otoscope.models.site import Site


class PlainRuns:
    """What plain runs computed, kept for later sweeps of the same inputs.

    A study that patches each of an item's runs in turn gives one of these to all of its sweeps (``sweep(..., plain=runs)``),
    and every input is run once. It knows inputs by their content and forgets everything when it is given another model;
    after a change of the weights, or inside other interventions, make a new one.

    Args:
        keep: how many runs are kept; those that were not asked for longest go first.
    """

    def __init__(self, keep: int = 8):
        self.keep = keep
        self._adapter: Adapter | None = None
        self._kept: list[tuple[Inputs, dict[Site, Tensor]]] = []

    def values(self, adapter: Adapter, items: Sequence[Inputs], sites: Collection[Site]) -> Cache:
        """Values at ``sites``, ``[item, ...]`` in the order of ``items``, which are one item each and of equal shapes."""
        if adapter is not self._adapter:
            self._adapter, self._kept = adapter, []
        different: list[Inputs] = []
        place = []
        for item in items:
            known = next((i for i, other in enumerate(different) if _same(item, other)), None)
            place.append(len(different) if known is None else known)
            if known is None:
                different.append(item)
        found = [self._find(item, sites) for item in different]
        missing = [i for i, values in enumerate(found) if values is None]
        if missing:
            with fast_linears(adapter.hf):
                made = capture_until(adapter, Inputs.stack([different[i] for i in missing]), list(sites))
            if len(missing) == len(items):
                self._store([(item, _part(made, i)) for i, item in enumerate(items)])
                return made
            for row, i in enumerate(missing):
                found[i] = _part(made, row)
        runs = [(item, values) for item, values in zip(different, found) if values is not None]
        self._store(runs)
        return Cache({site: torch.cat([runs[i][1][site] for i in place]) for site in sites})

    def remember(self, adapter: Adapter, item: Inputs, values: dict[Site, Tensor]) -> None:
        """Keep what is known of a plain run from elsewhere: ``values`` ``[1, ...]`` by site, of one item."""
        if adapter is not self._adapter:
            self._adapter, self._kept = adapter, []
        self._store([(item, values)])

    def _find(self, item: Inputs, sites: Collection[Site]) -> dict[Site, Tensor] | None:
        return next((v for kept, v in self._kept if _same(kept, item) and all(site in v for site in sites)), None)

    def _store(self, runs: list[tuple[Inputs, dict[Site, Tensor]]]) -> None:
        """Remember these runs, and as many of the earlier ones as there is room for."""
        used = [values for _, values in runs]
        earlier = [run for run in self._kept if not any(run[1] is values for values in used)]
        self._kept = (runs + earlier)[: self.keep]


def _part(cache: Cache, item: int) -> dict[Site, Tensor]:
    return {site: cache[site][item : item + 1] for site in cache.sites()}


def _same(a: Inputs, b: Inputs) -> bool:
    """Whether two items hold the same numbers, bit by bit."""

    def parts(inputs: Inputs) -> dict[str, Tensor | None]:
        own = {"features": inputs.features, "feature_mask": inputs.feature_mask, "tokens": inputs.tokens}
        return {**own, **inputs.extra}

    mine, others = parts(a), parts(b)

    def equal(x: Tensor | None, y: Tensor | None) -> bool:
        return x is y or (x is not None and y is not None and torch.equal(x, y))

    return (
        a.n_samples == b.n_samples
        and mine.keys() == others.keys()
        and all(equal(x, others[k]) for k, x in mine.items())
    )
