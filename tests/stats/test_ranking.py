"""Ranking measures: closed forms, ties by enumeration, agreement with scikit-learn, and chance."""

from itertools import permutations

import numpy as np
import pytest

from otoscope.stats.ranking import (
    CHANCE_ROC_AUC,
    chance_mean_rank,
    chance_top_k,
    mean_rank,
    mean_score,
    mid_ranks,
    roc_auc,
    top_k,
)


def by_all_orders(scores, truth, k):
    """Top-k hit, best order by best order: every permutation, sorted stably, is one random break of the ties."""
    values = np.where(np.isnan(scores), -np.inf, scores)
    hits = []
    for order in permutations(range(len(values))):
        ranked = sorted(order, key=lambda i: -values[i])
        hits.append(bool(set(ranked[:k]) & set(truth)))
    return np.mean(hits)


@pytest.mark.parametrize("k", [1, 2, 3, 6])
@pytest.mark.parametrize("truth", [[0], [3], [1, 4], [2, 3, 5]])
def test_top_k_is_the_mean_over_all_breaks_of_ties(truth, k):
    for scores in ([1, 1, 1, 1, 1, 1], [3, 1, 1, 2, 1, 1], [0, 2, 2, np.nan, 2, np.nan], [1, 2, 3, 4, 5, 6]):
        assert top_k(scores, truth, k) == pytest.approx(by_all_orders(np.array(scores, float), truth, k))


def test_ranks_share_ties_and_put_nan_last():
    np.testing.assert_allclose(mid_ranks([5, np.nan, 7, 5, np.nan]), [2.5, 4.5, 1, 2.5, 4.5])
    assert mean_rank([5, np.nan, 7, 5, np.nan], [2]) == 1
    assert mean_rank([5, np.nan, 7, 5, np.nan], [0, 1]) == 3.5
    assert mean_rank([-np.inf, np.nan, 0.0], [1]) == 2.5  # nothing is below what a method cannot judge


def test_roc_auc_agrees_with_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    for n_true in (1, 2, 5):
        for levels in (3, 1000):  # many ties, and hardly any
            scores, truth = rng.integers(0, levels, 30).astype(float), rng.choice(30, n_true, replace=False)
            labels = np.isin(np.arange(30), truth)
            assert roc_auc(scores, list(truth)) == pytest.approx(metrics.roc_auc_score(labels, scores))
    assert roc_auc([3, 1, 1], [0]) == 1
    assert roc_auc([3, 1, np.nan], [2]) == 0
    assert np.isnan(roc_auc([1, 2], [0, 1]))


def test_scores_that_say_nothing_are_at_chance():
    for scores in (np.zeros(7), np.full(7, np.nan)):
        for k in (1, 3):
            assert top_k(scores, [2, 5], k) == pytest.approx(chance_top_k(7, 2, k))
        assert mean_rank(scores, [2, 5]) == chance_mean_rank(7)
        assert roc_auc(scores, [2, 5]) == CHANCE_ROC_AUC


def test_random_scores_are_at_chance_on_average():
    rng = np.random.default_rng(1)
    draws = [rng.random(9) for _ in range(8000)]
    assert np.mean([top_k(s, [1, 6], 3) for s in draws]) == pytest.approx(chance_top_k(9, 2, 3), abs=0.02)
    assert np.mean([mean_rank(s, [4]) for s in draws]) == pytest.approx(chance_mean_rank(9), abs=0.1)
    assert np.mean([roc_auc(s, [4]) for s in draws]) == pytest.approx(CHANCE_ROC_AUC, abs=0.02)


def test_a_truth_that_is_no_place_is_refused():
    for truth in ([], [3], [-1]):
        with pytest.raises(ValueError, match="one per place"):
            top_k([1.0, 2.0, 3.0], truth)


def test_the_mean_is_over_the_items_that_say_something():
    rows = [[1.0, np.nan, np.nan], [3.0, 4.0, np.nan]]
    np.testing.assert_array_equal(mean_score(rows), [2, 4, np.nan])
    np.testing.assert_array_equal(mean_score(rows[1]), rows[1])
