"""Tiny random models of every family, with everything a test needs, built in milliseconds and offline."""

from __future__ import annotations

import numpy as np
import tokenizers as tk
import torch
import transformers as tf

from otoscope.audio.clip import Clip
from otoscope.engine.model import Model
from otoscope.models.adapter import Adapter
from otoscope.models.audio_flamingo3 import AudioFlamingo3Adapter, MusicFlamingoAdapter
from otoscope.models.audio_llm import AudioLLMAdapter
from otoscope.models.glm_asr import GlmAsrAdapter
from otoscope.models.granite_speech import GraniteSpeechAdapter
from otoscope.models.hubert import HubertAdapter
from otoscope.models.inputs import Inputs
from otoscope.models.language import LanguageAdapter
from otoscope.models.qwen2_5_omni import Qwen25OmniAdapter
from otoscope.models.qwen2_audio import Qwen2AudioAdapter
from otoscope.models.voxtral import VoxtralAdapter
from otoscope.models.wav2vec2 import Wav2Vec2Adapter
from otoscope.models.wavlm import WavLMAdapter
from otoscope.models.whisper import WhisperAdapter

_SPEECH = {
    "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 40, "vocab_size": 11,
    "conv_dim": (8, 8), "conv_kernel": (10, 8), "conv_stride": (8, 8), "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "pad_token_id": 0,
}  # fmt: skip
_POST = {"do_stable_layer_norm": False, "feat_extract_norm": "group"}
_PRE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}


def _whisper() -> Adapter:
    config = tf.WhisperConfig(
        vocab_size=50, d_model=24, encoder_layers=3, decoder_layers=3, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=40, decoder_ffn_dim=40, num_mel_bins=8, max_source_positions=50,
        max_target_positions=32, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=3,
    )  # fmt: skip
    extractor = tf.WhisperFeatureExtractor(feature_size=8, chunk_length=1)
    model = tf.WhisperForConditionalGeneration(config)
    return WhisperAdapter(model, "tiny-whisper", None, extractor)


def _speech(cls: type, config: type, adapter: type, **extra: object) -> Adapter:
    extractor = tf.Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)
    name = f"tiny-{adapter.family}"  # type: ignore[attr-defined]
    return adapter(cls(config(**{**_SPEECH, **extra})), name, None, extractor)


def _language(model: type, config: type) -> Adapter:
    made = config(
        vocab_size=50, hidden_size=24, num_hidden_layers=4, num_attention_heads=6, num_key_value_heads=2, head_dim=4,
        intermediate_size=40, max_position_embeddings=64,
    )  # fmt: skip
    return LanguageAdapter(model(made), "tiny-language")


FAMILIES = {
    "whisper": _whisper,
    "hubert-base": lambda: _speech(tf.HubertModel, tf.HubertConfig, HubertAdapter, **_POST),
    "hubert-ctc-pre": lambda: _speech(tf.HubertForCTC, tf.HubertConfig, HubertAdapter, **_PRE),
    "wav2vec2-ctc": lambda: _speech(tf.Wav2Vec2ForCTC, tf.Wav2Vec2Config, Wav2Vec2Adapter, **_POST),
    "wav2vec2-pre": lambda: _speech(tf.Wav2Vec2Model, tf.Wav2Vec2Config, Wav2Vec2Adapter, **_PRE),
    "wav2vec2-adapters": lambda: _speech(
        tf.Wav2Vec2ForCTC, tf.Wav2Vec2Config, Wav2Vec2Adapter, **_PRE, adapter_attn_dim=6
    ),
    "wavlm-ctc": lambda: _speech(tf.WavLMForCTC, tf.WavLMConfig, WavLMAdapter, **_POST, num_buckets=16),
    "wavlm-pre": lambda: _speech(tf.WavLMModel, tf.WavLMConfig, WavLMAdapter, **_PRE, num_buckets=16),
    "llama": lambda: _language(tf.LlamaForCausalLM, tf.LlamaConfig),
    "qwen2": lambda: _language(tf.Qwen2ForCausalLM, tf.Qwen2Config),
    "qwen3": lambda: _language(tf.Qwen3ForCausalLM, tf.Qwen3Config),
}


def tokenizer(audio: str, *marks: str) -> tf.PreTrainedTokenizerFast:
    """A byte-level tokenizer with a chat template, whose vocabulary starts with the special tokens."""
    template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}"
        "{% else %}{% for c in m['content'] %}{% if c['type'] == 'audio' %}"
        + audio
        + "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    special = ["<pad>", "<|im_start|>", "<|im_end|>", *marks]
    made = tk.Tokenizer(tk.models.BPE())
    made.pre_tokenizer = tk.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tk.decoders.ByteLevel()
    alphabet = tk.pre_tokenizers.ByteLevel.alphabet()
    trainer = tk.trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(["What word was said? The caption says the word is seven."], trainer)
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="<|im_end|>", chat_template=template
    )


#: a language model inside an audio-LLM, and Whisper's kind of tower for it
_TEXT = {
    "vocab_size": 320, "hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 6, "num_key_value_heads": 2,
    "intermediate_size": 40, "max_position_embeddings": 256, "pad_token_id": 0, "head_dim": 4, "bos_token_id": None,
    "eos_token_id": 2,
}  # fmt: skip
_TOWER = {
    "num_mel_bins": 8, "d_model": 16, "encoder_layers": 3, "encoder_attention_heads": 4, "encoder_ffn_dim": 28,
    "max_source_positions": 50,
}  # fmt: skip


def _audio_llm(adapter: type, cls: type, config: object, *marks: str, between: str = "{}") -> Adapter:
    """Any of the families that hear Whisper's spectrogram; the placeholder, their first mark, is token 3."""
    reader = tokenizer(between.format(marks[0]), *marks)
    extractor = tf.WhisperFeatureExtractor(feature_size=8, chunk_length=1)
    name = f"tiny-{adapter.family}"  # type: ignore[attr-defined]
    return adapter(cls(config), name, reader, extractor)


#: how Qwen's templates write a sound
_QWEN = {"between": "<|audio_bos|>{}<|audio_eos|>\n"}
_QWEN_MARKS = ("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")


def _qwen2_audio() -> Adapter:
    tower, text = tf.Qwen2AudioEncoderConfig(**_TOWER), tf.Qwen2Config(**_TEXT)
    config = tf.Qwen2AudioConfig(audio_config=tower, text_config=text, audio_token_index=3)
    return _audio_llm(Qwen2AudioAdapter, tf.Qwen2AudioForConditionalGeneration, config, *_QWEN_MARKS, **_QWEN)


def _flamingo(adapter: type, cls: type, config: type, **extra: object) -> Adapter:
    tower, text = tf.AudioFlamingo3EncoderConfig(**_TOWER), tf.Qwen2Config(**_TEXT)
    made = config(audio_config=tower, text_config=text, audio_token_id=3, **extra)
    return _audio_llm(adapter, cls, made, "<sound>", "<|sound_bos|>", "<|sound_eos|>")


def _voxtral() -> Adapter:
    # the connector takes its width from the tower's feed-forward, which is four times the frame's
    tower = tf.VoxtralEncoderConfig(**{**_TOWER, "max_source_positions": 48, "encoder_ffn_dim": 64})
    config = tf.VoxtralConfig(audio_config=tower, text_config=tf.LlamaConfig(**_TEXT), audio_token_id=3)
    return _audio_llm(
        VoxtralAdapter,
        tf.VoxtralForConditionalGeneration,
        config,
        "[AUDIO]",
        "[BEGIN_AUDIO]",
        between="[BEGIN_AUDIO]{}",
    )


def _omni() -> Adapter:
    tower = {**_TOWER, "n_window": 5, "output_dim": 24, "max_source_positions": 20}
    vision = {"depth": 1, "hidden_size": 8, "intermediate_size": 8, "num_heads": 2, "out_hidden_size": 24}
    rope = {"rope_theta": 10000.0, "rope_type": "default", "mrope_section": [1, 1, 0]}
    config = tf.Qwen2_5OmniThinkerConfig(
        audio_config=tower, vision_config=vision, text_config={**_TEXT, "rope_parameters": rope}, audio_token_id=3,
        image_token_id=318, video_token_id=319, vision_start_token_id=317, audio_start_token_id=4,
    )  # fmt: skip
    return _audio_llm(Qwen25OmniAdapter, tf.Qwen2_5OmniThinkerForConditionalGeneration, config, *_QWEN_MARKS, **_QWEN)


def _glm_asr() -> Adapter:
    tower = tf.GlmAsrEncoderConfig(
        hidden_size=16, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64, num_mel_bins=8,
        max_position_embeddings=52, head_dim=4, num_key_value_heads=4,
    )  # fmt: skip
    config = tf.GlmAsrConfig(audio_config=tower, text_config=tf.LlamaConfig(**_TEXT), audio_token_id=3)
    marks = ("<|pad|>", "<|begin_of_audio|>", "<|end_of_audio|>")
    made = _audio_llm(
        GlmAsrAdapter, tf.GlmAsrForConditionalGeneration, config, *marks,
        between="<|begin_of_audio|>{}<|end_of_audio|>",
    )  # fmt: skip
    # four frames make one audio position, so the window must hold a multiple of them
    made.feature_extractor = tf.WhisperFeatureExtractor(feature_size=8, chunk_length=2)
    return made


def _granite_speech() -> Adapter:
    text = tf.GraniteConfig(**_TEXT, residual_multiplier=0.6, embedding_multiplier=3.0, attention_multiplier=0.4)
    tower = {
        "input_dim": 16, "num_layers": 4, "hidden_dim": 16, "feedforward_mult": 2, "num_heads": 4, "output_dim": 7,
        "context_size": 6, "max_pos_emb": 8, "conv_kernel_size": 3,
    }  # fmt: skip
    former = tf.Blip2QFormerConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=20, encoder_hidden_size=16
    )
    config = tf.GraniteSpeechConfig(
        text_config=text, encoder_config=tower, projector_config=former, audio_token_index=3, has_lora_adapter=False,
    )  # fmt: skip
    reader = tokenizer("<|audio|>", "<|audio|>")
    return GraniteSpeechAdapter(tf.GraniteSpeechForConditionalGeneration(config), "tiny-granite_speech", reader)


#: audio-LLM -> the library's name for the mask of its mel frames
AUDIO_LLM = {
    "qwen2_audio": "feature_attention_mask",
    "audioflamingo3": "input_features_mask",
    "musicflamingo": "input_features_mask",
    "voxtral": None,
    "qwen2_5_omni_thinker": "feature_attention_mask",
    "granite_speech": None,
    "glmasr": "input_features_mask",
}
FAMILIES |= {
    "qwen2_audio": _qwen2_audio,
    "audioflamingo3": lambda: _flamingo(
        AudioFlamingo3Adapter, tf.AudioFlamingo3ForConditionalGeneration, tf.AudioFlamingo3Config
    ),
    "musicflamingo": lambda: _flamingo(
        MusicFlamingoAdapter, tf.MusicFlamingoForConditionalGeneration, tf.MusicFlamingoConfig
    ),
    "voxtral": _voxtral,
    "qwen2_5_omni_thinker": _omni,
    "granite_speech": _granite_speech,
    "glmasr": _glm_asr,
}


def build(family: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> Model:
    """A tiny random model; weights are larger than the library's default, so that layers matter."""
    torch.manual_seed(seed)
    adapter = FAMILIES[family]()
    with torch.no_grad():
        for name, p in adapter.hf.named_parameters():
            if p.ndim >= 2 and "conv" not in name:
                p.normal_(0, 1.2 / p.shape[-1] ** 0.5 if "embed" not in name else 1.0)
            elif "bias" in name:
                p.normal_(0, 0.1)
    adapter.hf.to(dtype)
    return Model(adapter)


def sound(seed: int, n_samples: int = 4000) -> Clip:
    """Seeded noise with a moving band, as a clip at 16 kHz."""
    rng = np.random.default_rng(seed)
    t = np.arange(n_samples) / 16000
    tone = np.sin(2 * np.pi * (300 + 900 * rng.random()) * t * (1 + t))
    return Clip((0.3 * tone + 0.1 * rng.standard_normal(n_samples)).astype(np.float32), 16000, name=f"sound-{seed}")


def pair(model: Model, seed: int = 1, n_tokens: int = 7) -> tuple[Inputs, Inputs]:
    """Two inputs of equal length that differ (in sound; in text for a language model)."""
    rng = np.random.default_rng(seed)
    made = []
    if isinstance(model.adapter, AudioLLMAdapter):
        # some text, the sound in its place, some text
        words = np.random.default_rng(seed).integers(4, 50, n_tokens).tolist()
        sounds = [sound(10 * seed + i) for i in range(2)]
        audio = [model.adapter.audio_token] * model.adapter.audio_tokens(len(sounds[0].samples))
        first, second = (model.inputs(s, tokens=[*words[:2], *audio, *words[2:]]) for s in sounds)
        return first, second
    for i in range(2):
        tokens = None
        if model.family == "language":
            tokens = rng.integers(4, 50, n_tokens).tolist()
        elif model.family == "whisper":
            tokens = [3, *np.random.default_rng(seed).integers(4, 50, n_tokens - 1).tolist()]
        clips = None if model.family == "language" else sound(10 * seed + i)
        made.append(model.inputs(clips, tokens=tokens))
    return made[0], made[1]
