"""GLM-ASR: a tower of Llama's layers over mel frames, frames stacked by fours, a connector of two layers, a Llama decoder.

Shapes are those of :mod:`otoscope.models.audio_llm`, except that ``connector.0.resid_pre`` is [batch, F/4, 4 d_a]: four
frames side by side, after the tower's last norm. The tower's layers have the points of a decoder's, with LayerNorms, a
rotation of the first half of each head, and an MLP without gate (``mlp_post`` is after its GELU). The tower hears the
silence after the sound; only frames of the sound become audio positions (12.5 per second).
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from otoscope.models.audio_llm import AudioLLMAdapter
from otoscope.models.linear import linear
from otoscope.models.llama_layers import LlamaLayers


class GlmAsrAdapter(AudioLLMAdapter):
    """Any ``GlmAsrForConditionalGeneration``."""

    family = "glmasr"
    mask_argument = "input_features_mask"
    pool = 4
    stacked = True
    plain = ("<|begin_of_audio|>", "<|end_of_audio|>", "\n")

    def _tower_layers(self, frame_rate: float) -> LlamaLayers:
        return _TowerLayers(self.tower, self.tower.config, f"{self.name} is a {type(self.hf).__name__}", frame_rate)

    @property
    def _n_mel(self) -> int:
        """The window in mel frames: the extractor's, since the rotation sets none."""
        return getattr(self.feature_extractor, "nb_max_frames", 3000)

    def final(self, stack: str, x: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_model"]:
        if stack == "decoder":
            return super().final(stack, x)
        return self.tower.norm(x).unflatten(1, (-1, self.pool)).flatten(2)


class _TowerLayers(LlamaLayers):
    def neurons(self, mlp: Any, h: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_mlp"]:
        return mlp.act_fn(linear(mlp.fc1, h))

    def down(self, mlp: Any) -> nn.Module:
        return mlp.fc2
