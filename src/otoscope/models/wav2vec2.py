"""wav2vec2: convolutions over samples, then a bidirectional encoder, with or without a CTC head; pre-LN or post-LN.

Shapes for width d, H heads and F frames (about 50 per second): ``frontend.*.conv_out`` [batch, frames, channels],
``encoder.*.resid_*`` [batch, F, d], ``encoder.*.z`` [batch, F, H, d/H], ``encoder.*.pattern`` [batch, H, F, F],
``encoder.*.mlp_post`` [batch, F, d_mlp].

Residual identities. Pre-LN (``do_stable_layer_norm``): ``resid_mid = resid_pre + attn_out`` and
``resid_post = resid_mid + mlp_out``. Post-LN: ``resid_mid = norm(resid_pre + attn_out)`` and
``resid_post = norm(resid_mid + mlp_out)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor, nn

from otoscope.audio.clip import Clip
from otoscope.errors import AudioError, ModelError
from otoscope.models.adapter import Adapter, check_lengths, check_rate, linear_rows
from otoscope.models.block import Attention, Bias, Block
from otoscope.models.clock import FrameClock
from otoscope.models.inputs import Inputs
from otoscope.models.linear import linear
from otoscope.models.site import Site, StackSpec
from otoscope.models.taps import InputTap, OutputTap, PatternTap, SumTap, Tap

_POINTS = ("resid_pre", "pattern", "z", "attn_out", "resid_mid", "mlp_post", "mlp_out", "resid_post")


class Wav2Vec2Adapter(Adapter):
    """``Wav2Vec2Model`` and ``Wav2Vec2ForCTC``; HuBERT and WavLM derive from it.

    Raises:
        ModelError: the model ends in a length adapter or a head other than CTC.
    """

    family = "wav2vec2"
    order = ("frontend", "encoder")

    def _stacks(self) -> dict[str, StackSpec]:
        c = self.hf.config
        head = [
            name
            for name, _ in self.hf.named_children()
            if name not in (self.hf.base_model_prefix, "dropout", "lm_head")
        ]
        if getattr(c, "add_adapter", False) or (self.trunk is not self.hf and head):
            raise ModelError(
                f"{self.name} is a {type(self.hf).__name__}, which otoscope cannot read yet: expected a base model or a "
                "CTC model without a length adapter."
            )
        rate = self.rate / int(np.prod(c.conv_stride))
        return {
            "frontend": StackSpec("frontend", len(c.conv_dim), max(c.conv_dim), 0, 0, 0, False, ("conv_out",), rate),
            "encoder": StackSpec(
                "encoder", c.num_hidden_layers, c.hidden_size, c.num_attention_heads,
                c.hidden_size // c.num_attention_heads, c.intermediate_size, False, _POINTS, rate,
            ),
        }  # fmt: skip

    @property
    def trunk(self) -> Any:
        """The model under the CTC head."""
        return getattr(self.hf, self.hf.base_model_prefix, self.hf)

    @property
    def pre_norm(self) -> bool:
        """Whether layers normalise before their parts."""
        return bool(self.hf.config.do_stable_layer_norm)

    def tap(self, site: Site) -> Tap:
        if site.stack == "frontend":
            return OutputTap(self.trunk.feature_extractor.conv_layers[site.layer], channels_first=True)
        layer = self.trunk.encoder.layers[site.layer]
        match site.point:
            case "resid_pre":
                return InputTap(layer)
            case "resid_post":
                return OutputTap(layer)
            case "z":
                return InputTap(layer.attention.out_proj, self.stacks["encoder"].n_heads)
            case "attn_out":
                return OutputTap(layer.attention)
            case "pattern":
                return PatternTap(layer.attention)
            case "resid_mid":
                return SumTap(layer, [layer.attention]) if self.pre_norm else OutputTap(layer.layer_norm)
            case "mlp_post":
                return InputTap(layer.feed_forward.output_dense)
            case _:
                return OutputTap(layer.feed_forward)

    def stack_module(self, stack: str) -> nn.Module:
        return self.trunk.encoder if stack == "encoder" else self.trunk.feature_extractor

    def _clock(self, stack: str, n_samples: int, layer: int) -> FrameClock:
        """Frames have no padding around them, so frame 0 is centred on half its receptive field."""
        c = self.hf.config
        field, stride, n = 1, 1, n_samples
        for i in range(layer + 1 if stack == "frontend" else len(c.conv_dim)):
            field += (c.conv_kernel[i] - 1) * stride
            stride *= c.conv_stride[i]
            n = (n - c.conv_kernel[i]) // c.conv_stride[i] + 1
        return FrameClock(self.rate / stride, field / 2 / self.rate, n, n)

    def features(self, clips: Sequence[Clip]) -> Inputs:
        """Samples, normalised as the model was trained.

        Raises:
            AudioError: a clip is shorter than one frame, or lengths differ where padding would change the answer
                (a group norm over time sees the padding).
        """
        clips = check_rate(clips, self.rate)
        sounds = [np.asarray(clip.samples) for clip in clips]
        for clip, sound in zip(clips, sounds):
            if self.clock("encoder", len(sound)).n_frames < 1:
                raise AudioError(
                    f"{clip.name or 'the clip'} lasts {clip.duration * 1000:.0f} ms, shorter than one frame of {self.name}: "
                    "expected at least 25 ms."
                )
        lengths = {len(s) for s in sounds}
        if self.hf.config.feat_extract_norm == "group":
            check_lengths(sounds, self.name, "group norm")
        batch = self.feature_extractor(
            sounds, sampling_rate=self.rate, padding=True, return_attention_mask=len(lengths) > 1, return_tensors="pt"
        )
        mask = batch.get("attention_mask") if len(lengths) > 1 else None
        return Inputs(
            batch.input_values.to(self.device, self.dtype),
            None if mask is None else mask.to(self.device),
            n_samples=tuple(len(s) for s in sounds),
        )

    def forward(self, inputs: Inputs) -> Float[Tensor, "batch pos vocab"]:
        output = self.hf(inputs.features, attention_mask=inputs.feature_mask)
        return output.logits if hasattr(output, "logits") else output.last_hidden_state

    def blocks(self, stack: str, inputs: Inputs | None = None) -> list[Block]:
        spec = self.stacks["encoder"]
        return [
            Block(
                norm_attn=layer.layer_norm,
                attn=Attention(
                    layer.attention.q_proj, layer.attention.k_proj, layer.attention.v_proj, layer.attention.out_proj,
                    spec.n_heads, spec.n_heads, spec.d_head, bias=self._bias(layer.attention),
                ),
                norm_mlp=layer.final_layer_norm,
                neurons=lambda h, ff=layer.feed_forward: ff.intermediate_act_fn(linear(ff.intermediate_dense, h)),
                down=layer.feed_forward.output_dense,
                pre_norm=self.pre_norm,
                extra=getattr(layer, "adapter_layer", None),
            )
            for layer in self.trunk.encoder.layers
        ]  # fmt: skip

    def _bias(self, attn: Any) -> Bias | None:
        return None

    def final(self, stack: str, x: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_model"]:
        return self.trunk.encoder.layer_norm(x) if self.pre_norm else x

    def unembed(
        self, x: Float[Tensor, "row pos d_model"], vocab: Int[Tensor, " vocab"] | None = None
    ) -> Float[Tensor, "row pos vocab"]:
        if self.trunk is not self.hf:
            return linear_rows(self.hf.lm_head, x, vocab)
        return x if vocab is None else x[..., vocab]
