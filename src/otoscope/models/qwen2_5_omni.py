"""Qwen2.5-Omni's thinker: a tower that attends within chunks of 2 s, frames averaged by twos, one linear connector.

Shapes are those of :mod:`otoscope.models.audio_llm`, with F the frames of the sound itself: this tower computes no
padding, so sounds that share a batch must be of equal length. ``frontend.*.conv_out`` holds the chunks one after the
other, the last one padded to the longest. A frame's ``pattern`` is zero outside its chunk. ``connector.0.resid_pre`` is
the pooled and normed frame. The decoder is Qwen2's; its rotation in three sections is the usual one where positions hold
text and sound only. Talker and vision are not read.
"""

from __future__ import annotations

import math
import types
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from otoscope.audio.clip import Clip
from otoscope.models import attention
from otoscope.models.adapter import check_lengths, check_rate
from otoscope.models.audio_llm import AudioLLMAdapter
from otoscope.models.block import Bias
from otoscope.models.clock import FrameClock
from otoscope.models.inputs import Inputs
from otoscope.models.site import Site
from otoscope.models.taps import Batched, Tap
from otoscope.models.whisper_layers import mel_clock


class Qwen25OmniAdapter(AudioLLMAdapter):
    """Any ``Qwen2_5OmniThinkerForConditionalGeneration``."""

    family = "qwen2_5_omni_thinker"
    mask_argument = "feature_attention_mask"
    plain = ("<|audio_bos|>", "<|audio_eos|>", "\n")

    def __init__(self, hf: nn.Module, *args: Any, **kwargs: Any):
        super().__init__(hf, *args, **kwargs)
        self.items = 1
        self.tower.register_forward_pre_hook(self._count, with_kwargs=True)
        for layer in self.tower.layers:
            layer.self_attn.forward = types.MethodType(_open_attention, layer.self_attn)
            layer.self_attn.batch = lambda _rows: self.items

    def _count(self, _module: nn.Module, _args: tuple, kwargs: dict[str, Any]) -> None:
        """The tower runs all items as one sequence; how many there are, only its caller says."""
        self.items = len(kwargs["feature_lens"])

    @property
    def projector(self) -> Any:
        return self.tower.proj

    @property
    def _chunk(self) -> int:
        """Mel frames of one chunk."""
        return 2 * self.tower.config.n_window

    @property
    def _n_mel(self) -> int:
        """The longest sound, in mel frames: the extractor's."""
        return getattr(self.feature_extractor, "nb_max_frames", 30000)

    def tap(self, site: Site) -> Tap:
        tap = super().tap(site)
        if site.stack == "decoder" or site.point == "pattern":
            return tap
        return Batched(tap, lambda _rows: self.items, 2 if site.stack == "frontend" else 1)

    def _clock(self, stack: str, n_samples: int, layer: int) -> FrameClock:
        mel = max(1, math.ceil(n_samples / self._hop))
        if stack == "frontend" and mel > self._chunk:
            mel = math.ceil(mel / self._chunk) * self._chunk  # the last chunk is padded to the others' length
        stride = 1 if (stack, layer) == ("frontend", 0) else 2
        clock = mel_clock(n_samples, self.rate, self._hop, math.ceil(mel / stride) * stride, stride)
        if stack != "connector":
            return clock
        n = clock.n_valid // self.pool
        return FrameClock(clock.rate / self.pool, (self.pool - 1) / 2 / clock.rate, n, n)

    def features(self, clips: Sequence[Clip]) -> Inputs:
        """Log-mel spectrograms of the sounds themselves.

        Raises:
            AudioError: a clip is too long or too short, or lengths differ.
        """
        clips = check_rate(clips, self.rate)
        check_lengths([np.asarray(clip.samples) for clip in clips], self.name, "tower")
        return super().features(clips)

    def _mel(
        self, sounds: Sequence[np.ndarray], max_length: int | None = None
    ) -> tuple[Float[Tensor, "batch mel time"], Int[Tensor, "batch time"]]:
        # enough silence that the last window hears what it hears in front of the extractor's long one
        n = math.ceil(len(sounds[0]) / self._hop)
        mel, mask = super()._mel(sounds, (n + 4) * self._hop)
        return mel[..., :n], mask[..., :n]

    def _padding(self, inputs: Inputs | None) -> Bias:
        """Frames of other chunks are not seen."""
        size = self._chunk // 2

        def bias(h: Tensor, positions: Tensor, n_keys: int) -> Float[Tensor, "1 1 query key"]:
            return _within(positions // size, torch.arange(n_keys, device=h.device) // size).to(h)

        return bias

    def final(self, stack: str, x: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_model"]:
        if stack == "decoder":
            return super().final(stack, x)
        pairs = x[:, : x.shape[1] // 2 * 2].unflatten(1, (-1, 2))
        return self.tower.ln_post((pairs[:, :, 0] + pairs[:, :, 1]) / 2)


def _within(query: Int[Tensor, " query"], key: Int[Tensor, " key"]) -> Float[Tensor, "1 1 query key"]:
    """0 where query and key lie in the same chunk, minus infinity elsewhere."""
    other = query[:, None] != key
    return torch.zeros(other.shape, device=key.device).masked_fill(other, -torch.inf)[None, None]


def _open_attention(
    self: Any, hidden_states: Float[Tensor, "frame d_model"], cu_seqlens: Int[Tensor, " chunk"], **kwargs: Any
) -> Tensor:
    """The library's attention; where its weights are tapped, all chunks of an item in one pattern instead of one each."""
    if not attention.tapped(self):
        return type(self).forward(self, hidden_states, cu_seqlens, **kwargs)
    batch = self.batch(len(hidden_states))

    def heads(x: Tensor) -> Float[Tensor, "batch head frame d_head"]:
        return x.reshape(batch, -1, self.num_heads, self.head_dim).transpose(1, 2)

    q, k, v = (heads(project(hidden_states)) for project in (self.q_proj, self.k_proj, self.v_proj))
    at = torch.arange(q.shape[2], device=q.device)
    chunk = torch.bucketize(at, cu_seqlens[1:], right=True)
    z = attention.eager(self, q, k, v, _within(chunk, chunk).to(q), self.scaling)
    return self.out_proj(z.reshape(len(hidden_states), -1))
