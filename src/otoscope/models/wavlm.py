"""WavLM: wav2vec2's sites and shapes, with a gated relative position bias on the attention scores.

The library computes this attention in one fused call that hides its heads, so the adapter gives each attention an equal
computation that passes through ``out_proj`` as a module and shows its weights. Its layers return tuples.
"""

from __future__ import annotations

import types
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from otoscope.models import attention
from otoscope.models.block import Bias
from otoscope.models.wav2vec2 import Wav2Vec2Adapter


class WavLMAdapter(Wav2Vec2Adapter):
    """``WavLMModel`` and ``WavLMForCTC``."""

    family = "wavlm"

    def __init__(self, hf: nn.Module, *args: Any, **kwargs: Any):
        super().__init__(hf, *args, **kwargs)
        for layer in self.trunk.encoder.layers:
            layer.attention.torch_multi_head_self_attention = types.MethodType(_open_attention, layer.attention)

    def _bias(self, attn: Any) -> Bias:
        first = self.trunk.encoder.layers[0].attention

        def bias(
            h: Float[Tensor, "row query d_model"], positions: Int[Tensor, " query"], n_keys: int
        ) -> Float[Tensor, "row head query key"]:
            by_distance = first.compute_bias(n_keys, n_keys)[:, positions]
            heads = h.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2)
            gates = attn.gru_rel_pos_linear(heads).unflatten(-1, (2, 4)).sum(-1).sigmoid()
            gate = gates[..., :1] * (gates[..., 1:] * attn.gru_rel_pos_const - 1.0) + 2.0
            return gate * by_distance

        return bias


def _open_attention(
    self: Any,
    hidden_states: Float[Tensor, "batch frame d_model"],
    attention_mask: Int[Tensor, "batch frame"] | None,
    gated_position_bias: Float[Tensor, "batch_head frame frame"],
) -> tuple[Tensor, None]:
    """The attention of WavLM with its heads open; equal to ``F.multi_head_attention_forward`` as the library calls it."""
    batch, frames, _ = hidden_states.shape

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    q, k, v = heads(self.q_proj(hidden_states)), heads(self.k_proj(hidden_states)), heads(self.v_proj(hidden_states))
    scores = (q * self.head_dim**-0.5) @ k.transpose(-1, -2) + gated_position_bias.view(batch, -1, frames, frames)
    if attention_mask is not None:
        scores = scores.masked_fill(attention_mask.ne(1)[:, None, None], float("-inf"))
    pattern = attention.show_pattern(self, scores.softmax(-1))
    z = (pattern @ v).transpose(1, 2)
    return self.out_proj(z.flatten(-2)), None
