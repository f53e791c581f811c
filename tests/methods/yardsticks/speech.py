"""Synthetic speech that the tests of yardsticks manipulate: what moves in it is known."""

from __future__ import annotations

import importlib.util
from functools import cache

import numpy as np
import pytest

from otoscope.audio.clip import Clip
from otoscope.audio.corruptions import apply
from otoscope.audio.stretch import stretched
from otoscope.audio.synth import say

needs_speech = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None or importlib.util.find_spec("pocketsphinx") is None,
    reason='needs pip install "otoscope[speech]"',
)
TEXTS = (
    "the old man sold his horse this morning",
    "a tall woman was waiting at the corner",
    "nobody heard the music that night",
)


@cache
def spoken(text: str = TEXTS[0], voice: str = "en-us", pitch: float = 50.0) -> Clip:
    return say(text, voice, "espeak", pitch=pitch)


def gain(clip: Clip, decibels: float) -> Clip:
    return clip.replace(samples=clip.samples * np.float32(10 ** (decibels / 20)))


def noisy(clip: Clip, snr_db: float) -> Clip:
    return apply("white_noise", clip, None, 0, snr_db=snr_db).clip


def slower(clip: Clip, ratio: float) -> Clip:
    samples = stretched(clip.samples.astype(np.float64), round(len(clip) * ratio), clip.rate)
    return clip.replace(samples=samples.astype(np.float32), words=(), phones=())


def tone(hz: float, seconds: float = 1.0, harmonics: int = 12, loud: float = 0.1, rate: int = 16000) -> Clip:
    """Harmonics that fall by 1/k."""
    time = np.arange(round(seconds * rate)) / rate
    wave = sum(np.sin(2 * np.pi * hz * k * time + k) / k for k in range(1, harmonics + 1))
    return Clip((loud * np.asarray(wave)).astype(np.float32), rate, name=f"{hz:g} Hz")
