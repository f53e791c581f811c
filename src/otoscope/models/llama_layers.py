"""Layers built like Llama's: the decoder of a language model, alone or inside an audio-LLM, and GLM-ASR's audio tower.

Shapes for width d, H query heads of width e and T tokens: ``resid_*`` [batch, T, d], ``z`` [batch, T, H, e],
``pattern`` [batch, H, T, T], ``mlp_post`` [batch, T, d_mlp] (gate x up, after the nonlinearity).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from otoscope.errors import ModelError
from otoscope.models.block import Attention, Block, Rotate
from otoscope.models.linear import linear
from otoscope.models.site import Site, StackSpec
from otoscope.models.taps import InputTap, OutputTap, PatternTap, SumTap, Tap

_PARTS = ("self_attn", "mlp", "input_layernorm", "post_attention_layernorm")
_POINTS = ("resid_pre", "pattern", "z", "attn_out", "resid_mid", "mlp_post", "mlp_out", "resid_post")


class LlamaLayers:
    """One stack of layers with Llama's parts.

    Args:
        trunk: the text model without its head: ``embed_tokens``, ``layers``, ``norm``, ``rotary_emb``; or a tower, without
            embeddings.
        config: its configuration.
        name: the whole model, for the error sentence.
        frame_rate: frames per second of a tower, which is bidirectional; None for a decoder, which is causal.

    Raises:
        ModelError: the layers are built otherwise.
    """

    def __init__(self, trunk: nn.Module, config: Any, name: str, frame_rate: float | None = None):
        self.trunk: Any = trunk
        layers = getattr(trunk, "layers", None)
        first = layers[0] if layers is not None and len(layers) else None
        missing = [p for p in _PARTS if not hasattr(first, p)]
        if hasattr(first, "pre_feedforward_layernorm"):
            missing.append("a plain residual stream")
        if missing:
            raise ModelError(
                f"{name}, which otoscope cannot read yet: it lacks {', '.join(missing)}; "
                "supported language models are built like Llama (Llama, SmolLM2, Mistral, Qwen2, Qwen3, Granite)."
            )
        #: Granite's factors on the embeddings and on what a part adds to the stream
        self.embedding = getattr(config, "embedding_multiplier", 1.0)
        self.residual = getattr(config, "residual_multiplier", 1.0)
        heads = config.num_attention_heads
        self.spec = StackSpec(
            "decoder" if frame_rate is None else "encoder", config.num_hidden_layers, config.hidden_size, heads,
            getattr(config, "head_dim", None) or config.hidden_size // heads, config.intermediate_size,
            frame_rate is None, _POINTS, frame_rate, n_kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        )  # fmt: skip

    def tap(self, site: Site) -> Tap:
        """The tap of a site of the decoder."""
        layer = self.trunk.layers[site.layer]
        match site.point:
            case "resid_pre":
                return InputTap(layer)
            case "resid_post":
                return OutputTap(layer)
            case "z":
                return InputTap(layer.self_attn.o_proj, self.spec.n_heads)
            case "attn_out":
                return OutputTap(layer.self_attn)
            case "pattern":
                return PatternTap(layer.self_attn)
            case "resid_mid":
                return SumTap(layer, [layer.self_attn], self.residual)
            case "mlp_post":
                return InputTap(self.down(layer.mlp))
            case _:
                return OutputTap(layer.mlp)

    def blocks(self) -> list[Block]:
        """The layers as arithmetic steps."""
        spec, rotate = self.spec, self._rotation()
        blocks = []
        for layer in self.trunk.layers:
            a, mlp = layer.self_attn, layer.mlp
            attn = Attention(
                a.q_proj, a.k_proj, a.v_proj, a.o_proj, spec.n_heads, spec.n_kv_heads, spec.d_head, rotate=rotate,
                q_norm=getattr(a, "q_norm", None), k_norm=getattr(a, "k_norm", None), scaling=getattr(a, "scaling", None),
            )  # fmt: skip

            norms = layer.input_layernorm, layer.post_attention_layernorm
            blocks.append(
                Block(norms[0], attn, norms[1], partial(self.neurons, mlp), self.down(mlp), residual=self.residual)
            )
        return blocks

    def neurons(self, mlp: Any, h: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_mlp"]:
        """Hidden neurons of an MLP from its normed input."""
        return mlp.act_fn(linear(mlp.gate_proj, h)) * linear(mlp.up_proj, h)

    def down(self, mlp: Any) -> nn.Module:
        """The linear layer from an MLP's neurons back to the stream."""
        return mlp.down_proj

    def _rotation(self) -> Rotate:
        cached: dict[str, Tensor] = {}

        def rotate(x: Float[Tensor, "row head pos d_head"], positions: Int[Tensor, " pos"]) -> Tensor:
            need = int(positions.max()) + 1 if positions.numel() else 1
            if "cos" not in cached or cached["cos"].shape[0] < need or cached["cos"].dtype != x.dtype:
                all_positions = torch.arange(max(need, 256), device=x.device)[None]
                cos, sin = self.trunk.rotary_emb(x.new_empty(1), all_positions)
                cached["cos"], cached["sin"] = cos[0], sin[0]
            cos, sin = cached["cos"][positions], cached["sin"][positions]
            turned, still = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
            low, high = turned.chunk(2, -1)
            turned = turned * cos + torch.cat((-high, low), -1) * sin
            return torch.cat((turned, still), -1) if still.shape[-1] else turned

        return rotate

    def final(self, x: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_model"]:
        """The norm after the last layer."""
        return self.trunk.norm(x)

    def embed(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_model"]:
        """The embeddings of text tokens, as :meth:`enter` takes them."""
        return self.trunk.embed_tokens(tokens)

    def enter(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """What the first layer reads, from the embeddings."""
        return x if self.embedding == 1.0 else x * self.embedding
