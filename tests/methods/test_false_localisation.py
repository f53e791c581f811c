"""Judging a map: places in and out of the span, alarms, silence; exact intervals with sentences as units."""

from __future__ import annotations

import numpy as np
import pytest

from otoscope.methods.false_localisation import ALARM, FAR, MARGIN, SPEAKS, in_place, judge, rate
from otoscope.stats import clopper_pearson

STARTS = np.arange(0.0, 2.0, 0.2)
ENDS = STARTS + 0.2
SPAN = (0.85, 1.15)


def effects(**at: float) -> np.ndarray:
    """Zeros, with effects at windows by their start: ``w08=0.5``."""
    out = np.zeros(len(STARTS))
    for name, value in at.items():
        out[int(name[1:]) // 2] = value
    return out


def test_a_map_whose_largest_effect_is_in_the_span_is_true():
    found = judge(effects(w08=0.9, w10=0.5, w02=0.1), STARTS, ENDS, SPAN, 3.0)
    assert (found.named, found.effect, found.wrong, found.alarm, found.false) == (4, 0.9, False, False, False)
    assert found.control == pytest.approx(0.1)


def test_a_map_whose_largest_effect_is_elsewhere_is_wrong():
    found = judge(effects(w08=0.5, w06=0.9), STARTS, ENDS, SPAN, 3.0)
    assert found.named == 3
    assert found.wrong
    assert not found.alarm, "the window before the span is no control window"
    assert found.false


def test_an_effect_far_from_the_span_is_an_alarm_beside_a_true_peak():
    found = judge(effects(w08=0.9, w16=ALARM), STARTS, ENDS, SPAN, 3.0)
    assert not found.wrong
    assert found.alarm
    assert found.false
    assert not judge(effects(w08=0.9, w16=ALARM - 0.01), STARTS, ENDS, SPAN, 3.0).false


@pytest.mark.parametrize(
    ("values", "margin"),
    [
        (effects(w16=SPEAKS - 0.01), 3.0),
        (effects(w16=0.9), MARGIN - 0.01),
        (np.full(len(STARTS), np.nan), 3.0),
        (-effects(w16=0.9), 3.0),
    ],
)
def test_where_little_happens_the_map_is_silent_and_not_false(values, margin):
    found = judge(values, STARTS, ENDS, SPAN, margin)
    assert found.named is None
    assert not found.false


def test_which_windows_are_in_place_and_which_are_far():
    there = in_place(STARTS, ENDS, SPAN)
    assert STARTS[there].round(1).tolist() == [0.8, 1.0]
    far = judge(effects(), STARTS, ENDS, SPAN, 3.0).far
    assert ENDS[far & (STARTS < 1)].max() <= SPAN[0] - FAR + 1e-9
    assert STARTS[far & (STARTS > 1)].min() >= SPAN[1] + FAR - 1e-9
    narrow = in_place(np.array([0.7, 0.72, 1.2]), np.array([0.8, 0.82, 1.3]), SPAN)
    assert narrow.tolist() == [True, True, True], "a narrow window beside the span is within the tolerance"
    assert not in_place(np.array([0.65]), np.array([0.75]), SPAN).any()


def test_a_map_drawn_at_random_is_wrong_as_often_as_chance_says():
    rng = np.random.default_rng(0)
    maps = [judge(rng.random(len(STARTS)), STARTS, ENDS, SPAN, 3.0) for _ in range(3000)]
    assert np.mean([not m.wrong for m in maps]) == pytest.approx(maps[0].chance, abs=0.02)


@pytest.mark.parametrize(("hits", "n"), [(0, 9), (3, 12), (9, 9)])
def test_with_one_answer_per_unit_the_interval_is_the_exact_one(hits, n):
    found = rate([True] * hits + [False] * (n - hits), list(range(n)))
    exact = clopper_pearson(hits, n)
    assert (found.value, found.n) == (exact.value, n)
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))


def test_answers_that_repeat_their_unit_make_the_interval_no_narrower():
    happened = [True] * 3 + [False] * 9
    once = rate(happened, list(range(12)))
    often = rate(np.repeat(happened, 10), np.repeat(np.arange(12), 10))
    assert often.n == 12
    assert often.high - often.low == pytest.approx(once.high - once.low, rel=0.1)
    nothing = rate([False] * 120, np.repeat(np.arange(12), 10))
    assert nothing.high == pytest.approx(clopper_pearson(0, 12).high)


def test_the_interval_holds_the_true_share_of_units_that_differ():
    rng = np.random.default_rng(1)
    held = []
    for _ in range(300):
        own = rng.beta(1, 3, 15)  # a share of its own per unit, 0.25 on average
        happened = rng.random((15, 20)) < own[:, None]
        found = rate(happened.ravel(), np.repeat(np.arange(15), 20))
        held.append(found.low <= 0.25 <= found.high)
    assert np.mean(held) > 0.92


def test_no_answer_is_no_rate():
    assert np.isnan(rate([], []).value)
