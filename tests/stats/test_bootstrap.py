"""Bootstrap: planted truth, coverage on simulated data, groups, missing values, agreement with scipy."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from otoscope.stats import Interval, bootstrap, bootstrap_map, ratio_of_sums


def test_planted_mean_is_inside_and_a_wrong_one_is_not():
    x = np.random.default_rng(0).normal(3.0, 1.0, 60)
    got = bootstrap(x)
    assert got.low < 3.0 < got.high
    assert not got.low < 4.0 < got.high
    assert got.value == pytest.approx(x.mean())
    assert (got.n, got.level, got.dropped) == (60, 0.95, 0)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_coverage_is_near_nominal(method):
    """400 data sets of 30: a 95% interval must hold the truth about 95% of the time (99.9% band: .91 to .98)."""
    rng = np.random.default_rng(1)
    inside = 0
    for seed in range(400):
        got = bootstrap(rng.normal(0, 1, 30), n_resamples=500, seed=seed, method=method)
        inside += got.low <= 0 <= got.high
    assert 0.90 <= inside / 400 <= 0.98


def test_groups_widen_the_interval_and_keep_coverage_where_frames_would_not():
    """8 speakers x 20 correlated utterances: resampling utterances is overconfident, resampling speakers is not."""
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(20), 10)
    naive = honest = 0
    for seed in range(200):
        x = rng.normal(0, 1, 20)[groups] + rng.normal(0, 0.2, 200)
        a, b = bootstrap(x, n_resamples=300, seed=seed), bootstrap(x, groups=groups, n_resamples=300, seed=seed)
        naive += a.low <= 0 <= a.high
        honest += b.low <= 0 <= b.high
        assert b.n == 20
    assert naive / 200 < 0.75
    assert 0.87 <= honest / 200 <= 0.99


@pytest.mark.parametrize(("ours", "theirs"), [("percentile", "percentile"), ("bca", "BCa")])
@pytest.mark.parametrize("statistic", [np.mean, np.median, np.std])
def test_agrees_with_scipy(ours, theirs, statistic):
    x = np.random.default_rng(3).exponential(2.0, 80)
    got = bootstrap(x, statistic, n_resamples=8000, method=ours)
    want = scipy_stats.bootstrap((x,), statistic, n_resamples=8000, method=theirs, rng=9).confidence_interval
    width = want.high - want.low
    assert got.low == pytest.approx(want.low, abs=0.06 * width)
    assert got.high == pytest.approx(want.high, abs=0.06 * width)


def test_bca_corrects_a_skewed_statistic():
    x = np.random.default_rng(4).lognormal(0, 1.2, 40)
    plain, corrected = bootstrap(x), bootstrap(x, method="bca")
    assert corrected.high > plain.high  # the long tail is on the right


def test_missing_values_are_dropped_and_counted():
    got = bootstrap([1.0, float("nan"), 3.0, 5.0])
    assert got.value == pytest.approx(3.0)
    assert (got.n, got.dropped) == (3, 1)


@pytest.mark.parametrize(("values", "n"), [([], 0), ([float("nan")], 0), ([2.0], 1)])
def test_too_few_units_have_no_bounds(values, n):
    got = bootstrap(values)
    assert got.n == n
    assert np.isnan(got.low)
    assert np.isnan(got.high)


def test_one_group_has_no_bounds_however_many_values():
    assert np.isnan(bootstrap(np.arange(10.0), groups=["a"] * 10).low)


def test_same_seed_same_interval_other_seed_other_interval():
    x = np.random.default_rng(5).normal(size=25)
    assert bootstrap(x, seed=1) == bootstrap(x, seed=1)
    assert bootstrap(x, seed=1) != bootstrap(x, seed=2)


def test_group_labels_are_only_labels():
    x = np.random.default_rng(6).normal(size=12)
    a = bootstrap(x, groups=["p", "p", "q", "q", "r", "r"] * 2)
    b = bootstrap(x, groups=[9, 9, 1, 1, 5, 5] * 2)
    assert a == b


def test_ratio_of_sums_weighs_long_utterances_more():
    rows = np.array([[1, 10], [0, 2], [3, 20]])
    assert bootstrap(rows, ratio_of_sums).value == pytest.approx(4 / 32)
    assert np.isnan(ratio_of_sums(np.zeros((2, 2))))


def test_map_agrees_with_one_cell_at_a_time():
    x = np.random.default_rng(7).normal(size=(40, 3, 5)) + np.arange(5)
    x[0, 1, 2] = np.nan
    mean, low, high = bootstrap_map(x, n_resamples=4000)
    assert mean.shape == low.shape == high.shape == (3, 5)
    one = bootstrap(x[:, 1, 2], n_resamples=4000)
    assert mean[1, 2] == pytest.approx(one.value)
    assert low[1, 2] == pytest.approx(one.low, abs=0.05)
    assert high[1, 2] == pytest.approx(one.high, abs=0.05)


def test_map_of_a_cell_with_one_value_has_no_bounds():
    x = np.full((4, 2), np.nan)
    x[:, 0] = [1, 2, 3, 4]
    x[0, 1] = 1.0
    mean, low, _ = bootstrap_map(x)
    assert mean[1] == 1.0
    assert np.isnan(low[1])
    assert not np.isnan(low[0])


@pytest.mark.parametrize(
    ("kwargs", "word"),
    [({"groups": [1]}, "label"), ({"level": 95}, "level"), ({"method": "basic"}, "method")],
)
def test_wrong_arguments_are_named(kwargs, word):
    with pytest.raises(ValueError, match=word):
        bootstrap([1.0, 2.0], **kwargs)


def test_interval_unpacks_in_the_documented_order():
    value, low, high, n, level, _ = Interval(1.0, 0.0, 2.0, 5)
    assert (value, low, high, n, level) == (1.0, 0.0, 2.0, 5, 0.95)
