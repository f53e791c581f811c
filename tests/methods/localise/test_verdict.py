"""The verdict "no fault": the promised level on new healthy cases, silence on what says nothing, and faults that are seen."""

from __future__ import annotations

import numpy as np
import pytest

from otoscope.errors import TaskError
from otoscope.methods.localise.verdict import calibrated, calibrated_by_item, top_score


@pytest.mark.parametrize(
    ("n", "alpha", "level"), [(100, 0.02, 99 / 101), (99, 0.1, 0.9), (19, 0.05, 0.95), (10, 0.02, 10 / 11)]
)
def test_new_healthy_cases_are_called_healthy_as_often_as_promised(n, alpha, level):
    rng = np.random.default_rng(0)
    kept = []
    for _ in range(5000 // n):
        cases = np.exp(rng.standard_normal((n + 20, 4)) * 2)  # heavy tails: the level does not depend on the shape
        verdict = calibrated(list(cases[:n]), alpha)
        assert verdict.level == pytest.approx(level)
        kept += [not verdict.says_fault(case) for case in cases[n:]]
    # without ties the level is exact on average
    assert np.mean(kept) == pytest.approx(level, abs=0.03)


def test_the_share_at_one_calibration_is_spread_as_the_beta_says():
    rng = np.random.default_rng(1)
    n, k = 100, 99
    shares = []
    for _ in range(200):
        threshold = calibrated(list(rng.random((n, 1))), 0.02).threshold
        shares.append(threshold)  # of uniform scores, the share below the threshold is the threshold itself
    assert np.mean(shares) == pytest.approx(k / (n + 1), abs=4e-3)
    assert np.std(shares) == pytest.approx(np.sqrt(k * (n + 1 - k) / ((n + 1) ** 2 * (n + 2))), rel=0.35)


def test_the_threshold_is_the_k_th_smallest_of_the_highest_scores():
    healthy = [np.array([0.0, float(i)]) for i in range(1, 21)]
    assert calibrated(healthy, 0.1).threshold == 19  # ceil(21 * .9) = 19
    assert calibrated(healthy, 0.5).threshold == 11
    assert calibrated(healthy, 0.01).threshold == 20
    assert calibrated(healthy, 0.01).n_calibration == 20


def test_a_fault_that_stands_out_is_seen():
    verdict = calibrated([np.random.default_rng(i).random(10) for i in range(60)])
    scores = np.random.default_rng(99).random(10)
    assert not verdict.says_fault(np.minimum(scores, 0.9))
    scores[4] = 1.5
    assert verdict.says_fault(scores)
    assert verdict.says_fault(np.stack([scores, scores]))
    # items are averaged first
    assert not verdict.says_fault(np.stack([scores, np.zeros(10), np.zeros(10)]))


def test_scores_that_say_nothing_are_no_fault():
    for healthy in (np.full(4, -2.0), np.full(4, np.nan)):
        verdict = calibrated([healthy] * 50)
        assert not verdict.says_fault(np.zeros(4))
        assert not verdict.says_fault(np.full(4, np.nan))
        assert verdict.says_fault(np.array([np.nan, 0.5, 0.0, np.nan]))
    assert top_score(np.full((2, 3), np.nan)) == -np.inf


def items(rng: np.random.Generator, n: int) -> np.ndarray:
    """Scores of healthy items of which a few are large all over, as real items are."""
    return rng.exponential(size=(n, 6)) * np.exp(1.5 * rng.standard_normal((n, 1)))


def sets(rows: np.ndarray, rng: np.random.Generator, n: int = 40, size: int = 3) -> list[np.ndarray]:
    return [rows[rng.choice(len(rows), size, replace=False)].mean(0) for _ in range(n)]


def test_sets_that_share_items_lose_the_level_and_items_keep_it():
    rng = np.random.default_rng(2)
    by_sets, by_items = [], []
    for _ in range(80):
        old, new = items(rng, 8), items(rng, 8)
        of_sets, of_items = calibrated(sets(old, rng)), calibrated_by_item(old, 3)
        judged = sets(new, rng)
        by_sets += [not of_sets.says_fault(one) for one in judged]
        by_items += [not of_items.says_fault(one) for one in judged]
    assert np.mean(by_sets) < of_sets.level - 0.1  # 40 sets of 8 items are no 40 cases
    assert of_items.level == pytest.approx(8 / 11)
    assert np.mean(by_items) > of_items.level


@pytest.mark.parametrize(("n", "m", "alpha"), [(57, 3, 0.05), (80, 2, 0.1), (30, 1, 0.1)])
def test_the_level_by_item_is_exact_for_the_largest_of_the_items(n, m, alpha):
    """Each case's items are as large as its largest, so that the bound is reached."""
    rng = np.random.default_rng(3)
    kept = []
    for _ in range(500):
        verdict = calibrated_by_item(rng.random((n, 1)), m, alpha)
        kept.append(not verdict.says_fault(np.full((m, 1), rng.random(m).max())))
    assert verdict.level >= 1 - alpha - 1e-9
    assert np.mean(kept) == pytest.approx(verdict.level, abs=0.035)


def test_by_item_with_cases_of_one_item_is_the_plain_verdict():
    rows = np.random.default_rng(4).random((60, 5))
    assert calibrated_by_item(rows, 1, 0.05) == calibrated(list(rows), 0.05)
    with pytest.raises(TaskError, match="at least 1"):
        calibrated_by_item(rows, 0)


def test_what_cannot_be_calibrated_is_refused():
    with pytest.raises(TaskError, match="at least one"):
        calibrated([])
    with pytest.raises(TaskError, match=r"such as 0\.02"):
        calibrated([np.zeros(3)], 0)
