"""Random guessing: the same for the same case, another for another, and at chance."""

from __future__ import annotations

import numpy as np

from otoscope.methods.localise.random_guess import random_guess
from otoscope.stats.ranking import chance_top_k, mean_score, roc_auc, top_k
from tests.methods.localise.fake_case import pairs


def test_it_is_seeded_by_the_case():
    case, again, other = (pairs() for _ in range(3))
    np.testing.assert_array_equal(random_guess(case), random_guess(again))
    other.name = "another"
    assert (random_guess(case) != random_guess(other)).all()
    again.seed = 1
    assert (random_guess(case) != random_guess(again)).all()


def test_it_is_at_chance():
    case, hits, areas = pairs(), [], []
    for i in range(1500):
        case.name = f"case {i}"
        scores = mean_score(random_guess(case))
        hits.append(top_k(scores, [3], 1))
        areas.append(roc_auc(scores, [3]))
    assert abs(np.mean(hits) - chance_top_k(10)) < 0.02
    assert abs(np.mean(areas) - 0.5) < 0.02
