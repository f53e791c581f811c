"""The space of speakers: planted speakers, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from otoscope.audio.clip import Clip
from otoscope.errors import TaskError
from otoscope.methods.yardsticks.speaker import Speaker, SpeakerSpace, equal_error_rate


def planted(speaker: int, take: int, seconds: float = 1.5) -> Clip:
    """Noise bursts through formants: the formants' scale is the speaker's, their places in time are the take's."""
    rng = np.random.default_rng(1000 * speaker + take)
    scale, n = 0.8 + 0.1 * speaker, round(seconds * 16000)
    wave = np.zeros(n)
    for start in range(0, n - 3200, 3200):
        for formant in (500, 1500, 2500):
            centre = formant * scale * rng.uniform(0.9, 1.1)
            band = signal.butter(2, (0.9 * centre, 1.1 * centre), btype="bandpass", fs=16000, output="sos")
            wave[start : start + 2400] += np.asarray(signal.sosfilt(band, rng.standard_normal(2400)))
    wave += 1e-4 * rng.standard_normal(n)
    return Clip((0.1 * wave).astype(np.float32), 16000, speaker=str(speaker), name=f"{speaker}/{take}")


def test_speakers_that_it_was_not_trained_on_are_told_apart():
    space = SpeakerSpace.train([planted(s, t) for s in (0, 2, 4, 6) for t in range(4)])
    ruler = Speaker(space)
    held_out = [planted(s, t) for s in (1, 3, 5) for t in range(10, 13)]
    pairs = [(a, b) for i, a in enumerate(held_out) for b in held_out[i + 1 :]]
    same = np.array([ruler.moved(a, b) for a, b in pairs if a.speaker == b.speaker])
    different = np.array([ruler.moved(a, b) for a, b in pairs if a.speaker != b.speaker])
    assert equal_error_rate(same, different) < 0.25
    shuffled = np.random.default_rng(0).permutation(np.concatenate([same, different]))
    assert equal_error_rate(shuffled[: len(same)], shuffled[len(same) :]) > 0.25


def test_training_is_repeatable_and_the_space_is_plain_arrays():
    clips = [planted(s, t, 0.8) for s in range(3) for t in range(2)]
    one, other = (SpeakerSpace.train(clips) for _ in range(2))
    assert all(np.array_equal(vars(one)[key], vars(other)[key]) for key in ("mean", "scale", "directions"))
    assert one.directions.shape == (57, 2)


def test_too_few_speakers_are_refused():
    with pytest.raises(TaskError, match="at least 3 speakers"):
        SpeakerSpace.train([planted(0, 0), planted(0, 1), planted(1, 0)])


def test_the_equal_error_rate_of_separate_and_of_equal_distances():
    low, high = np.linspace(0, 1, 50), np.linspace(2, 3, 50)
    assert equal_error_rate(low, high) == 0
    assert equal_error_rate(high, low) == pytest.approx(1, abs=0.03)
    assert equal_error_rate(low, low) == pytest.approx(0.5, abs=0.02)
