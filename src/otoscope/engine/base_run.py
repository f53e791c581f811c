"""The two (or more) plain runs a sweep compares: every value that a replay can need, captured in one forward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from otoscope.engine.capture import Cache
from otoscope.engine.metrics import Reading
from otoscope.engine.patch import Patch
from otoscope.engine.plain import PlainRuns
from otoscope.models.adapter import Adapter
from otoscope.models.inputs import Inputs
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

#: what an audio-LLM's language model reads: text, and the sound among it
_READS = Site("decoder", 0, "resid_pre")


def crosses(adapter: Adapter) -> bool:
    """Whether the last stack attends to the encoder (Whisper); an audio-LLM reads the sound among its tokens instead."""
    return "cross_z" in adapter.stacks[adapter.order[-1]].points


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
    _equal: dict[Site, Bool[np.ndarray, "donor pos"]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        adapter: Adapter,
        base: Inputs,
        donors: Sequence[Inputs],
        patches: Sequence[Patch],
        reading: Reading,
        plain: PlainRuns | None = None,
    ) -> BaseRun:
        """Run base and donors together, once, and keep what replaying ``patches`` can need; runs in ``plain`` are not run
        again."""
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
        if crosses(adapter):
            wanted.add(Site("encoder", adapter.stacks["encoder"].n_layers - 1, "resid_post"))
        if adapter.listens_and_reads:
            # where the tower is patched, the language model is replayed from its first layer
            n = 1 if all(s.stack == last for s in sites) else adapter.stacks[last].n_layers
            wanted |= {Site(last, layer, "resid_pre") for layer in range(n)}
        wanted = {site for site in wanted if site.point in adapter.stacks[site.stack].points}
        inputs = Inputs.stack([base, *donors])
        cache = (plain or PlainRuns()).values(adapter, [base, *donors], wanted)
        end = cache[Site(last, adapter.stacks[last].n_layers - 1, "resid_post")][:, list(reading.positions)]
        vocab = None if reading.vocab is None else torch.tensor(reading.vocab, device=end.device)
        with torch.no_grad():
            logits = adapter.unembed(adapter.final(last, end), vocab)
        return cls(adapter, inputs, cache, reading, logits)

    def value(self, site: Site, item: int = 0) -> Tensor:
        """Value of one plain run (0 is the base, ``d + 1`` donor ``d``) at a whole site, ``[1, pos, ...]``."""
        return self.cache[site.whole][item : item + 1]

    def stream(self, stack: str, layer: int, item: int = 0) -> Float[Tensor, "1 pos d_model"]:
        """A plain run's residual stream before ``layer``; after the last layer where ``layer`` is their number."""
        n = self.adapter.stacks[stack].n_layers
        return self.value(Site(stack, layer, "resid_pre") if layer < n else Site(stack, n - 1, "resid_post"), item)

    def n_positions(self, site: Site) -> int:
        """Positions (frames, tokens, or query rows of a pattern) at a captured site."""
        return self.cache[site.whole].shape[2 if site.point in PATTERN_POINTS else 1]

    @cached_property
    def encoded(self) -> Float[Tensor, "1 frame d_model"]:
        """Encoder output that the base run's decoder attends to."""
        n = self.adapter.stacks["encoder"].n_layers
        return self.adapter.final("encoder", self.stream("encoder", n))

    def same_sound(self, donor: int) -> bool:
        """Whether a donor's sound is the base's, bit by bit; True where there is none."""
        given = [
            t for t in (self.inputs.features, self.inputs.feature_mask, *self.inputs.extra.values()) if t is not None
        ]
        return all(torch.equal(t[donor + 1], t[0]) for t in given)

    def closed(self, donor: int) -> bool:
        """Whether no cross-attention to another sound can make the last stack's positions differ from a donor's."""
        return not crosses(self.adapter) or self.same_sound(donor)

    @cached_property
    def shared_prefix(self) -> tuple[int, ...]:
        """Per donor: leading decoder positions that must equal the base's in every layer, since what they see is the same."""
        tokens = self.inputs.tokens
        if tokens is None:
            return (0,) * (self.inputs.batch - 1)
        found = []
        for donor in range(self.inputs.batch - 1):
            if self.same_sound(donor):
                differs = tokens[donor + 1] != tokens[0]
            elif self.closed(donor) and _READS in self.cache:
                differs = (self.cache[_READS][donor + 1] != self.cache[_READS][0]).any(-1)
            else:
                differs = torch.ones_like(tokens[0], dtype=torch.bool)
            found.append(int(differs.int().argmax()) if differs.any() else len(differs))
        return tuple(found)

    def equal(self, site: Site) -> Bool[np.ndarray, "donor pos"]:
        """Where each donor's value at a site equals the base's: bit by bit, or because all that it sees is the same."""
        if site not in self._equal:
            both = self.cache[site]
            if site.point in PATTERN_POINTS:
                both = both.transpose(1, 2)
            equal = (both[1:] == both[:1]).flatten(2).all(2).cpu().numpy()
            if site.stack == "decoder":
                for donor, n in enumerate(self.shared_prefix):
                    equal[donor, :n] = True
            self._equal[site] = equal
        return self._equal[site]
