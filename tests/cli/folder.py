"""A tiny Whisper saved as a model folder; importable by processes that tests start."""

from __future__ import annotations

from pathlib import Path

import transformers as tf

from otoscope.models.convert_ct2 import convert_ct2
from tests.models.tiny_whisper import whisper, write_ct2_folder


def save_tiny_whisper(folder: Path) -> Path:
    """Write weights, tokenizer and feature extractor to ``folder / "tiny"``; returns it."""
    made = folder / "tiny"
    made.mkdir()
    write_ct2_folder(
        folder / "ct2", whisper(init_std=0.5, max_target_positions=160)
    )  # wide: the answer hangs on the sound
    convert_ct2(folder / "ct2", made)
    tf.WhisperFeatureExtractor(feature_size=8, chunk_length=1).save_pretrained(made)
    return made
