"""Equivalence: against textbook formulas, and the error rates that it promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from otoscope.stats.equivalence import tost

RNG = np.random.default_rng(0)


def p_value(values: np.ndarray, mean: float, alternative: str = "two-sided") -> float:
    found: Any = stats.ttest_1samp(values, mean, alternative=alternative)
    return float(found.pvalue)


def test_p_is_that_of_two_one_sample_tests_of_scipy():
    values = RNG.normal(0.1, 1.0, 25)
    found = tost(values, 0.6)
    below = p_value(values, -0.6, alternative="greater")
    above = p_value(values, 0.6, alternative="less")
    assert found.p == pytest.approx(max(below, above), rel=1e-9)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.90)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9)


@pytest.mark.parametrize("mean", [0.0, 0.3, 0.5, -0.5, 0.7])
def test_it_is_equivalent_exactly_when_the_interval_lies_within_the_margins(mean):
    found = tost(mean + RNG.normal(0, 0.4, 15), 0.5)
    assert found.equivalent == (found.low > -0.5 and found.high < 0.5)


@pytest.mark.parametrize("method", ["t", "bootstrap"])
def test_a_mean_on_the_margin_is_called_equivalent_at_most_as_often_as_alpha_says(method):
    rng = np.random.default_rng(1)
    calls = [tost(rng.normal(0.5, 1, 40), 0.5, method=method, seed=i).equivalent for i in range(300)]
    assert np.mean(calls) < 0.09  # 5%, plus three standard errors of 300 draws


@pytest.mark.parametrize("method", ["t", "bootstrap"])
def test_a_mean_of_zero_is_found_equivalent_where_there_are_enough_units(method):
    rng = np.random.default_rng(2)
    calls = [tost(rng.normal(0, 1, 80), 0.5, method=method, seed=i).equivalent for i in range(50)]
    assert np.mean(calls) > 0.9


def test_not_significant_is_not_equivalent():
    values = np.array([-2.0, 3.0, -1.0, 2.5])
    assert p_value(values, 0) > 0.05
    assert not tost(values, 0.5).equivalent


def test_values_of_one_group_count_once():
    values = RNG.normal(0, 1, 6)
    assert tost(np.repeat(values, 10), 0.8, groups=np.repeat(np.arange(6), 10))[:6] == pytest.approx(
        tost(values, 0.8)[:6]
    )


def test_no_spread_is_judged_by_the_mean_and_missing_values_are_left_out():
    assert tost([0.1, 0.1, np.nan, 0.1], 0.2).equivalent
    assert tost([0.1, 0.1, np.nan, 0.1], 0.2).n == 3
    assert not tost([0.3, 0.3, 0.3], 0.2).equivalent
    for values in ([], [0.0], [np.nan, 0.0]):
        assert not tost(values, 1.0).equivalent


@pytest.mark.parametrize(
    ("given", "said"), [({"margin": 0.0}, "margin"), ({"alpha": 0.6}, "alpha"), ({"method": "z"}, "method")]
)
def test_bad_arguments_are_refused(given, said):
    with pytest.raises(ValueError, match=said):
        tost([0.0, 1.0], **{"margin": 1.0, **given})
