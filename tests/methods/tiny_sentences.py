"""A tiny Whisper that hears one second, with letters for tokens, and what it writes for seeded noise."""

import numpy as np
import transformers as tf

from otoscope.audio.clip import Clip
from otoscope.engine.model import Model
from otoscope.models.whisper import WhisperAdapter
from tests.models.tiny_whisper import tokenizer, whisper

RATE = 16000


def model(seed: int = 0) -> Model:
    """A random Whisper with a tokenizer; its answers hang on the sound."""
    words = tokenizer()
    reader = tf.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<|endoftext|>", eos_token="<|endoftext|>")
    extractor = tf.WhisperFeatureExtractor(feature_size=8, chunk_length=1)
    hf = whisper(seed, init_std=0.5, max_target_positions=48)
    start = words.token_to_id("<|startoftranscript|>")
    hf.generation_config.no_timestamps_token_id = words.token_to_id("<|notimestamps|>")
    hf.generation_config.suppress_tokens = list(range(start, words.get_vocab_size()))
    hf.generation_config.begin_suppress_tokens = None
    hf.generation_config.decoder_start_token_id = start
    return Model(WhisperAdapter(hf, "tiny-whisper", reader, extractor))


def clip(seed: int = 0, seconds: float = 0.8, text: str | None = None) -> Clip:
    """Seeded noise."""
    samples = 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE)).astype(np.float32)
    return Clip(samples, RATE, text=text, name=f"noise-{seed}")
