"""Qwen2-Audio: Whisper's encoder over a fixed window, averaged by twos and normed, one linear connector, a Qwen2 decoder.

Shapes are those of :mod:`otoscope.models.audio_llm`. The tower computes its whole window (30 s, F = 1500 frames, unless
the configuration says less) and its attention does not see the frames after the sound; only the pooled frames of the
sound itself become audio positions (25 per second).
"""

from otoscope.models.audio_llm import AudioLLMAdapter


class Qwen2AudioAdapter(AudioLLMAdapter):
    """Any ``Qwen2AudioForConditionalGeneration``."""

    family = "qwen2_audio"
    mask_argument = "feature_attention_mask"
    plain = ("<|audio_bos|>", "<|audio_eos|>", "\n")
