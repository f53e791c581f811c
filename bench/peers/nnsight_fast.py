"""nnsight 0.8 with every idiom of its documentation that makes a sweep faster.

From its docs (usage/skip, usage/invoke-and-batching, usage/stop-and-early-exit, developing/performance,
patterns/activation-patching, patterns/per-head-attention):

* ``skip``: a layer below the patch is not run, its output is given; so is whatever feeds only skipped layers
  (the convolutions, the embedding), and the patched layer's own output when that is what is patched;
* ``skip`` on the unembedding: only the two logits that are read, at the last position;
* one trace per batch of patches of one layer, all rows in **one** input (no invoke per patch: each costs a worker and
  a slice-and-concatenate of the whole batch at every write);
* donors and base activations of all layers saved in one trace each, ended with ``stop`` where the rest is not needed;
* a batched trace needs batch size 1 at its input when everything below the patched layer is skipped: the
  replacements carry the batch;
* for the decoder, precomputed encoder output and cross-attention keys / values, passed in as the model's own cache.

``NNsightPrefix`` goes further than its docs: a cache of the positions before the patch, sliced by hand and passed in.
The bar of the project is against ``NNsight``; the other is shown beside it.
"""

from __future__ import annotations

from itertools import groupby

import nnsight
import numpy as np
import torch
from nnsight import NNsight as Wrapped
from torch import Tensor
from torch.nn.functional import linear
from transformers import DynamicCache, EncoderDecoderCache
from transformers.cache_utils import DynamicLayer
from transformers.modeling_outputs import BaseModelOutput

from peers import Measured, load
from workloads import D_HEAD, WHISPER, Patch, Workload

#: Rows per trace, chosen by processor time over 5 to 80 rows; the curve is flat, fewer rows stay in the caches.
ROWS = {"E": 13, "D": 32, "L": 20, "L0": 20, "H": 9}


def _filled(keys_values: list[tuple[Tensor, Tensor]], rows: int, length: int) -> DynamicCache:
    """A cache of the first ``length`` positions, as expanded views for ``rows`` rows (``update`` would copy them)."""
    cache = DynamicCache()
    for keys, values in keys_values:
        layer = DynamicLayer()
        layer.lazy_initialization(keys, values)
        layer.keys = keys[..., :length, :].expand(rows, -1, -1, -1)
        layer.values = values[..., :length, :].expand(rows, -1, -1, -1)
        cache.layers.append(layer)
    return cache


def _batches(patches: list[tuple[int, Patch]], rows: int) -> list[tuple[int, list[tuple[int, Patch]]]]:
    """(layer, at most ``rows`` patches of it) with the place of each patch in the answer."""
    batches = []
    for layer, members in groupby(patches, key=lambda item: item[1].layer):
        group = list(members)
        batches += [(layer, group[i : i + rows]) for i in range(0, len(group), rows)]
    return batches


class NNsight:
    """nnsight, used as its own documentation advises."""

    def __init__(self, folder: str, model: str) -> None:
        self.whisper = model == WHISPER
        self.model = Wrapped(load(folder, "whisper" if self.whisper else "language"))
        self.rows = dict(ROWS)

    @torch.no_grad()
    def run(self, workload: Workload, indices: list[int]) -> Measured:
        """Logits of (answer, foil) for the patches at ``indices`` (whole layers, so that batches are natural)."""
        result = Measured(np.empty((len(indices), 2), np.float32))
        patches = sorted(enumerate(workload.patches[i] for i in indices), key=lambda item: item[1].layer)
        sweep = {"E": self._encoder, "D": self._decoder, "H": self._heads}.get(workload.name, self._residual)
        batches = _batches(patches, self.rows[workload.name])
        for places, logits in sweep(workload, batches, result):
            result.logits[places] = logits.numpy()
        return result

    def _two(self, workload: Workload) -> Tensor:
        """The rows of the unembedding that are read, ``[2, d_model]``."""
        head = self.model.proj_out if self.whisper else self.model.lm_head
        return head._module.weight[[workload.answer, workload.foil]]

    # E ------------------------------------------------------------------------------------------------------------

    def _encoder(self, workload: Workload, batches, result: Measured):
        model, encoder = self.model, self.model.model.encoder
        tokens = torch.from_numpy(workload.tokens)
        with result.timing("fixed_s"):
            states = {}
            for which in ("clean", "corrupt"):
                features = torch.from_numpy(getattr(workload, which))
                with model.trace(features, decoder_input_ids=tokens) as tracer:
                    saved = nnsight.save([layer.output for layer in encoder.layers])
                    tracer.stop()
                states[which] = saved
            two, nothing = self._two(workload), torch.zeros(1, 1, 1)
            no_frames = torch.zeros(1, encoder._module.config.d_model, 1500)
        for k, group in batches:
            with result.timing("patch_s"):
                patched = states["corrupt"][k].repeat(len(group), 1, 1)
                for row, (_, p) in enumerate(group):
                    patched[row, p.start : p.stop] = states["clean"][k][0, p.start : p.stop]
                ids = tokens.expand(len(group), -1)
                with model.trace(features, decoder_input_ids=ids, use_cache=False):
                    encoder.conv1.skip(nothing)
                    encoder.conv2.skip(no_frames)
                    for layer in encoder.layers[: k + 1]:
                        layer.skip(patched)
                    hidden = model.model.decoder.layer_norm.output[:, -1]
                    model.proj_out.skip(nothing)
                    logits = nnsight.save(linear(hidden, two))
            yield [place for place, _ in group], logits

    # D ------------------------------------------------------------------------------------------------------------

    def _decoder_states(self, workload: Workload, which: str):
        """The encoder's output, the cross keys / values, and every patched activation of one run."""
        model, layers = self.model, self.model.model.decoder.layers
        with model.trace(
            torch.from_numpy(getattr(workload, which)),
            decoder_input_ids=torch.from_numpy(workload.tokens),
            use_cache=True,
        ):
            sites = nnsight.save([])
            for layer in layers:
                sites.append(
                    {
                        "attn_out": layer.self_attn.output[0].clone(),
                        "cross_attn_out": layer.encoder_attn.output[0].clone(),
                        "mlp_out": layer.fc2.output.clone(),
                        "resid_post": layer.output.clone(),
                    }
                )
            out = model.output.save()
        cross = [(layer.keys, layer.values) for layer in out.past_key_values.cross_attention_cache.layers]
        return sites, out.encoder_last_hidden_state, cross

    def _decoder(self, workload: Workload, batches, result: Measured):
        model, layers = self.model, self.model.model.decoder.layers
        with result.timing("fixed_s"):
            donors, _, _ = self._decoder_states(workload, "clean")
            base, state, cross = self._decoder_states(workload, "corrupt")
            encoded = BaseModelOutput(last_hidden_state=state)
            two, nothing = self._two(workload), torch.zeros(1, 1, 1)
            tokens = torch.from_numpy(workload.tokens)
        for k, group in batches:
            with result.timing("patch_s"):
                rows: dict[str, list[tuple[int, int]]] = {}
                for row, (_, p) in enumerate(group):
                    rows.setdefault(p.point, []).append((row, p.start))
                where = {point: tuple(torch.tensor(pairs).T) for point, pairs in rows.items()}
                new = {point: donors[k][point][0, at[1]] for point, at in where.items()}
                entry = None if k == 0 else base[k - 1]["resid_post"].expand(len(group), -1, -1)
                ids = tokens.expand(len(group), -1)
                cache = EncoderDecoderCache(DynamicCache(), _filled(cross, len(group), state.shape[1]))
                with model.trace(encoder_outputs=encoded, decoder_input_ids=ids, past_key_values=cache, use_cache=True):
                    for layer in layers[:k]:
                        layer.skip(entry)
                    layer = layers[k]
                    if "attn_out" in where:
                        layer.self_attn.output[0][where["attn_out"]] = new["attn_out"]
                    if "cross_attn_out" in where:
                        layer.encoder_attn.output[0][where["cross_attn_out"]] = new["cross_attn_out"]
                    if "mlp_out" in where:
                        layer.fc2.output[where["mlp_out"]] = new["mlp_out"]
                    if "resid_post" in where:
                        layer.output[where["resid_post"]] = new["resid_post"]
                    hidden = model.model.decoder.layer_norm.output[:, -1]
                    model.proj_out.skip(nothing)
                    logits = nnsight.save(linear(hidden, two))
            yield [place for place, _ in group], logits

    # L, L0 --------------------------------------------------------------------------------------------------------

    def _residuals(self, workload: Workload, which: str) -> list[Tensor]:
        model = self.model
        with model.trace(torch.from_numpy(getattr(workload, which)), use_cache=False) as tracer:
            saved = nnsight.save([layer.output for layer in model.model.layers])
            tracer.stop()
        return saved

    def _residual(self, workload: Workload, batches, result: Measured):
        model = self.model
        with result.timing("fixed_s"):
            donor, base = self._residuals(workload, "clean"), self._residuals(workload, "corrupt")
            two, nothing = self._two(workload), torch.zeros(1, 1, 1)
            ids = torch.from_numpy(workload.corrupt)
            no_embedding = torch.zeros(1, ids.shape[1], base[0].shape[2])
        for k, group in batches:
            with result.timing("patch_s"):
                patched = base[k].repeat(len(group), 1, 1)
                for row, (_, p) in enumerate(group):
                    patched[row, p.start : p.stop] = donor[k][0, p.start : p.stop]
                with model.trace(ids, use_cache=False):
                    model.model.embed_tokens.skip(no_embedding)
                    for layer in model.model.layers[: k + 1]:
                        layer.skip(patched)
                    hidden = model.model.norm.output[:, -1]
                    model.lm_head.skip(nothing)
                    logits = nnsight.save(linear(hidden, two))
            yield [place for place, _ in group], logits

    # H ------------------------------------------------------------------------------------------------------------

    def _head_states(self, workload: Workload, which: str):
        """Of one run: ``z`` ``[1, pos, 576]``, attention output and residual of every layer, and its cache."""
        model = self.model
        with model.trace(torch.from_numpy(getattr(workload, which)), use_cache=True, logits_to_keep=1):
            z, attn, resid = nnsight.save([]), nnsight.save([]), nnsight.save([])
            for layer in model.model.layers:
                z.append(layer.self_attn.o_proj.input.clone())
                attn.append(layer.self_attn.output[0].clone())
                resid.append(layer.output.clone())
            cache = model.output.past_key_values.save()
        return z, attn, resid, cache

    def _heads(self, workload: Workload, batches, result: Measured):
        model = self.model
        with result.timing("fixed_s"):
            donor_z = self._head_states(workload, "clean")[0]
            base_z, base_attn, base, _ = self._head_states(workload, "corrupt")
            two, nothing = self._two(workload), torch.zeros(1, 1, 1)
            ids = torch.from_numpy(workload.corrupt)
            no_embedding = torch.zeros(1, ids.shape[1], base[0].shape[2])
        for k, group in batches:
            with result.timing("patch_s"):
                project = model.model.layers[k].self_attn.o_proj._module
                attn = base_attn[k].repeat(len(group), 1, 1)
                z = base_z[k][0, -1].repeat(len(group), 1)
                for row, (_, p) in enumerate(group):
                    cut = slice(D_HEAD * p.head, D_HEAD * (p.head + 1))
                    z[row, cut] = donor_z[k][0, -1, cut]
                attn[:, -1] = project(z)  # the heads are the input of o_proj; the rest of its output is the base's
                with model.trace(ids, use_cache=False):
                    if k > 0:
                        model.model.embed_tokens.skip(no_embedding)
                    for layer in model.model.layers[:k]:
                        layer.skip(base[k - 1])
                    model.model.layers[k].self_attn.skip((attn, None))
                    hidden = model.model.norm.output[:, -1]
                    model.lm_head.skip(nothing)
                    logits = nnsight.save(linear(hidden, two))
            yield [place for place, _ in group], logits


class NNsightPrefix(NNsight):
    """The same, and the positions before the first patched one come from a cache built by hand (L, L0, H)."""

    def __init__(self, folder: str, model: str) -> None:
        super().__init__(folder, model)
        self.rows |= {"L": 8, "L0": 8, "H": 270}

    @torch.no_grad()
    def run(self, workload: Workload, indices: list[int]) -> Measured:
        if self.whisper:
            raise ValueError(f"the prefix cache applies to the language model, not to {workload.name}")
        return super().run(workload, indices)

    def _residual(self, workload: Workload, batches, result: Measured):
        model = self.model
        with result.timing("fixed_s"):
            donor, (_, _, base, cache) = self._residuals(workload, "clean"), self._head_states(workload, "corrupt")
            keys_values = [(layer.keys, layer.values) for layer in cache.layers]
            two, nothing = self._two(workload), torch.zeros(1, 1, 1)
            tokens = torch.from_numpy(workload.corrupt)
        for k, group in batches:
            with result.timing("patch_s"):
                begin = min(p.start for _, p in group)
                patched = base[k][:, begin:].repeat(len(group), 1, 1)
                for row, (_, p) in enumerate(group):
                    patched[row, p.start - begin : p.stop - begin] = donor[k][0, p.start : p.stop]
                past = _filled(keys_values, len(group), begin)
                with model.trace(tokens[:, begin:], past_key_values=past, use_cache=True):
                    model.model.embed_tokens.skip(patched[:1])
                    for layer in model.model.layers[: k + 1]:
                        layer.skip(patched)
                    hidden = model.model.norm.output[:, -1]
                    model.lm_head.skip(nothing)
                    logits = nnsight.save(linear(hidden, two))
            yield [place for place, _ in group], logits

    def _heads(self, workload: Workload, batches, result: Measured):
        model = self.model
        with result.timing("fixed_s"):
            donor_z = self._head_states(workload, "clean")[0]
            _, _, _, cache = self._head_states(workload, "corrupt")
            keys_values = [(layer.keys, layer.values) for layer in cache.layers]
            two, nothing = self._two(workload), torch.zeros(1, 1, 1)
            tokens = torch.from_numpy(workload.corrupt)
        with result.timing("patch_s"):  # one token is so cheap that all layers share one batch and nothing is skipped
            group = [item for _, members in batches for item in members]
            last = tokens.shape[1] - 1
            ids = tokens[:, last:].expand(len(group), -1)
            past = _filled(keys_values, len(group), last)
            with model.trace(ids, past_key_values=past, use_cache=True):
                for k, layer in enumerate(model.model.layers):
                    z = layer.self_attn.o_proj.input
                    for row, (_, p) in enumerate(group):
                        if p.layer == k:
                            cut = slice(D_HEAD * p.head, D_HEAD * (p.head + 1))
                            z[row, 0, cut] = donor_z[k][0, -1, cut]
                hidden = model.model.norm.output[:, -1]
                model.lm_head.skip(nothing)
                logits = nnsight.save(linear(hidden, two))
        yield [place for place, _ in group], logits
