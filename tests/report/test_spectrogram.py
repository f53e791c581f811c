"""A planted tone and a planted click are where they were put."""

import numpy as np
import pytest

from otoscope.report.spectrogram import log_mel, mel


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_a_tone_is_in_its_band_and_in_its_time(rate):
    time = np.arange(2 * rate) / rate
    tone = np.sin(2 * np.pi * 1000 * time) * (time > 1.2)
    got = log_mel(tone, rate)
    band, frame = np.unravel_index(got.level.argmax(), got.level.shape)
    assert abs(mel(got.hertz[band]) - mel(1000)) < mel(rate / 2) / 80
    assert got.times[frame] > 1.2
    loud = got.times[got.level[band] > -20]
    assert loud.min() == pytest.approx(1.2, abs=0.03)
    assert got.level.max() == pytest.approx(0)


def test_frames_are_centred_on_their_times():
    clicks = np.zeros(16000)
    clicks[8000] = 1.0
    got = log_mel(clicks, 16000)
    assert got.times[got.level.mean(0).argmax()] == pytest.approx(0.5, abs=0.006)


def test_silence_is_at_the_floor_and_short_sounds_work():
    assert (log_mel(np.zeros(16000), 16000).level == -70).all()
    assert np.isfinite(log_mel(np.ones(3), 16000).level).all()


def test_long_sounds_stay_small():
    assert log_mel(np.random.default_rng(0).normal(size=16000 * 120), 16000).level.shape[1] <= 901
