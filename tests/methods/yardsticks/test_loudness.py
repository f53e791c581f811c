"""Loudness against the numbers of ITU-R BS.1770-4."""

from __future__ import annotations

import numpy as np
import pytest

from otoscope.audio.clip import Clip
from otoscope.methods.yardsticks.loudness import SILENT, Loudness, integrated_loudness, k_weighting
from tests.methods.yardsticks.speech import gain, tone


def test_the_filters_are_those_of_the_standard_at_48_khz():
    shelf, high_pass = k_weighting(48000)
    # tables 1 and 2 of the standard
    assert shelf[:3] == pytest.approx([1.53512485958697, -2.69169618940638, 1.19839281085285], abs=1e-9)
    assert shelf[4:] == pytest.approx([-1.69065929318241, 0.73248077421585], abs=1e-9)
    assert high_pass[:3] == pytest.approx([1.0, -2.0, 1.0])
    assert high_pass[4:] == pytest.approx([-1.99004745483398, 0.99007225036621], abs=1e-9)


def test_a_sine_of_full_scale_has_the_loudness_that_the_standard_says():
    sine = tone(997, 3.0, harmonics=1, loud=1.0)
    assert integrated_loudness(sine) == pytest.approx(-3.01, abs=0.05)


def test_a_gain_is_measured_in_full_also_within_a_span_shorter_than_a_block():
    clip = tone(200, 2.0)
    assert Loudness().moved(clip, gain(clip, -6)) == pytest.approx(-6, abs=0.01)
    assert Loudness().moved(clip, gain(clip, -6), (0.5, 0.7)) == pytest.approx(-6, abs=0.01)


def test_pauses_do_not_count():
    clip = tone(200, 2.0)
    with_pause = Clip(np.concatenate([clip.samples, np.zeros(32000, np.float32)]), clip.rate)
    # the blocks across the edge are within the gate, so a little is lost
    assert integrated_loudness(with_pause) == pytest.approx(integrated_loudness(clip), abs=0.5)


def test_silence_has_a_floor():
    assert integrated_loudness(Clip(np.zeros(16000, np.float32), 16000)) == SILENT
    assert integrated_loudness(Clip(np.zeros(1600, np.float32), 16000)) == SILENT
