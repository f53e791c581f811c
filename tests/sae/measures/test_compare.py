"""Differences between kinds: a planted one is found, none is not, and recordings are paired."""

from __future__ import annotations

import numpy as np
import pytest

from otoscope.errors import TaskError
from otoscope.sae.measures.compare import difference, pooled
from otoscope.stats import bootstrap_sums


def share(total: np.ndarray) -> float:
    return float(total[0] / total[1])


def trainings(rate: float, seed: int, hard: np.ndarray) -> list[np.ndarray]:
    """Three trainings: hits and questions of each of 40 recordings, some of which are hard for all."""
    rng = np.random.default_rng(seed)
    n = np.full(40, 50)
    return [np.stack([rng.binomial(n, np.clip(rate - hard, 0, 1)), n], axis=1).astype(float) for _ in range(3)]


HARD = np.random.default_rng(1).uniform(0, 0.5, 40)


def test_a_planted_difference_is_found_and_none_is_not() -> None:
    a, b, c = (trainings(rate, seed, HARD) for rate, seed in ((0.85, 2), (0.80, 3), (0.80, 4)))
    found = difference(a, b, share)
    assert found.low > 0
    assert found.value == pytest.approx(0.05, abs=0.02)
    nothing = difference(b, c, share)
    assert nothing.low < 0 < nothing.high


def test_pairing_recordings_gives_a_narrower_interval_than_each_alone() -> None:
    a, b = trainings(0.85, 2, HARD), trainings(0.80, 3, HARD)
    both, alone = difference(a, b, share), pooled(a, share)
    assert both.high - both.low < alone.high - alone.low


def test_one_training_is_the_plain_bootstrap_over_recordings() -> None:
    (one,) = trainings(0.8, 5, HARD)[:1]
    plain = bootstrap_sums(one, share, 1000, seed=0)
    found = pooled([one], share, n_resamples=1000, seed=0)
    assert found[:3] == pytest.approx(plain[:3])


def test_other_recordings_are_refused() -> None:
    with pytest.raises(TaskError, match="same recordings"):
        difference([np.ones((3, 2))], [np.ones((4, 2))], share)
