"""The verdict "no fault": the promised level on new healthy cases, silence on what says nothing, and faults that are seen."""

from __future__ import annotations

import numpy as np
import pytest

from otoscope.errors import TaskError
from otoscope.methods.localise.verdict import calibrated, top_score


@pytest.mark.parametrize(
    ("n", "alpha", "level"), [(100, 0.02, 99 / 101), (99, 0.1, 0.9), (19, 0.05, 0.95), (10, 0.02, 10 / 11)]
)
def test_new_healthy_cases_are_called_healthy_as_often_as_promised(n, alpha, level):
    rng = np.random.default_rng(0)
    kept = []
    for _ in range(12_000 // n):
        cases = np.exp(rng.standard_normal((n + 20, 4)) * 2)  # heavy tails: the level does not depend on the shape
        verdict = calibrated(list(cases[:n]), alpha)
        assert verdict.level == pytest.approx(level)
        kept += [not verdict.says_fault(case) for case in cases[n:]]
    # without ties the level is exact on average
    assert np.mean(kept) == pytest.approx(level, abs=0.02)


def test_the_share_at_one_calibration_is_spread_as_the_beta_says():
    rng = np.random.default_rng(1)
    n, k = 100, 99
    shares = []
    for _ in range(400):
        threshold = calibrated(list(rng.random((n, 1))), 0.02).threshold
        shares.append(threshold)  # of uniform scores, the share below the threshold is the threshold itself
    assert np.mean(shares) == pytest.approx(k / (n + 1), abs=4e-3)
    assert np.std(shares) == pytest.approx(np.sqrt(k * (n + 1 - k) / ((n + 1) ** 2 * (n + 2))), rel=0.25)


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


def test_what_cannot_be_calibrated_is_refused():
    with pytest.raises(TaskError, match="at least one"):
        calibrated([])
    with pytest.raises(TaskError, match=r"such as 0\.02"):
        calibrated([np.zeros(3)], 0)
