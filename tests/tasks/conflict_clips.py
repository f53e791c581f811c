"""Labelled clips without any data, a seeded noise per label and speaker; and a tiny Whisper to ask about them."""

from __future__ import annotations

import zlib

import numpy as np
import transformers as tf

from otoscope.audio.clip import Clip
from otoscope.engine.model import Model
from otoscope.models.whisper import WhisperAdapter
from tests.models.tiny_whisper import tokenizer, whisper

RATE = 16000


def clip(label: str, speaker: str | None = None, seconds: float = 0.25, sex: str = "", take: int = 0) -> Clip:
    """Noise that is the same for the same arguments."""
    name = f"{speaker or 'anyone'} {label} {take}"
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    samples = (0.1 * rng.standard_normal(round(seconds * RATE))).astype(np.float32)
    labels = {"label": label, **({"sex": sex} if sex else {})}
    return Clip(samples, RATE, text=label, speaker=speaker, labels=labels, name=name)


def tiny_asr() -> Model:
    """A random Whisper with a tokenizer: its sound is not among the decoder's positions."""
    words = tf.PreTrainedTokenizerFast(tokenizer_object=tokenizer(), eos_token="<|endoftext|>")
    extractor = tf.WhisperFeatureExtractor(feature_size=8, chunk_length=1)
    return Model(WhisperAdapter(whisper(init_std=0.5), "tiny-asr", words, extractor))
