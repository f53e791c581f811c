"""Isolation: planted effects, their null, and the arithmetic by hand."""

from __future__ import annotations

import numpy as np
import pytest

from otoscope.audio.corruptions import FACTORS
from otoscope.methods.isolation import ENTAILS, ISOLATES, MARGIN, isolation, judge, leaks

N = 24


def planted(seed: int = 0, **effects: float) -> dict[str, np.ndarray]:
    """Effects near 0 but for the factors that are named."""
    rng = np.random.default_rng(seed)
    return {f: np.abs(effects.get(f, 0.0) + 0.05 * rng.standard_normal(N)) for f in FACTORS}


def test_the_one_factor_that_moves_is_isolated_and_no_other_is():
    found = {f: isolation(planted(pitch=1.2), f) for f in FACTORS}
    assert found["pitch"].low > 0.95
    assert all(found[f].high < 0.2 for f in FACTORS if f != "pitch")


def test_nothing_is_isolated_where_nothing_or_everything_moves():
    assert all(isolation(planted(), f).high < 0.15 for f in FACTORS)
    everything = planted(**dict.fromkeys(FACTORS, 1.0))
    assert all(isolation(everything, f).high == 0 for f in FACTORS)


def test_the_score_is_strength_times_the_worst_share():
    effects = {f: np.zeros(4) for f in FACTORS}
    effects["pitch"] = np.array([0.5, 1.0, 3.0, 0.7])  # at most 1 each: mean .8
    effects["loudness"] = np.array([0.0, 0.0, 0.0, 9.0])  # kept in 3 of 4
    effects["speaker"] = np.array([0.0, 1.0, 1.0, MARGIN])  # in 2 of 4
    assert isolation(effects, "pitch").value == pytest.approx(0.8 * 0.5)


def test_a_factor_that_another_consists_of_is_no_leak_the_other_way_round_it_is():
    effects = planted(words=1.0, phones=1.0)
    assert isolation(effects, "words").low > 0.9
    assert isolation(effects, "phones").high < 0.1
    assert "phones" not in leaks("words", FACTORS)
    assert "words" in leaks("phones", FACTORS)
    assert set(ENTAILS) <= set(FACTORS)


def test_an_unreliable_yardstick_counts_for_nothing():
    effects = planted(pitch=1.0, speaker=1.0)
    trusted = [f for f in FACTORS if f != "speaker"]
    assert isolation(effects, "pitch").high < ISOLATES
    assert isolation(effects, "pitch", reliable=trusted).low > 0.9
    assert np.isnan(isolation(effects, "speaker", reliable=trusted).value)
    assert judge(effects["speaker"], reliable=False).verdict == "unreliable"


def test_verdicts_are_changed_kept_and_undecided():
    rng = np.random.default_rng(3)
    assert judge(1 + 0.2 * rng.standard_normal(N)).verdict == "changed"
    assert judge(0.02 * rng.standard_normal(N)).verdict == "kept"
    assert judge(MARGIN + 0.2 * rng.standard_normal(N)).verdict == "undecided"


def test_shifts_to_both_sides_do_not_cancel():
    signed = np.array([1.0, -1.0] * 12)
    assert signed.mean() == 0
    assert judge(signed).verdict == "changed"


def test_a_mean_at_the_margin_is_seldom_called_changed_or_kept():
    rng = np.random.default_rng(4)
    verdicts = [judge(MARGIN + rng.uniform(-0.2, 0.2, N)).verdict for _ in range(120)]
    assert verdicts.count("kept") <= 14
    assert verdicts.count("changed") <= 14


def test_missing_values_are_left_out_factor_by_factor_and_groups_are_the_units():
    effects = planted(pitch=1.0)
    effects["loudness"][:5] = np.nan
    effects["pitch"][-3:] = np.nan
    assert isolation(effects, "pitch").low > 0.9
    assert judge(effects["pitch"]).effect.n == N - 3
    assert judge(effects["pitch"], groups=np.repeat(np.arange(6), 4)).effect.n == 6
    assert np.isnan(isolation({**effects, "pitch": np.full(N, np.nan)}, "pitch").value)
