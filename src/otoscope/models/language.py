"""Decoder-only language models built like Llama: Llama, SmolLM2, Mistral, Qwen2, Qwen3 and their kin.

One stack, ``decoder``. Shapes for width d, H query heads of width e and T tokens: ``resid_*`` [batch, T, d],
``z`` [batch, T, H, e], ``pattern`` [batch, H, T, T], ``mlp_post`` [batch, T, d_mlp] (gate x up, after the nonlinearity).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from otoscope.audio.clip import Clip
from otoscope.errors import ModelError
from otoscope.models.adapter import Adapter, linear_rows
from otoscope.models.block import Attention, Block, Rotate
from otoscope.models.inputs import Inputs
from otoscope.models.linear import linear
from otoscope.models.site import Site, StackSpec
from otoscope.models.taps import InputTap, OutputTap, PatternTap, SumTap, Tap

_PARTS = ("self_attn", "mlp", "input_layernorm", "post_attention_layernorm")
_POINTS = ("resid_pre", "pattern", "z", "attn_out", "resid_mid", "mlp_post", "mlp_out", "resid_post")


class LanguageAdapter(Adapter):
    """Any ``...ForCausalLM`` whose layers have Llama's parts.

    Raises:
        ModelError: the layers are built otherwise.
    """

    family = "language"
    order = ("decoder",)

    def _stacks(self) -> dict[str, StackSpec]:
        layers = getattr(self.trunk, "layers", None)
        first = layers[0] if layers is not None and len(layers) else None
        missing = [p for p in _PARTS if not hasattr(first, p)]
        if hasattr(first, "pre_feedforward_layernorm") or getattr(self.hf.config, "residual_multiplier", 1.0) != 1.0:
            missing.append("a plain residual stream")
        if missing:
            raise ModelError(
                f"{self.name} is a {type(self.hf).__name__}, which otoscope cannot read yet: it lacks {', '.join(missing)}; "
                "supported language models are built like Llama (Llama, SmolLM2, Mistral, Qwen2, Qwen3)."
            )
        c = self.hf.config
        d_head = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
        return {
            "decoder": StackSpec(
                "decoder", c.num_hidden_layers, c.hidden_size, c.num_attention_heads, d_head, c.intermediate_size,
                True, _POINTS, n_kv_heads=getattr(c, "num_key_value_heads", None) or c.num_attention_heads,
            )
        }  # fmt: skip

    @property
    def trunk(self) -> Any:
        """The model under the language-model head: embeddings, layers, final norm."""
        return self.hf.model

    def tap(self, site: Site) -> Tap:
        layer = self.trunk.layers[site.layer]
        match site.point:
            case "resid_pre":
                return InputTap(layer)
            case "resid_post":
                return OutputTap(layer)
            case "z":
                return InputTap(layer.self_attn.o_proj, self.stacks["decoder"].n_heads)
            case "attn_out":
                return OutputTap(layer.self_attn)
            case "pattern":
                return PatternTap(layer.self_attn)
            case "resid_mid":
                return SumTap(layer, [layer.self_attn])
            case "mlp_post":
                return InputTap(layer.mlp.down_proj)
            case _:
                return OutputTap(layer.mlp)

    def stack_module(self, stack: str) -> nn.Module:
        return self.trunk

    def features(self, clips: Sequence[Clip]) -> Inputs:
        raise ModelError(f"{self.name} is a language model and takes text, not sound: give tokens or text.")

    def forward(self, inputs: Inputs) -> Float[Tensor, "batch pos vocab"]:
        return self.hf(input_ids=inputs.tokens, use_cache=False).logits

    def blocks(self, stack: str) -> list[Block]:
        spec = self.stacks["decoder"]
        rotate = self._rotation()
        blocks = []
        for layer in self.trunk.layers:
            a, mlp = layer.self_attn, layer.mlp
            attn = Attention(
                a.q_proj, a.k_proj, a.v_proj, a.o_proj, spec.n_heads, spec.n_kv_heads, spec.d_head, rotate=rotate,
                q_norm=getattr(a, "q_norm", None), k_norm=getattr(a, "k_norm", None),
            )  # fmt: skip

            def neurons(h: Tensor, mlp: Any = mlp) -> Tensor:
                return mlp.act_fn(linear(mlp.gate_proj, h)) * linear(mlp.up_proj, h)

            blocks.append(Block(layer.input_layernorm, attn, layer.post_attention_layernorm, neurons, mlp.down_proj))
        return blocks

    def _rotation(self) -> Rotate:
        cached: dict[str, Tensor] = {}

        def rotate(x: Float[Tensor, "row head pos d_head"], positions: Int[Tensor, " pos"]) -> Tensor:
            need = int(positions.max()) + 1 if positions.numel() else 1
            if "cos" not in cached or cached["cos"].shape[0] < need or cached["cos"].dtype != x.dtype:
                all_positions = torch.arange(max(need, 256), device=x.device)[None]
                cos, sin = self.trunk.rotary_emb(x.new_empty(1), all_positions)
                cached["cos"], cached["sin"] = cos[0], sin[0]
            cos, sin = cached["cos"][positions], cached["sin"][positions]
            low, high = x.chunk(2, -1)
            return x * cos + torch.cat((-high, low), -1) * sin

        return rotate

    def final(self, stack: str, x: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_model"]:
        return self.trunk.norm(x)

    def unembed(
        self, x: Float[Tensor, "row pos d_model"], vocab: Int[Tensor, " vocab"] | None = None
    ) -> Float[Tensor, "row pos vocab"]:
        return linear_rows(self.hf.lm_head, x, vocab)

    def embed(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_model"]:
        return self.trunk.embed_tokens(tokens)
