"""Whisper: a convolutional frontend, a bidirectional encoder over 30 s, a causal decoder that attends to it.

Shapes for a model of width d with H heads, a 30-s window of F = 1500 frames (50 per second) and T tokens:
``frontend.0.conv_out`` [batch, 2F, d], ``frontend.1.conv_out`` [batch, F, d], ``encoder.*.resid_*`` [batch, F, d],
``decoder.*.resid_*`` [batch, T, d], ``*.z`` [batch, F or T, H, d/H], ``decoder.*.cross_pattern`` [batch, H, T, F],
``*.mlp_post`` [batch, F or T, 4d].
``resid_mid`` of the decoder is the stream after cross-attention, before the MLP.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from otoscope.audio.clip import Clip
from otoscope.models.adapter import Adapter, check_rate, linear_rows
from otoscope.models.block import Attention, Block
from otoscope.models.clock import FrameClock
from otoscope.models.inputs import Inputs
from otoscope.models.linear import linear
from otoscope.models.site import Site, StackSpec
from otoscope.models.taps import InputTap, OutputTap, PatternTap, SumTap, Tap

_SELF = ("resid_pre", "pattern", "z", "attn_out")
_CROSS = ("cross_pattern", "cross_z", "cross_attn_out")
_REST = ("resid_mid", "mlp_post", "mlp_out", "resid_post")


class WhisperAdapter(Adapter):
    """Any ``WhisperForConditionalGeneration``."""

    family = "whisper"
    order = ("frontend", "encoder", "decoder")

    def _stacks(self) -> dict[str, StackSpec]:
        c = self.hf.config
        rate = self._mel_rate / 2  # the second convolution has a stride of 2
        return {
            "frontend": StackSpec("frontend", 2, c.d_model, 0, 0, 0, False, ("conv_out",), rate),
            "encoder": StackSpec(
                "encoder", c.encoder_layers, c.d_model, c.encoder_attention_heads,
                c.d_model // c.encoder_attention_heads, c.encoder_ffn_dim, False, _SELF + _REST, rate,
            ),
            "decoder": StackSpec(
                "decoder", c.decoder_layers, c.d_model, c.decoder_attention_heads,
                c.d_model // c.decoder_attention_heads, c.decoder_ffn_dim, True, _SELF + _CROSS + _REST,
            ),
        }  # fmt: skip

    @property
    def _mel_rate(self) -> float:
        return self.rate / getattr(self.feature_extractor, "hop_length", 160)

    def _layer(self, site: Site) -> Any:
        return getattr(self.hf.model, site.stack).layers[site.layer]

    def tap(self, site: Site) -> Tap:
        if site.stack == "frontend":
            return OutputTap(getattr(self.hf.model.encoder, f"conv{site.layer + 1}"), channels_first=True)
        layer = self._layer(site)
        heads = self.stacks[site.stack].n_heads
        cross: Any = getattr(layer, "encoder_attn", None)
        match site.point:
            case "resid_pre":
                return InputTap(layer)
            case "resid_post":
                return OutputTap(layer)
            case "z":
                return InputTap(layer.self_attn.out_proj, heads)
            case "cross_z":
                return InputTap(cross.out_proj, heads)
            case "attn_out":
                return OutputTap(layer.self_attn)
            case "cross_attn_out":
                return OutputTap(cross)
            case "pattern":
                return PatternTap(layer.self_attn)
            case "cross_pattern":
                return PatternTap(cross)
            case "resid_mid":
                return SumTap(layer, [layer.self_attn] if cross is None else [layer.self_attn, cross])
            case "mlp_post":
                return InputTap(layer.fc2)
            case _:
                return OutputTap(layer.fc2)

    def stack_module(self, stack: str) -> nn.Module:
        return self.hf.model.decoder if stack == "decoder" else self.hf.model.encoder

    def _clock(self, stack: str, n_samples: int, layer: int) -> FrameClock:
        """Mel frames and padded convolutions are centred on what they stand for, so frame 0 lies at 0 s everywhere."""
        stride = 1 if (stack, layer) == ("frontend", 0) else 2
        rate, n = self._mel_rate / stride, 2 * self.hf.config.max_source_positions // stride
        return FrameClock(rate, 0.0, n, min(n, math.ceil(n_samples / self.rate * rate)))

    def features(self, clips: Sequence[Clip]) -> Inputs:
        clips = check_rate(clips, self.rate)
        sounds = [np.asarray(clip.samples) for clip in clips]
        mel = self.feature_extractor(sounds, sampling_rate=self.rate, return_tensors="pt").input_features
        # a configuration may declare a shorter window than the extractor's 30 s
        mel = mel[..., : 2 * self.hf.config.max_source_positions]
        return Inputs(mel.to(self.device, self.dtype), n_samples=tuple(len(s) for s in sounds))

    def forward(self, inputs: Inputs) -> Float[Tensor, "batch pos vocab"]:
        tokens = inputs.tokens
        if tokens is None:
            tokens = torch.full((inputs.batch, 1), self.hf.config.decoder_start_token_id, device=self.device)
        return self.hf(input_features=inputs.features, decoder_input_ids=tokens, use_cache=False).logits

    def blocks(self, stack: str) -> list[Block]:
        spec = self.stacks[stack]

        def attention(module: nn.Module) -> Attention:
            m: dict[str, nn.Module] = module._modules  # type: ignore[assignment]
            return Attention(
                m["q_proj"], m["k_proj"], m["v_proj"], m["out_proj"], spec.n_heads, spec.n_heads, spec.d_head, True
            )

        return [
            Block(
                norm_attn=layer.self_attn_layer_norm,
                attn=attention(layer.self_attn),
                norm_mlp=layer.final_layer_norm,
                neurons=lambda h, layer=layer: layer.activation_fn(linear(layer.fc1, h)),
                down=layer.fc2,
                norm_cross=layer.encoder_attn_layer_norm if stack == "decoder" else None,
                cross=attention(layer.encoder_attn) if stack == "decoder" else None,
            )
            for layer in getattr(self.hf.model, stack).layers
        ]

    def final(self, stack: str, x: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_model"]:
        return getattr(self.hf.model, stack).layer_norm(x)

    def unembed(
        self, x: Float[Tensor, "row pos d_model"], vocab: Int[Tensor, " vocab"] | None = None
    ) -> Float[Tensor, "row pos vocab"]:
        return linear_rows(self.hf.proj_out, x, vocab)

    def embed(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_model"]:
        decoder = self.hf.model.decoder
        return decoder.embed_tokens(tokens) + decoder.embed_positions.weight[: tokens.shape[1]]

    # -- prompts -----------------------------------------------------------------------------------------------------

    def prompt(self, language: str = "en") -> list[int]:
        """The tokens Whisper starts from: start of transcript, language and task if multilingual, no timestamps."""
        g = self.hf.generation_config
        start = [self.hf.config.decoder_start_token_id]
        if getattr(g, "is_multilingual", False):
            start += [g.lang_to_id[f"<|{language}|>"], g.task_to_id["transcribe"]]
        no_timestamps = getattr(g, "no_timestamps_token_id", None)
        return start if no_timestamps is None else [*start, no_timestamps]
