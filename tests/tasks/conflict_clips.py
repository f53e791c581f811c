"""Labelled clips without any data: a seeded noise per label and speaker."""

from __future__ import annotations

import zlib

import numpy as np

from otoscope.audio.clip import Clip

RATE = 16000


def clip(label: str, speaker: str | None = None, seconds: float = 0.25, sex: str = "", take: int = 0) -> Clip:
    """Noise that is the same for the same arguments."""
    name = f"{speaker or 'anyone'} {label} {take}"
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    samples = (0.1 * rng.standard_normal(round(seconds * RATE))).astype(np.float32)
    labels = {"label": label, **({"sex": sex} if sex else {})}
    return Clip(samples, RATE, text=label, speaker=speaker, labels=labels, name=name)
