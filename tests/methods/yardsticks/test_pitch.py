"""Pitch of sounds whose period is known."""

from __future__ import annotations

import numpy as np
import pytest

from otoscope.audio.clip import Clip
from otoscope.audio.corruptions import apply
from otoscope.methods.yardsticks.pitch import GONE, Pitch, earth_mover, f0
from tests.methods.yardsticks.speech import noisy, tone


@pytest.mark.parametrize("hz", [75, 110, 180, 240, 380])
def test_the_period_of_harmonics_is_found(hz):
    found = f0(tone(hz))
    known = found[~np.isnan(found)]
    assert len(known) > 0.9 * len(found)
    assert np.median(known) == pytest.approx(hz, rel=0.01)


@pytest.mark.parametrize("hz", [110, 180])
def test_also_in_noise(hz):
    found = f0(noisy(tone(hz), 10))
    assert np.nanmedian(found) == pytest.approx(hz, rel=0.02)


def test_noise_has_no_pitch():
    hiss = Clip(0.1 * np.random.default_rng(0).standard_normal(16000).astype(np.float32), 16000)
    assert np.mean(~np.isnan(f0(hiss))) < 0.1


def test_an_octave_and_a_fifth_are_measured_in_semitones():
    assert Pitch().moved(tone(120), tone(240)) == pytest.approx(12, abs=0.2)
    assert Pitch().moved(tone(120), tone(180)) == pytest.approx(12 * np.log2(1.5), abs=0.2)


def test_a_lost_voice_counts_as_an_octave_and_half_a_voice_as_half():
    clip = tone(120, 2.0)
    assert Pitch().moved(clip, apply("silence", clip).clip) == pytest.approx(GONE)
    assert Pitch().moved(clip, apply("silence", clip, (0.0, 1.0)).clip) == pytest.approx(GONE / 2, abs=0.5)


def test_the_earth_mover_is_the_shift_of_shifted_samples():
    values = np.random.default_rng(0).normal(size=200)
    assert earth_mover(values, values + 3) == pytest.approx(3)
    assert earth_mover(values, values) == 0
