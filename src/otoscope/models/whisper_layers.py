"""Layers built like Whisper's: Whisper's own encoder and decoder, and the audio towers of many audio-LLMs."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from otoscope.models.block import Attention, Bias, Block
from otoscope.models.clock import FrameClock
from otoscope.models.linear import linear
from otoscope.models.site import Site, StackSpec
from otoscope.models.taps import InputTap, OutputTap, PatternTap, SumTap, Tap

_SELF = ("resid_pre", "pattern", "z", "attn_out")
_CROSS = ("cross_pattern", "cross_z", "cross_attn_out")
_REST = ("resid_mid", "mlp_post", "mlp_out", "resid_post")


class WhisperLayers:
    """One stack of Whisper's layers.

    Args:
        module: the encoder or decoder, with ``layers`` (and ``conv1``, ``conv2`` in an encoder).
        stack: ``encoder`` or ``decoder``.
        frame_rate: frames per second; None where positions are tokens, which makes the stack causal.
    """

    def __init__(self, module: nn.Module, stack: str, frame_rate: float | None = None):
        self.module: Any = module
        layer = self.module.layers[0]
        self.cross = hasattr(layer, "encoder_attn")
        points = _SELF + _CROSS + _REST if self.cross else _SELF + _REST
        self.spec = StackSpec(
            stack, len(self.module.layers), layer.fc1.in_features, layer.self_attn.num_heads, layer.self_attn.head_dim,
            layer.fc1.out_features, frame_rate is None, points, frame_rate,
        )  # fmt: skip

    def tap(self, site: Site) -> Tap:
        """The tap of a site of this stack, or of the frontend before it."""
        if site.stack == "frontend":
            return frontend_tap(self.module, site.layer)
        layer, heads = self.module.layers[site.layer], self.spec.n_heads
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

    def blocks(self, bias: Bias | None = None) -> list[Block]:
        """The layers as arithmetic steps; ``bias`` on the scores of the self-attention hides padding, say."""
        spec = self.spec

        def attention(module: nn.Module, bias: Bias | None = None) -> Attention:
            m: dict[str, nn.Module] = module._modules  # type: ignore[assignment]
            return Attention(
                m["q_proj"], m["k_proj"], m["v_proj"], m["out_proj"], spec.n_heads, spec.n_heads, spec.d_head, True,
                bias=bias,
            )  # fmt: skip

        return [
            Block(
                norm_attn=layer.self_attn_layer_norm,
                attn=attention(layer.self_attn, bias),
                norm_mlp=layer.final_layer_norm,
                neurons=lambda h, layer=layer: layer.activation_fn(linear(layer.fc1, h)),
                down=layer.fc2,
                norm_cross=layer.encoder_attn_layer_norm if self.cross else None,
                cross=attention(layer.encoder_attn) if self.cross else None,
            )
            for layer in self.module.layers
        ]


def frontend(encoder: StackSpec) -> StackSpec:
    """The two convolutions before an encoder's layers; the second has a stride of 2."""
    return StackSpec("frontend", 2, encoder.d_model, 0, 0, 0, False, ("conv_out",), encoder.frame_rate)


def frontend_tap(encoder: Any, layer: int) -> Tap:
    """The output of one of the convolutions."""
    return OutputTap(getattr(encoder, f"conv{layer + 1}"), channels_first=True)


def mel_clock(n_samples: int, rate: int, hop: int, n_mel: int, stride: int = 1) -> FrameClock:
    """The clock of what is computed from ``n_mel`` mel frames, one position per ``stride`` of them.

    Mel frames and padded convolutions are centred on what they stand for, so frame 0 lies at 0 s.
    """
    frame_rate, n = rate / hop / stride, n_mel // stride
    return FrameClock(frame_rate, 0.0, n, min(n, math.ceil(n_samples / rate * frame_rate)))
