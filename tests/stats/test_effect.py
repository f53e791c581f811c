"""Effect sizes: planted sizes, small-sample bias, ties and the undefined."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from otoscope.stats import cliffs_delta, cohen_d, hedges_g


def test_planted_sizes_are_recovered():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.8, 1, 20_000), rng.normal(0, 1, 20_000)
    assert cohen_d(a, b) == pytest.approx(0.8, abs=0.04)
    assert cohen_d(a) == pytest.approx(0.8, abs=0.04)
    assert cliffs_delta(a, b) == pytest.approx(2 * scipy_stats.norm.cdf(0.8 / np.sqrt(2)) - 1, abs=0.02)


def test_d_follows_from_scipys_t():
    rng = np.random.default_rng(1)
    a, b = rng.normal(1, 2, 14), rng.normal(0, 2, 9)
    t = scipy_stats.ttest_ind(a, b).statistic
    assert cohen_d(a, b) == pytest.approx(t * np.sqrt(1 / 14 + 1 / 9))
    assert cohen_d(a) == pytest.approx(scipy_stats.ttest_1samp(a, 0).statistic / np.sqrt(14))


def test_hedges_removes_the_small_sample_bias():
    rng = np.random.default_rng(2)
    draws = [(rng.normal(1, 1, 5), rng.normal(0, 1, 5)) for _ in range(4000)]
    assert np.mean([cohen_d(a, b) for a, b in draws]) > 1.07
    assert np.mean([hedges_g(a, b) for a, b in draws]) == pytest.approx(1.0, abs=0.05)


def test_cliff_agrees_with_mann_whitney_with_ties():
    a, b = np.array([1, 2, 2, 3, 5]), np.array([2, 2, 4])
    u = scipy_stats.mannwhitneyu(a, b).statistic
    assert cliffs_delta(a, b) == pytest.approx(2 * u / 15 - 1)
    assert cliffs_delta([3, 4], [1, 2]) == 1.0
    assert cliffs_delta([1, np.nan], [1]) == 0.0


def test_undefined_is_nan():
    assert all(np.isnan(v) for v in (cohen_d([1.0]), cohen_d([1, 1], [1, 1]), cohen_d([], [1, 2])))
    assert all(np.isnan(v) for v in (hedges_g([1.0, 2.0]), cliffs_delta([], [1])))
