"""Stability: 1 where every item says the same, chance where none does, and pooled methods asked about parts."""

from __future__ import annotations

import numpy as np
import pytest

from otoscope.errors import TaskError
from otoscope.methods.localise.random_guess import random_guess
from otoscope.methods.localise.stability import over_items, over_seeds
from tests.methods.localise.fake_case import pairs


def steady(case) -> np.ndarray:
    return np.tile(np.arange(len(case.places), dtype=float), (case.n_items, 1))


def test_what_every_item_says_is_stable():
    case = pairs(n_items=6)
    found = over_items(steady, case)
    assert (found.spearman, found.jaccard, found.n) == (pytest.approx(1), 1, 20)
    assert over_seeds(steady, case).jaccard == 1


def test_random_guesses_are_not():
    case = pairs(n_items=40, n_layers=8)
    found = over_items(random_guess, case, 200)
    assert abs(found.spearman) < 0.2
    # two random threes of 40 places: expected overlap about 3 * 3 / 40 of 6
    assert found.jaccard < 0.15
    assert abs(over_seeds(random_guess, case, range(40)).spearman) < 0.05


def test_more_noise_is_less_stable():
    case, rng = pairs(n_items=12), np.random.default_rng(0)
    signal, noise = np.arange(10.0), rng.standard_normal((12, 10))
    found = [over_items(lambda c, s=s: signal + s * noise, case).spearman for s in (0.5, 5.0, 100.0)]
    assert found[0] > 0.95
    assert found[0] > found[1] > found[2]


def test_a_method_that_pools_items_is_asked_about_halves():
    asked = []

    def pooled(case) -> np.ndarray:
        asked.append(tuple(case.items))
        return np.array([hash((case.items[0], j)) % 97 for j in range(10)], dtype=float)

    case = pairs(n_items=4)
    over_items(pooled, case, 30)
    assert asked[0] == (0, 1, 2, 3)
    assert all(len(items) == 2 for items in asked[1:])
    assert len(set(asked)) == len(asked)
    assert case.items == [0, 1, 2, 3]


def test_ties_have_no_correlation_and_one_item_no_halves():
    case = pairs(n_items=4)
    found = over_items(lambda c: np.zeros((c.n_items, 10)), case)
    assert np.isnan(found.spearman)
    assert found.jaccard < 0.5
    with pytest.raises(TaskError, match="at least 2"):
        over_items(steady, pairs(n_items=1))
    with pytest.raises(TaskError, match="at least 2"):
        over_seeds(steady, case, [0])
