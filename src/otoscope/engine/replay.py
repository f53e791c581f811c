"""Continue patched runs from the layer where they were patched to the logits that are read, and compute nothing else.

Rows (patched runs) enter a stack at their layer and share the batch from there on. In a causal stack, positions that
equal those of a plain run are not computed: their keys and values come from there. In the last layer, only the read
positions are computed. The decoder of a row whose encoder was patched attends to that row's own frames without forming
their keys and values. Where a row's tower was patched, an audio-LLM's decoder starts at the first position of the sound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from otoscope.engine.base_run import BaseRun
from otoscope.engine.capture import capture_until
from otoscope.engine.patch import merge
from otoscope.engine.row import Row
from otoscope.engine.window import WindowedLayer
from otoscope.models.block import Block
from otoscope.models.linear import linear
from otoscope.models.site import PATTERN_POINTS, Site

#: rows whose entering states are computed together
_PREPARED = 256


class Replay:
    """Replays rows on one base run."""

    def __init__(self, run: BaseRun):
        self.run, self.adapter = run, run.adapter
        self._blocks: dict[str, list[Block]] = {}
        self._prefix_kv: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        self._cross_kv: dict[int, tuple[Tensor, Tensor]] = {}
        self._windowed: tuple[int, WindowedLayer] | None = None
        self._entering: dict[Row, Tensor] = {}

    # -- what a patch does inside its own layer --------------------------------------------------------------------

    def entering(self, rows: Sequence[Row]) -> Float[Tensor, "row changed d_model"]:
        """Residual stream at the changed positions where the rows enter; all rows share site and number of positions."""
        site = rows[0].site
        if site.stack == "frontend":
            return torch.cat([self._through_frontend(row) for row in rows])
        at = torch.tensor([row.positions for row in rows], device=self.adapter.device)
        axis = 2 if site.point in PATTERN_POINTS else 1
        base_value = self.run.value(site)
        n = base_value.shape[axis]
        base_here = _gather(base_value.expand(len(rows), *base_value.shape[1:]), at, axis)
        merged = []
        for i, row in enumerate(rows):
            given = row.patch.value
            source = self.run.value(site, row.patch.donor + 1) if given is None else given.to(base_value)
            if source.shape[axis] == 1 and base_value.shape[axis] != 1:
                source = source.expand_as(base_value)
            here = at[i : i + 1]
            if row.patch.positions is not None and source.shape[axis] == len(row.patch.positions) != n:
                # a value for the patched positions only
                here = torch.tensor([[row.patch.positions.index(p) for p in row.positions]], device=at.device)
            new = _gather(source, here, axis)
            heads, neurons = row.patch.parts()
            merged.append(merge(base_here[i : i + 1], new, heads, neurons, 1 if axis == 2 else 2))
        return self._finish_layer(site, torch.cat(merged), at)

    def _finish_layer(self, site: Site, value: Tensor, at: Tensor) -> Tensor:
        """From the value at a point of a layer, at some positions, to the layer's output at these positions."""
        if site.point in ("resid_pre", "resid_post"):
            return value
        block = self.blocks(site.stack)[site.layer]
        rows = len(at)

        def base(point: str) -> Tensor:
            whole = self.run.value(Site(site.stack, site.layer, point))
            return _gather(whole.expand(rows, *whole.shape[1:]), at, 1)

        if site.point == "mlp_out":
            return block.after_mlp(base("resid_mid"), value)
        if site.point == "mlp_post":
            return block.after_mlp(base("resid_mid"), linear(block.down, value))
        if site.point == "resid_mid":
            return block.mlp(value)
        if site.point == "pattern":
            h = block.attn_input(self.run.stream(site.stack, site.layer))
            value = _weighted(value, block.attn.values(h))
        if site.point in ("pattern", "z"):
            value = block.attn.out(value)
        if site.point in ("pattern", "z", "attn_out"):
            mid = block.after_attn(base("resid_pre"), value)
            if block.cross is not None:
                mid = mid + block.cross.out(self._cross(site.layer, mid, None))
            return block.mlp(mid)
        cross = block.cross
        assert cross is not None
        if site.point == "cross_pattern":
            value = _weighted(value, self._cross_keys_values(site.layer)[1])
        if site.point in ("cross_pattern", "cross_z"):
            value = cross.out(value)
        return block.mlp(block.after_attn(base("resid_pre"), base("attn_out")) + value)

    def _through_frontend(self, row: Row) -> Tensor:
        target = Site("encoder", 0, "resid_pre")
        donor = self.run.cache[row.site][row.patch.donor + 1 :][:1]
        return capture_until(self.adapter, self.run.inputs.item(0), [target], [row.patch.intervention(donor)])[target]

    def prepare(self, rows: Sequence[Row]) -> None:
        """Compute the entering states of many small rows together, whatever batch they will run in."""
        groups: dict[tuple[Site, int], list[Row]] = {}
        for row in rows:
            if row.positions:
                groups.setdefault((row.site, len(row.positions)), []).append(row)
        for (site, _), members in groups.items():
            if site.stack == "decoder":
                for a in range(0, len(members), _PREPARED):
                    batch = members[a : a + _PREPARED]
                    self._entering |= dict(zip(batch, self.entering(batch)))

    # -- from there to the logits ----------------------------------------------------------------------------------

    def logits(
        self, rows: Sequence[Row], seen: Callable[[Tensor], None] | None = None
    ) -> Float[Tensor, "row pos vocab"]:
        """Logits at the read positions and tokens. The rows share their stack, their first position and their source.

        ``seen`` is shown the rows' states at the end of their stack.
        """
        stack, last = rows[0].stack, self.adapter.order[-1]
        if stack != last and self.adapter.listens_and_reads:
            end = self.adapter.final(last, self._read(rows, self._listen(stack, rows, seen)))
        else:
            end = self._run_stack(stack, rows)
            if seen is not None:
                seen(end)
            end = self.adapter.final(stack, end)
            if stack != last:
                end = self._decode(end)
        vocab = self.run.reading.vocab
        return self.adapter.unembed(end, None if vocab is None else torch.tensor(vocab, device=end.device))

    def end_of(self, item: int) -> Float[Tensor, "pos d_model"]:
        """A plain run's states at the end of the last stack, at the read positions."""
        stack = self.adapter.order[-1]
        whole = self.run.stream(stack, self.adapter.stacks[stack].n_layers, item)
        return whole[0, list(self.run.reading.positions)]

    def _run_stack(self, stack: str, rows: Sequence[Row]) -> Tensor:
        """Run rows to the end of their stack; at read positions where it feeds the head, at all positions elsewhere."""
        spec, blocks = self.adapter.stacks[stack], self.blocks(stack)
        first, source = rows[0].first, rows[0].source
        feeds_head = stack == self.adapter.order[-1]
        x: Tensor | None = None
        done: list[int] = []
        for layer in range(min(r.layer for r in rows), spec.n_layers):
            last = feeds_head and layer == spec.n_layers - 1
            new = [i for i, row in enumerate(rows) if row.layer == layer]
            updated = None if last or spec.causal else self._update_windows(stack, layer, [rows[i] for i in new])
            if new and updated is None:
                entered = self._enter(stack, layer, [rows[i] for i in new], first)
                x = entered if x is None else torch.cat((x, entered))
                done += new
            if x is not None:
                x = self._layer(blocks[layer], layer, x, first, source, stack, last)
            if updated is not None:
                x = updated if x is None else torch.cat((x, updated))
                done += new
        late = [i for i, row in enumerate(rows) if row.layer == spec.n_layers]
        if late:
            entered = self._enter(stack, spec.n_layers, [rows[i] for i in late], first)
            if feeds_head:
                entered = entered[:, [p - first for p in self._read_from(first)]]
            x = entered if x is None else torch.cat((x, entered))
            done += late
        assert x is not None
        order = torch.empty(len(rows), dtype=torch.long)
        order[torch.tensor(done)] = torch.arange(len(rows))
        x = x[order.to(x.device)]
        if feeds_head and first > 0:
            x = self._with_earlier(stack, x, first, source)
        return x

    def _stop(self, stack: str) -> int | None:
        """Where computing ends: a causal stack that feeds the head needs nothing after the last read position."""
        spec = self.adapter.stacks[stack]
        return max(self.run.reading.positions) + 1 if spec.causal and stack == self.adapter.order[-1] else None

    def _read_from(self, first: int) -> list[int]:
        return [p for p in self.run.reading.positions if p >= first]

    def _with_earlier(self, stack: str, x: Tensor, first: int, source: int) -> Tensor:
        """Read positions before the first computed one are those of the rows' source."""
        earlier = [p for p in self.run.reading.positions if p < first]
        if not earlier:
            return x
        plain = self.run.stream(stack, self.adapter.stacks[stack].n_layers, source)[:, earlier]
        return torch.cat((plain.expand(len(x), -1, -1), x), 1)

    def _enter(self, stack: str, layer: int, rows: Sequence[Row], first: int) -> Float[Tensor, "row suffix d_model"]:
        base = self.run.stream(stack, layer)[:, first : self._stop(stack)]
        x = base.repeat(len(rows), 1, 1)
        groups: dict[tuple[Site, int], list[int]] = {}
        for i, row in enumerate(rows):
            if row.positions:
                groups.setdefault((row.site, len(row.positions)), []).append(i)
        for members in groups.values():
            chosen = [rows[i] for i in members]
            known = all(row in self._entering for row in chosen)
            value = torch.stack([self._entering[row] for row in chosen]) if known else self.entering(chosen)
            at = torch.tensor([rows[i].positions for i in members], device=x.device) - first
            x[torch.tensor(members, device=x.device)[:, None], at] = value
        return x

    def _layer(self, block: Block, layer: int, x: Tensor, first: int, source: int, stack: str, last: bool) -> Tensor:
        """One whole layer on the suffix from ``first``, after the prefix of ``source``; on read positions only where ``last``."""
        spec = self.adapter.stacks[stack]
        a, h = block.attn, block.attn_input(x)
        positions = torch.arange(first, first + x.shape[1], device=x.device)
        k, v, suffix = a.keys(h, positions), a.values(h), positions
        if last:
            keep = [p - first for p in self._read_from(first)]
            x, h, positions = x[:, keep], h[:, keep], positions[keep]
        q = a.queries(h, positions)
        if spec.causal and first:
            k_plain, v_plain = self._prefix_keys_values(block, layer, stack, source)
            mask = suffix <= positions[:, None]
            z = a.attend_after(q, k, v, k_plain[:, :, :first], v_plain[:, :, :first], mask)
        elif spec.causal:
            z = a.attend(q, k, v, suffix <= positions[:, None])
        else:
            z = a.attend(q, k, v, None if a.bias is None else a.bias(h, positions, k.shape[2]))
        mid = block.after_attn(x, a.out(z))
        if block.cross is not None:
            mid = mid + block.cross.out(self._cross(layer, mid, None))
        return block.mlp(mid)

    def _update_windows(self, stack: str, layer: int, rows: Sequence[Row]) -> Tensor | None:
        """Output of ``layer`` for rows that enter right before it with a short window changed; None where that does not pay."""
        if not rows or self.blocks(stack)[layer].attn.bias is not None:
            return None
        n = self.run.stream(stack, layer).shape[1]
        if max(len(row.positions) for row in rows) > n // 4:
            return None
        if self._windowed is None or self._windowed[0] != layer:
            self._windowed = (layer, WindowedLayer(self.blocks(stack)[layer], self.run.stream(stack, layer)))
        outputs = []
        for row in rows:
            at = torch.tensor(row.positions, device=self.adapter.device)
            output = self._windowed[1].run(self.entering([row])[0], at)
            if output is None:
                return None
            outputs.append(output)
        return torch.stack(outputs)

    # -- rows whose audio tower was patched, in an audio-LLM -------------------------------------------------------

    def _listen(
        self, stack: str, rows: Sequence[Row], seen: Callable[[Tensor], None] | None
    ) -> Float[Tensor, "row pos d_model"]:
        """What the language model reads when each row's tower is patched; ``seen`` is shown the end of ``stack``."""
        adapter: Any = self.adapter
        tokens = self.run.inputs.tokens
        assert tokens is not None
        n = adapter.stacks["connector"].n_layers
        if stack == "connector" and all(row.layer == n or n == 1 for row in rows):
            entered = [self._enter(stack, row.layer, [row], 0) for row in rows]
            end = frames = torch.cat([x if row.layer == n else adapter.connect(x) for row, x in zip(rows, entered)])
        elif stack == "encoder" and self.blocks(stack):
            end = self._run_stack(stack, rows)
            frames = adapter.connect(adapter.final(stack, end))
        else:
            return self._listen_by_hooks(stack, rows, seen)
        if seen is not None:
            seen(end)
        return adapter.embed(tokens[:1].expand(len(rows), -1), frames)

    def _listen_by_hooks(self, stack: str, rows: Sequence[Row], seen: Callable[[Tensor], None] | None) -> Tensor:
        """The same through the transformers model, for towers whose layers are not built as ours."""
        end, target = (
            Site(stack, self.adapter.stacks[stack].n_layers - 1, "resid_post"),
            Site("decoder", 0, "resid_pre"),
        )
        caches = []
        for row in rows:
            changes = [row.patch.intervention(self.run.value(row.site, row.patch.donor + 1))]
            caches.append(capture_until(self.adapter, self.run.inputs.item(0), [end, target], changes))
        if seen is not None:
            seen(torch.cat([cache[end] for cache in caches]))
        return torch.cat([cache[target] for cache in caches])

    def _read(self, rows: Sequence[Row], heard: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row read d_model"]:
        """The language model on what each row heard; positions before the first that differs are the base run's."""
        stack, stop = "decoder", max(self.run.reading.positions) + 1
        differs = (heard != self.run.stream(stack, 0)).any(-1).any(0)[:stop]
        if not differs.any():
            return self.end_of(0).expand(len(rows), -1, -1)
        first = int(differs.int().argmax())
        site, positions = Site(stack, 0, "resid_pre"), tuple(range(first, stop))
        readers = [Row(row.patch, site, stack, 0, positions, first) for row in rows]
        self._entering |= dict(zip(readers, heard[:, first:stop]))
        try:
            return self._run_stack(stack, readers)
        finally:
            for reader in readers:
                del self._entering[reader]

    # -- decoder of rows whose encoder was patched -----------------------------------------------------------------

    def _decode(self, frames: Float[Tensor, "row frame d_model"]) -> Float[Tensor, "row pos d_model"]:
        """Decoder states at the read positions when each row attends to its own ``frames``."""
        positions = self.run.reading.positions
        tokens = self.run.inputs.tokens
        assert tokens is not None
        n = positions[-1] + 1
        x = self.adapter.embed(tokens[:1, :n]).expand(len(frames), -1, -1)
        at = torch.arange(n, device=x.device)
        blocks = self.blocks("decoder")
        for layer, block in enumerate(blocks):
            a, h = block.attn, block.attn_input(x)
            k, v, here = a.keys(h, at), a.values(h), at
            if layer == len(blocks) - 1:
                here = torch.tensor(positions, device=x.device)
                x, h = x[:, here], h[:, here]
            mask = at <= here[:, None]
            mid = block.after_attn(x, a.out(a.attend(a.queries(h, here), k, v, mask)))
            assert block.cross is not None
            x = block.mlp(mid + block.cross.out(self._cross(layer, mid, frames)))
        return self.adapter.final("decoder", x)

    def _cross(self, layer: int, mid: Tensor, frames: Tensor | None) -> Tensor:
        """``cross_z`` for the stream ``mid``, attending to the base run's frames or to each row's own."""
        block = self.blocks("decoder")[layer]
        cross = block.cross
        assert cross is not None
        assert block.norm_cross is not None
        q = cross.queries(block.norm_cross(mid), torch.arange(mid.shape[1], device=mid.device))
        if frames is None:
            return cross.attend_shared(q, *self._cross_keys_values(layer))
        if q.shape[2] * (cross.n_heads - 1) < frames.shape[2]:
            return cross.attend_folded(q, frames)
        everywhere = torch.arange(frames.shape[1], device=mid.device)
        return cross.attend(q, cross.keys(frames, everywhere), cross.values(frames))

    def _cross_keys_values(self, layer: int) -> tuple[Tensor, Tensor]:
        if layer not in self._cross_kv:
            cross = self.blocks("decoder")[layer].cross
            assert cross is not None
            frames = self.run.encoded
            self._cross_kv[layer] = (
                cross.keys(frames, torch.arange(frames.shape[1], device=frames.device)),
                cross.values(frames),
            )
        return self._cross_kv[layer]

    def _prefix_keys_values(self, block: Block, layer: int, stack: str, source: int) -> tuple[Tensor, Tensor]:
        """Self-attention keys and values of one plain run."""
        if (layer, source) not in self._prefix_kv:
            x = self.run.stream(stack, layer, source)
            h, everywhere = block.attn_input(x), torch.arange(x.shape[1], device=x.device)
            self._prefix_kv[layer, source] = block.attn.keys(h, everywhere), block.attn.values(h)
        return self._prefix_kv[layer, source]

    def blocks(self, stack: str) -> list[Block]:
        """Layers of a stack, built once."""
        if stack not in self._blocks:
            self._blocks[stack] = self.adapter.blocks(stack, self.run.inputs.item(0))
        return self._blocks[stack]


def _gather(value: Tensor, at: Tensor, axis: int) -> Tensor:
    """Each row's own positions along ``axis`` (1, or 2 for patterns)."""
    index = at.view(at.shape[0], *(1 for _ in range(axis - 1)), at.shape[1], *(1 for _ in range(value.ndim - axis - 1)))
    shape = list(value.shape)
    shape[axis] = at.shape[1]
    return value.gather(axis, index.expand(shape))


def _weighted(pattern: Tensor, values: Tensor) -> Tensor:
    """``z`` ``[row, pos, head, d_head]``: weights ``[row, head, pos, key]`` times values ``[1, kv_head, key, d_head]``."""
    groups = pattern.shape[1] // values.shape[1]
    return (pattern @ values.repeat_interleave(groups, 1)).transpose(1, 2)
