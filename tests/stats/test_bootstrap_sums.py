"""Intervals of functions of sums, against the plain bootstrap over units."""

from __future__ import annotations

import numpy as np
import pytest

from otoscope.stats import bootstrap, bootstrap_sums, ratio_of_sums


def test_a_ratio_of_sums_has_the_interval_of_the_plain_bootstrap() -> None:
    rng = np.random.default_rng(0)
    rows = np.stack([rng.poisson(2, 40), rng.integers(5, 20, 40)], axis=1).astype(float)
    ours = bootstrap_sums(rows, lambda t: t[0] / t[1], n_resamples=4000)
    plain = bootstrap(rows, ratio_of_sums, n_resamples=4000)
    assert ours.value == pytest.approx(plain.value)
    assert ours.n == 40
    assert (ours.low, ours.high) == (pytest.approx(plain.low, rel=0.02), pytest.approx(plain.high, rel=0.02))


def test_a_mean_covers_the_truth_about_as_often_as_it_says() -> None:
    hits = 0
    for seed in range(200):
        values = np.random.default_rng(seed).standard_normal(40)
        sums = np.stack([values, np.ones(40)], axis=1)
        found = bootstrap_sums(sums, lambda t: t[0] / t[1], n_resamples=300, seed=seed)
        hits += found.low <= 0 <= found.high
    assert 0.88 <= hits / 200 <= 0.98


def test_columns_may_have_any_shape_and_empty_units_do_not_count() -> None:
    sums = np.zeros((5, 2, 3))
    sums[:3] = 1
    found = bootstrap_sums(sums, lambda t: t.shape[0] * 10 + t.shape[1] + t.sum() * 0)
    assert found.value == 23
    assert found.n == 3


def test_one_unit_has_no_interval_and_an_undefined_statistic_none_either() -> None:
    assert np.isnan(bootstrap_sums([[1.0, 2.0]], lambda t: t[0]).low)
    assert np.isnan(bootstrap_sums([[1.0], [2.0]], lambda t: float("nan")).value)
