"""A patch: one "what if this were that" question, to be asked in a sweep or on its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from otoscope.engine.intervene import Intervention, replace_with
from otoscope.errors import SiteError
from otoscope.models.site import HEAD_POINTS, Site, StackSpec, check


@dataclass(frozen=True, eq=False)
class Patch:
    """Put the donor's value at ``site`` into the base run.

    Attributes:
        site: where; an index names one head (``decoder.1.z.3``) or neuron (``decoder.1.mlp_post.40``).
        positions: frames or tokens to patch; None for all.
        heads: heads to patch, instead of an index.
        neurons: channels of the last dimension to patch, instead of an index.
        donor: which donor the value comes from, where a sweep has several.
        value: an explicit value for the whole site (``[1, pos, ...]``) instead of a donor's.
        label: free text kept beside the result.
    """

    site: Site | str
    positions: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None
    neurons: tuple[int, ...] | None = None
    donor: int = 0
    value: Tensor | None = None
    label: str = ""

    def intervention(self, donor_value: Tensor) -> Intervention:
        """The same change as a hook, for the naive path."""
        site = Site.parse(self.site)
        heads, neurons = self.parts()
        value = donor_value if self.value is None else self.value
        return replace_with(site.whole, value, positions=self.positions, heads=heads, neurons=neurons)

    def parts(self) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
        """Heads and neurons, with the site's own index counted in."""
        site = Site.parse(self.site)
        if site.index is None:
            return self.heads, self.neurons
        return ((site.index,), self.neurons) if site.point in HEAD_POINTS else (self.heads, (site.index,))

    def checked(self, stacks: Mapping[str, StackSpec], n_positions: int, model: str) -> Patch:
        """Itself, if the model and the inputs have what it names.

        Raises:
            SiteError: unknown site, head, neuron or position.
        """
        site = check(Site.parse(self.site), stacks, model)
        heads, _ = self.parts()
        spec = stacks[site.stack]
        if heads is not None and site.point not in HEAD_POINTS:
            raise SiteError(f"'{site}' has no heads: name z, pattern, cross_z or cross_pattern.")
        if heads is not None and not all(0 <= h < spec.n_heads for h in heads):
            raise SiteError(f"'{site}' has heads 0 to {spec.n_heads - 1}, not {heads}.")
        if self.positions is not None:
            bad = [p for p in self.positions if not 0 <= p < n_positions]
            if list(self.positions) != sorted(set(self.positions)):
                raise SiteError(
                    f"the positions of a patch of '{site}' are {self.positions}: give them in order, each once."
                )
            if bad or not self.positions:
                raise SiteError(f"'{site}' has positions 0 to {n_positions - 1}, not {bad or 'an empty set'}.")
        return self

    def describe(self) -> dict[str, Any]:
        """JSON-ready, for results and for keys of the resume store."""
        return {
            "site": str(self.site),
            "positions": None if self.positions is None else list(self.positions),
            "heads": None if self.heads is None else list(self.heads),
            "neurons": None if self.neurons is None else list(self.neurons),
            "donor": self.donor,
            "label": self.label,
        }


def merge(
    base: Tensor, new: Tensor, heads: tuple[int, ...] | None, neurons: tuple[int, ...] | None, head_axis: int
) -> Tensor:
    """``new`` in the chosen heads and channels, ``base`` elsewhere; shapes broadcast."""
    if heads is None and neurons is None:
        return new.expand_as(base) if new.shape != base.shape else new
    mask = torch.ones((), dtype=torch.bool, device=base.device)
    for chosen, axis in ((heads, head_axis % base.ndim), (neurons, base.ndim - 1)):
        if chosen is not None:
            flags = torch.zeros(base.shape[axis], dtype=torch.bool, device=base.device)
            flags[list(chosen)] = True
            mask = mask & flags.view([-1 if i == axis else 1 for i in range(base.ndim)])
    return torch.where(mask, new, base)
