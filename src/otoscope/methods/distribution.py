"""Out of distribution? How far the states that a patched run leaves downstream are from the natural ones.

The natural states, the three measures and their honest thresholds are in :mod:`otoscope.methods.natural`; this file asks
about patches. A patch is a cell of some positions, so it is compared with natural windows of as many positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from otoscope.engine.capture import Cache, capture_until
from otoscope.engine.model import Model
from otoscope.engine.patch import Patch
from otoscope.errors import SiteError
from otoscope.methods.natural import SINGLE, Departure, Measure, Natural, fit, positions, states_of, vector_sites
from otoscope.models.inputs import Inputs
from otoscope.models.site import POINTS, Site

__all__ = ["Departure", "Measure", "Natural", "PatchDepartures", "departures", "fit"]


@dataclass(frozen=True)
class PatchDepartures:
    """How far patched runs leave the natural states downstream; NaN (and False) where a site lies before the patch.

    Attributes:
        patches: what was patched.
        sites: where it was looked.
        values: measure -> mean over the cell's positions ``[patch, site]``.
        base: the same positions of the unpatched run.
        flags: ``[patch, site]``, beyond the ``level`` of natural windows as wide as the cell.
        base_flags: the same for the unpatched run: what is strange already has not become so by patching.
        level: share of natural windows that are not flagged.
    """

    patches: list[Patch]
    sites: list[str]
    values: dict[str, Float[np.ndarray, "patch site"]]
    base: dict[str, Float[np.ndarray, "patch site"]]
    flags: Bool[np.ndarray, "patch site"]
    base_flags: Bool[np.ndarray, "patch site"]
    level: float

    def flagged(self) -> Bool[np.ndarray, " patch"]:
        """Patches flagged at some site where the unpatched run is not. Over S sites a natural run has up to S times
        ``1 - level`` as its chance."""
        return np.asarray((self.flags & ~self.base_flags).any(1))

    def table(self) -> dict[str, list[Any]]:
        """Columns for a CSV file, one line per patch and site."""
        cells = [(p, s) for p in range(len(self.patches)) for s in range(len(self.sites))]
        columns: dict[str, list[Any]] = {
            "patch": [str(self.patches[p].site) for p, _ in cells],
            "positions": [self.patches[p].describe()["positions"] for p, _ in cells],
            "site": [self.sites[s] for _, s in cells],
        }
        for name in self.values:
            columns[name] = [float(self.values[name][c]) for c in cells]
            columns[f"{name}.base"] = [float(self.base[name][c]) for c in cells]
        return columns | {
            "flag": [bool(self.flags[c]) for c in cells],
            "flag.base": [bool(self.base_flags[c]) for c in cells],
        }


def departures(
    model: Model,
    natural: Natural,
    base: Inputs,
    donor: Inputs | Sequence[Inputs],
    patches: Sequence[Patch],
    sites: str | Site | Iterable[str | Site] | None = None,
    *,
    level: float = 0.99,
    measure: Measure = "any",
    progress: Callable[[int, int], None] | None = None,
) -> PatchDepartures:
    """Run every patch with hooks and measure the states it leaves behind.

    A patch is judged at sites from its own on: at the patched positions within its stack, at all positions of later
    stacks, padding and skipped positions left out.

    Args:
        model: the model.
        natural: from :func:`fit`, on other recordings.
        base: the run to be patched, one item.
        donor: the run(s) that values come from.
        patches: what to patch; one forward each, so ask about the cells that matter.
        sites: where to look; all fitted sites by default.
        level: share of natural windows that must not be flagged.
        measure: which measure flags.
        progress: called with (done, total) after every patch.

    Raises:
        SiteError: a patch or site names what is not there, or a site was not fitted.
        TaskError: base and donors have unequal lengths.
    """
    adapter = model.adapter
    looked = vector_sites(model, natural.spaces if sites is None else sites)
    for site in looked:
        natural.space(site)
    donors = [donor] if isinstance(donor, Inputs) else list(donor)
    for patch in patches:
        patch.checked(model.stacks, 10**9, model.name)
        if not 0 <= patch.donor < len(donors):
            raise SiteError(f"the patch of '{patch.site}' names donor {patch.donor}, but {len(donors)} were given.")
    Inputs.stack([base, *donors])  # refuses unequal lengths
    wholes = [Site.parse(p.site).whole for p in patches]
    plain = capture_until(adapter, base, [s.whole for s in looked])
    given = capture_until(adapter, Inputs.stack(donors), wholes) if patches else Cache({})
    shape = (len(patches), len(looked))
    values, before = ({m: np.full(shape, np.nan) for m in SINGLE} for _ in range(2))
    flags, base_flags = np.zeros(shape, bool), np.zeros(shape, bool)
    valid = {site: positions(model, site, base, 0, natural.skip) for site in looked}
    measured = {site: natural.score(site, states_of(plain, site, 0)[at]) for site, at in valid.items()}
    for p, (patch, whole) in enumerate(zip(patches, wholes)):
        change = patch.intervention(given[whole][patch.donor : patch.donor + 1])
        later = [(s, site) for s, site in enumerate(looked) if _order(model, site) >= _order(model, whole)]
        run = capture_until(adapter, base, [site.whole for _, site in later], [change]) if later else Cache({})
        for s, site in later:
            here = np.ones(len(valid[site]), bool)
            if site.stack == whole.stack and patch.positions is not None:
                here = np.isin(valid[site], patch.positions)
            if not here.any():
                continue
            patched = natural.score(site, states_of(run, site, 0)[valid[site][here]])
            unpatched = measured[site].at(here)
            limit = natural.threshold(site, measure, int(here.sum()), level)
            for table, mark, departure in ((values, flags, patched), (before, base_flags, unpatched)):
                mark[p, s] = natural.strangeness(site, departure, measure).mean() > limit
                for name in SINGLE:
                    table[name][p, s] = getattr(departure, name).mean()
        if progress:
            progress(p + 1, len(patches))
    return PatchDepartures(list(patches), [str(s) for s in looked], values, before, flags, base_flags, level)


def _order(model: Model, site: Site) -> tuple[int, int, int]:
    return model.adapter.order.index(site.stack), site.layer, POINTS.index(site.point)
