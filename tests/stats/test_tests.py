"""Sign flips, corrections, binomial, rank correlation: truth planted, nulls near nominal, scipy as the oracle."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from otoscope.stats import (
    benjamini_hochberg,
    binomial_test,
    clopper_pearson,
    holm,
    sign_flip,
    sign_flip_map,
    spearman,
)


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_exact_sign_flip_agrees_with_scipy(alternative):
    x = np.random.default_rng(0).normal(0.4, 1, 10)
    want = scipy_stats.permutation_test(
        (x,), np.mean, permutation_type="samples", alternative=alternative, n_resamples=np.inf, vectorized=True
    ).pvalue
    # scipy's two-sided is twice the smaller tail, ours counts |mean|: equal here, because flips are symmetric about 0
    assert sign_flip(x, alternative) == pytest.approx(want, abs=1e-12)


def test_sampled_agrees_with_exact():
    x = np.random.default_rng(1).normal(0.5, 1, 12)
    assert sign_flip(x, n_permutations=4095) == pytest.approx(sign_flip(x, n_permutations=4096), abs=0.02)


def test_smallest_p_of_n_pairs():
    assert sign_flip(np.ones(5)) == pytest.approx(2 / 32)
    assert sign_flip(np.ones(6)) == pytest.approx(2 / 64)
    assert sign_flip(np.ones(5), "greater") == pytest.approx(1 / 32)
    assert sign_flip(np.zeros(8)) == 1.0


def test_sign_flip_null_rate_is_nominal():
    rng = np.random.default_rng(2)
    rate = np.mean([sign_flip(rng.standard_t(3, 10)) < 0.05 for _ in range(600)])
    assert 0.02 <= rate <= 0.08


def test_groups_flip_together():
    x = np.repeat([1.0, 1.2, 0.9], 20)
    assert sign_flip(x) < 0.001
    assert sign_flip(x, groups=np.repeat(["a", "b", "c"], 20)) == pytest.approx(2 / 8)


def test_nan_pairs_do_not_add_power():
    x = [1.0, 1.0, 1.0, float("nan"), float("nan")]
    assert sign_flip(x) == pytest.approx(2 / 8)
    assert np.isnan(sign_flip([float("nan")] * 3))


@pytest.mark.parametrize("statistic", ["mean", "t"])
def test_map_null_is_family_wise(statistic):
    """300 null maps of 6 x 20 cells: the share with *any* cell below .05 stays near 5%, over 120 tests."""
    rng = np.random.default_rng(3)
    any_hit = uncorrected = 0
    for seed in range(300):
        x = rng.normal(size=(12, 6, 20)) * rng.uniform(0.5, 2, (1, 6, 20))
        any_hit += (sign_flip_map(x, n_permutations=300, seed=seed, statistic=statistic) < 0.05).any()
        uncorrected += (scipy_stats.ttest_1samp(x, 0).pvalue < 0.05).any()
    assert any_hit / 300 <= 0.085
    assert any_hit / 300 >= 0.01  # and it is not simply never significant
    assert uncorrected / 300 > 0.9


def test_map_finds_planted_cells_with_few_pairs_and_only_those():
    rng = np.random.default_rng(4)
    x = rng.normal(0, 0.03, (8, 4, 25))
    x[:, 2, 10:13] += 0.6
    x[:, 3, 11] += 0.25  # weaker: found only because the procedure steps down
    p = sign_flip_map(x)
    want = np.zeros((4, 25), bool)
    want[2, 10:13] = want[3, 11] = True
    assert (p[want] < 0.05).all()
    assert (p[~want] >= 0.05).all()


def test_map_of_one_cell_is_the_plain_test():
    x = np.random.default_rng(5).normal(0.3, 1, 10)
    assert sign_flip_map(x[:, None])[0] == sign_flip(x)


def test_map_is_never_below_the_uncorrected_p():
    x = np.random.default_rng(6).normal(0.5, 1, (9, 7))
    corrected = sign_flip_map(x)
    assert all(corrected[i] >= sign_flip(x[:, i]) - 1e-12 for i in range(7))


def test_rounding_noise_of_one_sign_needs_the_floor():
    x = np.full((10, 5), 1e-7)
    assert (sign_flip_map(x) < 0.05).all()
    assert (sign_flip_map(x, floor=1e-5) == 1.0).all()


def test_map_keeps_nan_cells_nan():
    x = np.random.default_rng(7).normal(1, 0.1, (8, 3))
    x[:, 1] = np.nan
    p = sign_flip_map(x)
    assert np.isnan(p[1])
    assert (p[[0, 2]] < 0.05).all()


def test_map_needs_cells():
    with pytest.raises(ValueError, match="n_pairs"):
        sign_flip_map([1.0, 2.0])


def test_benjamini_hochberg_agrees_with_scipy():
    p = np.random.default_rng(8).uniform(size=(5, 6)) ** 2
    np.testing.assert_allclose(benjamini_hochberg(p), scipy_stats.false_discovery_control(p.ravel()).reshape(5, 6))


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])
def test_corrections_skip_missing_tests(adjust):
    p = np.array([0.01, np.nan, 0.2])
    got = adjust(p)
    assert np.isnan(got[1])
    np.testing.assert_allclose(got[[0, 2]], adjust(p[[0, 2]]))
    assert adjust([]).size == 0


def test_holm_null_is_family_wise():
    rng = np.random.default_rng(9)
    assert np.mean([(holm(rng.uniform(size=20)) < 0.05).any() for _ in range(2000)]) <= 0.06


@pytest.mark.parametrize(("k", "n"), [(0, 10), (10, 10), (54, 60), (1, 3)])
def test_clopper_pearson_agrees_with_scipy(k, n):
    want = scipy_stats.binomtest(k, n).proportion_ci(method="exact")
    got = clopper_pearson(k, n)
    assert (got.low, got.high) == pytest.approx((want.low, want.high), abs=1e-10)
    assert got.value == k / n


def test_clopper_pearson_covers():
    rng = np.random.default_rng(10)
    inside = sum(c.low <= 0.9 <= c.high for c in (clopper_pearson(int(k), 40) for k in rng.binomial(40, 0.9, 1000)))
    assert inside / 1000 >= 0.95


def test_impossible_and_empty_shares():
    with pytest.raises(ValueError, match="not possible"):
        clopper_pearson(5, 4)
    assert np.isnan(clopper_pearson(0, 0).value)
    assert binomial_test(9, 10) == pytest.approx(scipy_stats.binomtest(9, 10).pvalue)
    assert np.isnan(binomial_test(0, 0))


def test_spearman_agrees_with_scipy_with_ties():
    rng = np.random.default_rng(11)
    x = rng.integers(0, 6, 50)
    y = x + rng.integers(0, 6, 50)
    got, want = spearman(x, y), scipy_stats.spearmanr(x, y)
    assert got.rho.value == pytest.approx(want.statistic)
    assert got.p_value < 0.002
    assert got.rho.low < got.rho.value < got.rho.high


def test_spearman_null_and_undefined():
    rng = np.random.default_rng(12)
    rate = np.mean([spearman(rng.normal(size=15), rng.normal(size=15), 99).p_value < 0.05 for _ in range(200)])
    assert rate <= 0.085
    assert np.isnan(spearman([1, 1, 1, 1], [1, 2, 3, 4]).rho.value)
    assert np.isnan(spearman([1, 2], [1, 2]).p_value)
    assert spearman([1, 2, 3, np.nan], [1, 2, 3, 4]).rho.dropped == 1
