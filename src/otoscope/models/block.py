"""One transformer layer as plain arithmetic, step by step, on the Hugging Face model's own weights.

The engine replays layers with these steps: it enters in the middle of a layer, computes only the positions that can
have changed, and takes keys and values from a cache. The library's own forward stays the oracle that tests compare with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from otoscope.models.linear import linear

#: rotates queries or keys ``[row, head, pos, d_head]`` at the given positions
Rotate = Callable[[Tensor, Int[Tensor, " pos"]], Tensor]
#: additive attention bias ``[row, head, query, key]`` from the attention's normed input at the query positions
#: ``[row, query, d_model]``, those positions, and the number of keys
Bias = Callable[[Tensor, Int[Tensor, " query"], int], Tensor]


@dataclass(frozen=True)
class Attention:
    """The projections of one attention.

    Attributes:
        q, k, v, o: linear maps; ``k`` and ``v`` may serve fewer heads than ``q`` (grouped queries).
        n_heads, n_kv_heads, d_head: head counts and width.
        scale_first: multiply the queries by the scale before the product (Whisper), not the scores after it.
        rotate: rotary position embedding, if any.
        q_norm, k_norm: norms over each head's queries and keys, if any.
        bias: additive bias on the scores, if any: content-dependent (WavLM), or one that hides padding (audio towers).
        scaling: factor on the scores; None for the usual ``d_head**-0.5``.
    """

    q: nn.Module
    k: nn.Module
    v: nn.Module
    o: nn.Module
    n_heads: int
    n_kv_heads: int
    d_head: int
    scale_first: bool = False
    rotate: Rotate | None = None
    q_norm: nn.Module | None = None
    k_norm: nn.Module | None = None
    bias: Bias | None = None
    scaling: float | None = None

    def queries(
        self, h: Float[Tensor, "row pos d_model"], positions: Int[Tensor, " pos"]
    ) -> Float[Tensor, "row head pos d_head"]:
        """Queries of the normed input at absolute ``positions``, scaled for a product without further scaling."""
        q = linear(self.q, h)
        if self.scale_first:
            q = q * self._factor
        q = q.unflatten(-1, (self.n_heads, self.d_head)).transpose(1, 2)
        if self.q_norm is not None:
            q = self.q_norm(q)
        return self.rotate(q, positions) if self.rotate else q

    def keys(
        self, h: Float[Tensor, "row pos d_model"], positions: Int[Tensor, " pos"]
    ) -> Float[Tensor, "row kv_head pos d_head"]:
        """Keys of the normed input at absolute ``positions``."""
        k = linear(self.k, h).unflatten(-1, (self.n_kv_heads, self.d_head)).transpose(1, 2)
        if self.k_norm is not None:
            k = self.k_norm(k)
        return self.rotate(k, positions) if self.rotate else k

    def values(self, h: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row kv_head pos d_head"]:
        """Values of the normed input."""
        return linear(self.v, h).unflatten(-1, (self.n_kv_heads, self.d_head)).transpose(1, 2)

    @property
    def scale(self) -> float:
        """Factor on the scores that the queries do not carry yet."""
        return 1.0 if self.scale_first else self._factor

    @property
    def _factor(self) -> float:
        return self.d_head**-0.5 if self.scaling is None else self.scaling

    def attend(
        self,
        q: Float[Tensor, "row head query d_head"],
        k: Float[Tensor, "row kv_head key d_head"],
        v: Float[Tensor, "row kv_head key d_head"],
        mask: Bool[Tensor, "query key"] | Float[Tensor, "row head query key"] | None = None,
    ) -> Float[Tensor, "row query head d_head"]:
        """Weighted values per head, before the output projection: the site ``z``."""
        if self.n_kv_heads != self.n_heads:
            groups = self.n_heads // self.n_kv_heads
            k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        return scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale).transpose(1, 2)

    def attend_after(
        self,
        q: Float[Tensor, "row head query d_head"],
        k: Float[Tensor, "row kv_head suffix d_head"],
        v: Float[Tensor, "row kv_head suffix d_head"],
        k_before: Float[Tensor, "1 kv_head prefix d_head"],
        v_before: Float[Tensor, "1 kv_head prefix d_head"],
        mask: Bool[Tensor, "query suffix"],
    ) -> Float[Tensor, "row query head d_head"]:
        """Causal attention of a suffix whose prefix all rows share: the prefix's keys and values are never copied.

        ``mask`` says which suffix keys a query sees; it sees the whole prefix.
        """
        rows, heads, n_query, _ = q.shape
        kv, groups = self.n_kv_heads, heads // self.n_kv_heads
        # the query heads of one key/value head, and their queries, side by side
        q = q.reshape(rows, kv, groups * n_query, -1) * self.scale
        folded = q.transpose(0, 1).reshape(kv, rows * groups * n_query, -1)
        before = (folded @ k_before[0].transpose(-1, -2)).unflatten(1, (rows, -1)).transpose(0, 1)
        own = (q @ k.transpose(-1, -2)).masked_fill_(~mask.repeat(groups, 1), float("-inf"))
        weights = torch.cat((before, own), -1).softmax(-1)
        w_before = weights[..., : k_before.shape[2]].transpose(0, 1).reshape(kv, rows * groups * n_query, -1)
        mixed = (w_before @ v_before[0]).unflatten(1, (rows, -1)).transpose(0, 1)
        z = mixed + weights[..., k_before.shape[2] :] @ v
        return z.reshape(rows, heads, n_query, -1).transpose(1, 2)

    def attend_shared(
        self,
        q: Float[Tensor, "row head query d_head"],
        k: Float[Tensor, "1 head key d_head"],
        v: Float[Tensor, "1 head key d_head"],
    ) -> Float[Tensor, "row query head d_head"]:
        """The same when all rows share keys and values: rows become queries, so nothing is copied."""
        rows, _, n_query, _ = q.shape
        folded = q.transpose(0, 1).reshape(1, q.shape[1], rows * n_query, q.shape[3])
        return self.attend(folded, k, v)[0].unflatten(0, (rows, n_query))

    def attend_folded(
        self, q: Float[Tensor, "row head query d_head"], source: Float[Tensor, "row key d_model"]
    ) -> Float[Tensor, "row query head d_head"]:
        """Cross-attention of a few queries to a long ``source`` of each row, without forming its keys and values.

        ``q (W_k s + b_k) = (q W_k) s + const`` and ``sum_j w_j (W_v s_j + b_v) = W_v (sum_j w_j s_j) + b_v``; the constant
        is the same for every key, so the softmax drops it. LoRA layers are more than their weights, so they take the
        plain way.
        """
        if type(self.k) is not nn.Linear or type(self.v) is not nn.Linear:
            everywhere = torch.arange(source.shape[1], device=source.device)
            return self.attend(q, self.keys(source, everywhere), self.values(source))
        w_k = self.k.weight.unflatten(0, (self.n_heads, self.d_head))
        w_v = self.v.weight.unflatten(0, (self.n_heads, self.d_head))
        folded = torch.einsum("rhqe,hed->rhqd", q, w_k).flatten(1, 2)
        weights = (folded @ source.transpose(1, 2) * self.scale).softmax(-1)
        mixed = (weights @ source).unflatten(1, (self.n_heads, -1))
        z = torch.einsum("rhqd,hed->rqhe", mixed, w_v)
        return z if self.v.bias is None else z + self.v.bias.view(self.n_heads, self.d_head)

    def out(self, z: Float[Tensor, "row pos head d_head"]) -> Float[Tensor, "row pos d_model"]:
        """Output projection: sum over heads of ``z W_O`` plus the bias."""
        return linear(self.o, z.flatten(-2))


@dataclass(frozen=True)
class Block:
    """One layer.

    Attributes:
        norm_attn: norm before the attention (pre-LN), or after its residual sum (post-LN).
        attn: self-attention.
        norm_mlp: norm before the MLP, or after its residual sum.
        neurons: normed input -> hidden neurons after the nonlinearity (``mlp_post``).
        down: neurons -> ``mlp_out``.
        pre_norm: pre-LN (True) or post-LN (False).
        norm_cross, cross: cross-attention and its norm, where the layer has one.
        extra: a residual adapter after the MLP, where the layer has one.
        residual: factor on what attention and MLP add to the stream (Granite).
    """

    norm_attn: nn.Module
    attn: Attention
    norm_mlp: nn.Module
    neurons: Callable[[Tensor], Tensor]
    down: nn.Module
    pre_norm: bool = True
    norm_cross: nn.Module | None = None
    cross: Attention | None = None
    extra: nn.Module | None = None
    residual: float = 1.0

    def attn_input(self, x: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_model"]:
        """What queries, keys and values are computed from."""
        return self.norm_attn(x) if self.pre_norm else x

    def after_attn(self, x: Tensor, attn_out: Tensor) -> Float[Tensor, "row pos d_model"]:
        """The stream after self-attention."""
        x = x + self._scaled(attn_out)
        return x if self.pre_norm else self.norm_attn(x)

    def mlp_neurons(self, mid: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_mlp"]:
        """Hidden neurons from ``resid_mid``."""
        return self.neurons(self.norm_mlp(mid) if self.pre_norm else mid)

    def after_mlp(self, mid: Tensor, mlp_out: Tensor) -> Float[Tensor, "row pos d_model"]:
        """``resid_post`` from ``resid_mid`` and ``mlp_out``."""
        x = mid + self._scaled(mlp_out)
        if not self.pre_norm:
            x = self.norm_mlp(x)
        return x + self.extra(x) if self.extra is not None else x

    def _scaled(self, part: Tensor) -> Tensor:
        return part if self.residual == 1.0 else part * self.residual

    def mlp(self, mid: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_model"]:
        """``resid_post`` from ``resid_mid``."""
        return self.after_mlp(mid, linear(self.down, self.mlp_neurons(mid)))
