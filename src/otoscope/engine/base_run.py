"""The two (or more) plain runs a sweep compares: every value that a replay can need, captured in one forward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from otoscope.engine.capture import Cache, capture_until
from otoscope.engine.metrics import Reading
from otoscope.engine.patch import Patch
from otoscope.models.adapter import Adapter
from otoscope.models.inputs import Inputs
from otoscope.models.linear import fast_linears
from otoscope.models.site import PATTERN_POINTS, Site

#: what a layer's own computing after a patched point reads of the base run
_ALSO = {
    "pattern": ("pattern", "z"),
    "z": ("z",),
    "cross_pattern": ("cross_pattern", "cross_z", "attn_out"),
    "cross_z": ("cross_z", "attn_out"),
    "cross_attn_out": ("attn_out",),
    "mlp_post": ("mlp_post", "resid_mid"),
    "mlp_out": ("resid_mid",),
}


@dataclass(frozen=True)
class BaseRun:
    """Captured values of the base run (item 0) and the donors (the items after it).

    Attributes:
        adapter: the model.
        inputs: base and donors as one batch.
        cache: values, ``[1 + donors, ...]``.
        reading: what the metrics read.
        logits: ``[1 + donors, P, V]`` of every plain run at the read positions and tokens.
    """

    adapter: Adapter
    inputs: Inputs
    cache: Cache
    reading: Reading
    logits: Float[Tensor, "item pos vocab"]

    @classmethod
    def of(
        cls, adapter: Adapter, base: Inputs, donors: Sequence[Inputs], patches: Sequence[Patch], reading: Reading
    ) -> BaseRun:
        """Run base and donors together, once, and keep what replaying ``patches`` can need."""
        wanted: set[Site] = set()
        last = adapter.order[-1]
        sites = [Site.parse(p.site).whole for p in patches]
        entered = [Site("encoder", 0, "resid_pre") if s.stack == "frontend" else s for s in sites]
        for stack in {s.stack for s in entered} | {last}:
            spec = adapter.stacks[stack]
            lowest = min((s.layer for s in entered if s.stack == stack), default=spec.n_layers)
            wanted |= {Site(stack, layer, "resid_pre") for layer in range(lowest, spec.n_layers)}
            wanted.add(Site(stack, spec.n_layers - 1, "resid_post"))
        for site in sites:
            wanted.add(site)
            wanted |= {Site(site.stack, site.layer, point) for point in _ALSO.get(site.point, ())}
        if "encoder" in adapter.stacks:
            wanted.add(Site("encoder", adapter.stacks["encoder"].n_layers - 1, "resid_post"))
        inputs = Inputs.stack([base, *donors])
        with fast_linears(adapter.hf):
            cache = capture_until(adapter, inputs, list(wanted))
        end = cache[Site(last, adapter.stacks[last].n_layers - 1, "resid_post")][:, list(reading.positions)]
        vocab = None if reading.vocab is None else torch.tensor(reading.vocab, device=end.device)
        with torch.no_grad():
            logits = adapter.unembed(adapter.final(last, end), vocab)
        return cls(adapter, inputs, cache, reading, logits)

    def value(self, site: Site) -> Tensor:
        """Base value at a whole site, ``[1, pos, ...]``."""
        return self.cache[site.whole][:1]

    def stream(self, stack: str, layer: int) -> Float[Tensor, "1 pos d_model"]:
        """Base residual stream before ``layer``; after the last layer where ``layer`` is their number."""
        n = self.adapter.stacks[stack].n_layers
        return self.value(Site(stack, layer, "resid_pre") if layer < n else Site(stack, n - 1, "resid_post"))

    def n_positions(self, site: Site) -> int:
        """Positions (frames, tokens, or query rows of a pattern) at a captured site."""
        return self.cache[site.whole].shape[2 if site.point in PATTERN_POINTS else 1]

    @cached_property
    def encoded(self) -> Float[Tensor, "1 frame d_model"]:
        """Encoder output that the base run's decoder attends to."""
        n = self.adapter.stacks["encoder"].n_layers
        return self.adapter.final("encoder", self.stream("encoder", n))

    @cached_property
    def shared_prefix(self) -> list[int]:
        """Per donor: leading decoder positions whose values must equal the base's, because nothing before them differs."""
        tokens = self.inputs.tokens
        if tokens is None or self.inputs.features is not None:
            return [0] * (self.inputs.batch - 1)
        differs = tokens[1:] != tokens[:1]
        return [int(row.int().argmax()) if row.any() else tokens.shape[1] for row in differs]

    def same(self, patch: Patch) -> bool:
        """Whether the donor's value equals the base's there, so that patching changes nothing."""
        if patch.value is not None:
            return False
        site = Site.parse(patch.site).whole
        if site.stack == "decoder" and patch.positions is not None:
            if max(patch.positions) < self.shared_prefix[patch.donor]:
                return True
        return self._equal_positions(site, patch.donor).issuperset(
            patch.positions if patch.positions is not None else range(self.n_positions(site))
        )

    def _equal_positions(self, site: Site, donor: int) -> frozenset[int]:
        memo: dict[tuple[Site, int], frozenset[int]] = self.__dict__.setdefault("_equal", {})
        if (site, donor) not in memo:
            both = self.cache[site]
            equal = both[donor + 1] == both[0]
            if site.point in PATTERN_POINTS:
                equal = equal.transpose(0, 1)
            flags = equal.flatten(1).all(1).nonzero().flatten().tolist()
            memo[site, donor] = frozenset(flags)
        return memo[site, donor]
