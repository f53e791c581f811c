"""Background, rhythm and duration of sounds whose levels and times are planted."""

from __future__ import annotations

import numpy as np
import pytest

from otoscope.audio.clip import Clip
from otoscope.audio.corruptions import apply
from otoscope.methods.yardsticks.background import Background, signal_to_noise
from otoscope.methods.yardsticks.duration import Duration, speech_seconds
from otoscope.methods.yardsticks.rhythm import Rhythm

RATE = 16000


def bursts(
    starts: list[float], snr_db: float = 40.0, seconds: float = 2.0, length: float = 0.25, seed: int = 0
) -> Clip:
    """White bursts over a white floor ``snr_db`` below them."""
    rng = np.random.default_rng(seed)
    wave = rng.standard_normal(round(seconds * RATE)) * 10 ** (-snr_db / 20)
    for start in starts:
        first = round(start * RATE)
        wave[first : first + round(length * RATE)] += rng.standard_normal(round(length * RATE))
    return Clip((0.1 * wave).astype(np.float32), RATE)


STARTS = [0.2, 0.8, 1.3]


@pytest.mark.parametrize("snr_db", [10, 20, 30])
def test_the_planted_ratio_is_found(snr_db):
    # the loud level is the 95% quantile, so somewhat above the bursts' mean
    assert signal_to_noise(bursts(STARTS, snr_db)) == pytest.approx(snr_db, abs=4)


def test_a_change_of_the_ratio_is_found_and_a_filter_or_gain_is_none():
    clip = bursts(STARTS, 30)
    assert Background().moved(clip, bursts(STARTS, 20)) == pytest.approx(-10, abs=2)
    assert abs(Background().moved(clip, apply("low_pass", clip).clip)) < 1.5
    assert Background().moved(clip, clip.replace(samples=clip.samples * np.float32(0.1))) == pytest.approx(0, abs=0.01)


def test_nothing_left_loses_the_whole_ratio():
    clip = bursts(STARTS, 30)
    moved = Background().moved(clip, clip.replace(samples=np.zeros(len(clip), np.float32)))
    assert moved == pytest.approx(-signal_to_noise(clip))


def test_the_same_times_are_the_same_rhythm_whatever_the_sound():
    clip = bursts(STARTS)
    assert Rhythm().moved(clip, bursts(STARTS, seed=5)) < 0.1
    assert Rhythm().moved(clip, apply("white_noise", clip, snr_db=0.0).clip) < 0.2
    assert Rhythm().moved(clip, apply("low_pass", clip).clip) < 0.1


def test_a_delay_moves_rhythm_the_more_the_longer():
    clip = bursts(STARTS)
    moved = [Rhythm().moved(clip, bursts([s + delay for s in STARTS])) for delay in (0.03, 0.08, 0.2)]
    assert moved == sorted(moved)
    assert moved[0] > 0.05
    assert moved[2] > 0.6


def test_duration_runs_from_the_first_to_the_last_burst():
    clip = bursts(STARTS)
    assert speech_seconds(clip) == pytest.approx(1.35, abs=0.05)
    assert Duration().moved(clip, bursts([0.2, 0.8, 1.3 - 0.27])) == pytest.approx(-0.2, abs=0.04)
    assert Duration().moved(clip, bursts([s + 0.1 for s in STARTS])) == pytest.approx(0, abs=0.02)
    assert Duration().moved(clip, clip.replace(samples=np.zeros(len(clip), np.float32))) == -1


def test_within_a_span_only_the_span_counts():
    clip = bursts(STARTS)
    gap = apply("silence", clip, (0.8, 1.05)).clip
    assert Duration().moved(clip, gap, (0.75, 1.1)) == -1
    assert Duration().moved(clip, gap, (0.1, 0.6)) == 0
    assert Rhythm().moved(clip, gap, (0.1, 0.6)) == pytest.approx(0, abs=1e-9)
