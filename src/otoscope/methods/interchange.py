"""Runs of conflict items, kept so that a subspace of their states can be exchanged and trained on from any layer.

Everything that an exchange at layer k cannot change is computed once, without gradients: the streams at the layers asked
for, and the keys and values of the positions before the exchanged ones in all later layers. What is left is the suffix from
layer k on, as arithmetic steps on the model's own weights (:class:`otoscope.models.block.Block`), which gradients pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from otoscope.engine.capture import capture_until
from otoscope.errors import ModelError
from otoscope.methods.grounding import Corners
from otoscope.methods.label_sweep import Tail, place_labels, tails, with_tail
from otoscope.models.adapter import Adapter
from otoscope.models.block import Block
from otoscope.models.inputs import Inputs
from otoscope.models.site import Site

PairSide = Literal["audio", "text"]

_CORNERS = ("ab", "bb", "aa", "ba")
#: per side: base corner, source corner, and the source's label (0 the sound's A, 1 the text's B); the base agrees with
#: itself, so that the answer can only come from the exchange
_PAIRS: dict[str, tuple[tuple[str, str, int], ...]] = {
    "audio": (("bb", "ab", 0), ("aa", "ba", 1)),
    "text": (("bb", "ba", 0), ("aa", "ab", 1)),
}


@dataclass(frozen=True)
class Pair:
    """One exchange: states of ``source`` go into ``base``, and the answer should become the label ``target``."""

    item: int
    base: str
    source: str
    target: int


def pairs(side: PairSide, items: Sequence[int]) -> list[Pair]:
    """Both exchanges of every item on one side."""
    return [Pair(i, *one) for i in items for one in _PAIRS[side]]


class States:
    """The kept states of items that share their layout.

    Args:
        adapter: the model.
        items: items of equal layout.
        layers: decoder layers at which exchanges will be made.
        batch_size: runs computed together.

    Raises:
        ModelError: the decoder attends to an encoder, so its positions alone do not hold the sound.
    """

    def __init__(self, adapter: Adapter, items: Sequence[Corners], layers: Sequence[int], batch_size: int = 8):
        self.adapter, self.items = adapter, list(items)
        self.blocks: list[Block] = adapter.blocks("decoder")
        if self.blocks[0].cross is not None:
            raise ModelError(
                f"{adapter.name} hears by cross-attention, not at decoder positions: use grounding_asr for it instead."
            )
        asked = items[0].ab
        self.group = {"audio": asked.groups["audio"], "text": asked.groups["context"]}
        self.first = {side: min(at) for side, at in self.group.items()}
        self.start = asked.groups["answer"][0]
        self.tails = [tails(item.labels) for item in items]
        # all runs of the group have one length, so that they can share a batch; what is appended is never read
        self.n_tail = max(len(tail.tokens) for own in self.tails for tail in own)
        self._runs = [
            (i, corner, t) for i in range(len(items)) for corner in _CORNERS for t in range(len(self.tails[i]))
        ]
        self._row = {run: row for row, run in enumerate(self._runs)}
        self._begin = min(self.first.values())
        self._streams: dict[int, Float[Tensor, "run pos d_model"]] = {}
        self._keys: dict[int, Float[Tensor, "run kv_head prefix d_head"]] = {}
        self._values: dict[int, Float[Tensor, "run kv_head prefix d_head"]] = {}
        self._capture(sorted(set(layers)), batch_size)

    @torch.no_grad()
    def _capture(self, layers: list[int], batch_size: int) -> None:
        n_layers = self.adapter.stacks["decoder"].n_layers
        needed = [Site("decoder", layer, "resid_pre") for layer in range(layers[0], n_layers)]
        before = torch.arange(max(self.first.values()), device=self.adapter.device)
        streams: dict[int, list[Tensor]] = {layer: [] for layer in layers}
        keys: dict[int, list[Tensor]] = {site.layer: [] for site in needed}
        values: dict[int, list[Tensor]] = {site.layer: [] for site in needed}
        for a in range(0, len(self._runs), batch_size):
            batch = Inputs.stack([self._inputs(run) for run in self._runs[a : a + batch_size]])
            cache = capture_until(self.adapter, batch, needed)
            for site in needed:
                block, x = self.blocks[site.layer], cache[site]
                h = block.attn_input(x[:, : len(before)])
                keys[site.layer].append(block.attn.keys(h, before))
                values[site.layer].append(block.attn.values(h))
                if site.layer in streams:
                    streams[site.layer].append(x[:, self._begin :])
        self._streams = {layer: torch.cat(parts) for layer, parts in streams.items()}
        self._keys = {layer: torch.cat(parts) for layer, parts in keys.items()}
        self._values = {layer: torch.cat(parts) for layer, parts in values.items()}

    def _inputs(self, run: tuple[int, str, int]) -> Inputs:
        item, corner, t = run
        tail = self.tails[item][t].tokens
        filler = self.items[item].audio_label[:1] * (self.n_tail - len(tail))
        return with_tail(getattr(self.items[item], corner).inputs, self.start, (*tail, *filler))

    def differences(self, side: PairSide, layer: int, chosen: Sequence[Pair]) -> Float[Tensor, "state d_model"]:
        """What an exchange of everything would add at the positions of a side, over all chosen pairs."""
        base, source, _ = self._rows(chosen)
        at = torch.tensor(self.group[side], device=self.adapter.device) - self._begin
        x = self._streams[layer]
        return (x[source][:, at] - x[base][:, at]).flatten(0, 1)

    def _rows(self, chosen: Sequence[Pair]) -> tuple[list[int], list[int], list[tuple[int, Tail]]]:
        """Rows of the base and source runs, and which pair and tail each is for."""
        served = [(p, pair, t) for p, pair in enumerate(chosen) for t in range(len(self.tails[pair.item]))]
        base = [self._row[pair.item, pair.base, t] for _, pair, t in served]
        source = [self._row[pair.item, pair.source, t] for _, pair, t in served]
        return base, source, [(p, self.tails[pair.item][t]) for p, pair, t in served]

    def scores(
        self, side: PairSide, layer: int, chosen: Sequence[Pair], basis: Float[Tensor, "d_model rank"] | None
    ) -> Float[Tensor, "pair label"]:
        """Scores of every label after exchanging the subspace that ``basis`` spans (orthonormal columns; None: nothing).

        Labels beyond an item's own have a score of minus infinity. Gradients reach ``basis``.
        """
        base, source, served = self._rows(chosen)
        device, first = self.adapter.device, self.first[side]
        x = self._streams[layer][base][:, first - self._begin :]
        if basis is not None:
            at = torch.tensor(self.group[side], device=device)
            own, theirs = x[:, at - first], self._streams[layer][source][:, at - self._begin]
            x = x.index_copy(1, at - first, own + ((theirs - own) @ basis) @ basis.T)
        positions = torch.arange(first, first + x.shape[1], device=device)
        everywhere = torch.arange(first + x.shape[1], device=device)
        for k in range(layer, len(self.blocks)):
            block = self.blocks[k]
            h, here = block.attn_input(x), positions
            keys = torch.cat((self._keys[k][base][:, :, :first], block.attn.keys(h, here)), 2)
            values = torch.cat((self._values[k][base][:, :, :first], block.attn.values(h)), 2)
            if k == len(self.blocks) - 1:
                here = torch.arange(self.start, self.start + 1 + self.n_tail, device=device)
                x, h = x[:, here - first], h[:, here - first]
            z = block.attn.attend(block.attn.queries(h, here), keys, values, everywhere <= here[:, None])
            x = block.mlp(block.after_attn(x, block.attn.out(z)))
        return self._read(self.adapter.final("decoder", x), chosen, served)

    def _read(
        self, x: Float[Tensor, "row pos d_model"], chosen: Sequence[Pair], served: Sequence[tuple[int, Tail]]
    ) -> Float[Tensor, "pair label"]:
        labels = [self.items[pair.item].labels for pair in chosen]
        most = max(map(len, labels))
        row, offset, token, cell = (t.to(x.device) for t in place_labels(served, labels))
        if all(len(label) == 1 for own in labels for label in own):
            vocab, token = torch.unique(token, return_inverse=True)
            read = self.adapter.unembed(x[:, :1], vocab)
        else:
            read = self.adapter.unembed(x).log_softmax(-1)
        scores = read.new_zeros(len(chosen) * most).index_add(0, cell, read[row, offset, token])
        there = torch.tensor([[j < len(own) for j in range(most)] for own in labels], device=x.device)
        return scores.view(len(chosen), most).masked_fill(~there, -torch.inf)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No weight asks for a gradient inside the block, so that the graph keeps only what a subspace needs."""
    asking = [p for p in module.parameters() if p.requires_grad]
    try:
        for p in asking:
            p.requires_grad_(False)
        yield
    finally:
        for p in asking:
            p.requires_grad_(True)


def targets(chosen: Sequence[Pair], device: torch.device) -> Int[Tensor, " pair"]:
    """The label that each exchange should lead to."""
    return torch.tensor([pair.target for pair in chosen], device=device)
