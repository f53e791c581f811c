"""Concordance: equal to scikit-learn's, blind to differences between strata, silent on shuffled outcomes."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from otoscope.methods.concordance import concordance, ranks_within


def cases(n=600, units=20, strata=12, within=0.0, between=0.0, seed=0):
    """Scores that tell the outcome by so much within a stratum, and by so much between strata."""
    rng = np.random.default_rng(seed)
    unit, stratum = rng.integers(units, size=n), rng.integers(strata, size=n)
    level = rng.standard_normal(strata)[stratum]
    own = rng.standard_normal(n)
    happened = rng.random(n) < 1 / (1 + np.exp(-(within * own + between * level)))
    return own + 3 * level, happened, unit, stratum


def test_unstratified_it_is_the_area_under_the_curve():
    score, happened, unit, _ = cases(within=1.0)
    found = concordance(np.round(score, 1), happened, unit)  # rounded: ties count half
    assert found.auc.value == pytest.approx(roc_auc_score(happened, np.round(score, 1)))
    assert found.pairs == happened.sum() * (~happened).sum()
    assert found.strata == 1


def test_within_strata_it_is_their_areas_weighted_by_pairs():
    score, happened, unit, stratum = cases(within=1.0)
    found = concordance(score, happened, unit, stratum)
    areas, pairs = [], []
    for s in np.unique(stratum):
        mine = happened[stratum == s]
        areas.append(roc_auc_score(mine, score[stratum == s]))
        pairs.append(mine.sum() * (~mine).sum())
    assert found.auc.value == pytest.approx(np.average(areas, weights=pairs))
    assert found.strata == len(areas)


def test_a_planted_relation_is_found():
    found = concordance(*cases(within=1.5))
    assert found.auc.low > 0.6
    assert found.p_value < 0.01


def test_a_relation_between_strata_alone_is_seen_pooled_and_not_within():
    score, happened, unit, stratum = cases(within=0.0, between=2.0)
    assert concordance(score, happened, unit).auc.low > 0.6
    within = concordance(score, happened, unit, stratum)
    assert within.auc.low < 0.5 < within.auc.high
    assert within.p_value > 0.05


def test_under_the_null_it_is_significant_as_seldom_as_its_level_says():
    p = [concordance(*cases(200, seed=seed), n_resamples=200).p_value for seed in range(200)]
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.05)
    assert 0.4 < np.mean(p) < 0.6


def test_the_interval_over_units_is_as_wide_as_drawing_the_units_by_hand_makes_it():
    score, happened, unit, stratum = cases(300, within=1.0)
    found = concordance(score, happened, unit, stratum)
    rng = np.random.default_rng(5)
    by_hand = []
    for _ in range(400):
        rows = np.concatenate([np.flatnonzero(unit == u) for u in rng.integers(20, size=20)])
        by_hand.append(concordance(score[rows], happened[rows], unit[rows], stratum[rows], n_resamples=1).auc.value)
    low, high = np.quantile(by_hand, (0.025, 0.975))
    assert found.auc.low == pytest.approx(low, abs=0.02)
    assert found.auc.high == pytest.approx(high, abs=0.02)


def test_what_another_score_explains_can_be_taken_out():
    rng = np.random.default_rng(0)
    n = 800
    effect, unit, stratum = rng.standard_normal(n), rng.integers(20, size=n), rng.integers(8, size=n)
    happened = rng.random(n) < 1 / (1 + np.exp(-1.5 * effect))
    borrowed = effect + 0.5 * rng.standard_normal(n)  # tells the outcome through the effect only
    assert concordance(borrowed, happened, unit, stratum).auc.low > 0.6
    left = concordance(borrowed, happened, unit, stratum, effect)
    assert left.auc.low < 0.5 < left.auc.high
    own = rng.standard_normal(n)
    happened = rng.random(n) < 1 / (1 + np.exp(-1.5 * own))
    assert concordance(own, happened, unit, stratum, effect).auc.low > 0.6


def test_where_nothing_can_be_compared_nothing_is_said():
    found = concordance([1.0, 2.0, np.nan], [True, True, False], ["a", "b", "c"])
    assert np.isnan(found.auc.value)
    assert np.isnan(found.p_value)
    assert found.pairs == 0
    assert np.isnan(concordance([], [], [], []).auc.value)
    one = concordance([1.0, 2.0], [False, True], ["a", "a"])
    assert one.auc.value == 1.0
    assert np.isnan(one.auc.low)


def test_ranks_are_within_groups_and_ties_share_theirs():
    ranks = ranks_within(np.array([5.0, 1.0, 5.0, 7.0, 3.0]), np.array([0, 0, 0, 1, 1]))
    assert ranks.tolist() == pytest.approx([0.5 / 3, -1 / 3, 0.5 / 3, 0.25, -0.25])
