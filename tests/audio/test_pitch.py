"""Pitch of sounds whose pitch is known, and none where there is none."""

import numpy as np
import pytest

from otoscope.audio.clip import Clip
from otoscope.audio.pitch import pitch

RATE = 16000
TIMES = np.arange(0.1, 0.9, 0.05)


def pulses(hz: np.ndarray) -> Clip:
    """A voice-like sound: ten harmonics of a pitch that may glide."""
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(hz, RATE)) / RATE
    wave = sum(np.sin(k * phase) / k for k in range(1, 11))
    return Clip((0.1 * np.asarray(wave)).astype(np.float32), RATE)


@pytest.mark.parametrize("hz", [80.0, 120.0, 210.0, 333.0])
def test_steady_pitch_is_found(hz):
    assert np.allclose(pitch(pulses(np.array(hz)), TIMES), hz, rtol=0.01)


def test_missing_fundamental_is_heard_as_the_ear_does():
    t = np.arange(RATE) / RATE
    wave = sum(np.sin(2 * np.pi * 150 * k * t) for k in range(3, 8))
    assert np.allclose(pitch(Clip((0.1 * np.asarray(wave)).astype(np.float32), RATE), TIMES), 150, rtol=0.01)


def test_glide_is_followed():
    hz = np.linspace(100, 200, RATE)
    assert np.allclose(pitch(pulses(hz), TIMES), 100 + 100 * TIMES, rtol=0.03)


@pytest.mark.parametrize("sound", ["noise", "silence"])
def test_noise_and_silence_have_no_pitch(sound):
    samples = 0.1 * np.random.default_rng(0).standard_normal(RATE) if sound == "noise" else np.zeros(RATE)
    found = pitch(Clip(samples.astype(np.float32), RATE), TIMES)
    assert np.isnan(found).mean() > 0.9
