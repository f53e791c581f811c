"""Audio Flamingo 3 and Music Flamingo: Qwen2-Audio's tower and pooling, a connector of two linear layers, a Qwen2 decoder.

Shapes are those of :mod:`otoscope.models.audio_llm`. One window (30 s unless the configuration says less) is read; the
library cuts longer sounds into windows that do not hear each other, which otoscope refuses. Music Flamingo rotates the
pooled frames by their time before the connector reads them.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from otoscope.models.audio_llm import AudioLLMAdapter


class AudioFlamingo3Adapter(AudioLLMAdapter):
    """Any ``AudioFlamingo3ForConditionalGeneration``."""

    family = "audioflamingo3"
    mask_argument = "input_features_mask"


class MusicFlamingoAdapter(AudioFlamingo3Adapter):
    """Any ``MusicFlamingoForConditionalGeneration``."""

    family = "musicflamingo"
    #: which its processor, not its chat template, puts around a sound
    bounds = ("<|sound_bos|>", "<|sound_eos|>")

    def expanded(self, sign: str, n_audio: int) -> str:
        start, end = (self._known(mark) for mark in self.bounds)
        return start + super().expanded(sign, n_audio) + end

    def final(self, stack: str, x: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_model"]:
        from transformers.models.musicflamingo.modeling_musicflamingo import apply_rotary_time_emb

        end = super().final(stack, x)
        if stack == "decoder":
            return end
        times = torch.arange(end.shape[1], device=x.device)[None] * self.hf.config.audio_frame_step * 4
        return apply_rotary_time_emb(end, *self.inner.pos_emb(times.float(), seq_len=end.shape[1]))
