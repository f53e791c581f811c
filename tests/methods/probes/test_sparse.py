"""k-sparse probes find the planted features, and one-against-the-rest has the chance that it should."""

import numpy as np
import pytest
from sklearn.feature_selection import f_classif

from otoscope.methods.probes import fisher_score, fit_sparse, mean_difference, one_vs_rest
from tests.methods.probes.synthetic import balanced, noise, speakers

GROUPS = speakers(10, 40)
Y = balanced(len(GROUPS))


def planted(strength: float = 3.0) -> np.ndarray:
    """Feature 7 carries the label, feature 2 weakly; feature 5 is loud and says nothing."""
    x = noise(len(Y), 12)
    sign = np.where(Y == "b", 1.0, -1.0)
    x[:, 7] += strength * sign
    x[:, 2] += 0.5 * sign
    x[:, 5] *= 3
    return x


@pytest.mark.parametrize("ranking", ["mean_difference", "fisher"])
def test_planted_feature_is_ranked_first(ranking):
    probe = fit_sparse(planted(), Y, GROUPS, k=2, ranking=ranking)
    assert probe.features.tolist() == [7, 2]
    assert probe.score(planted(), Y) > 0.95


def test_ranking_looks_at_training_rows_only():
    x = noise(len(Y), 500)
    half = len(Y) // 2
    probe = fit_sparse(x[:half], Y[:half], GROUPS[:half], k=5, ranking="mean_difference")
    assert probe.score(x[half:], Y[half:]) < 0.6


def test_fisher_score_orders_as_the_f_test():
    x = planted()
    assert np.argsort(-fisher_score(x, Y)).tolist() == np.argsort(-f_classif(x, Y)[0]).tolist()


def test_mean_difference_is_what_its_name_says():
    x = np.array([[1.0, 0.0], [3.0, 0.0], [10.0, 5.0], [20.0, 5.0]])
    y = np.array(["a", "a", "b", "b"])
    assert mean_difference(x, y, "b").tolist() == [13.0, 5.0]


def test_feature_without_variance_inside_classes_separates_best():
    x = np.array([[0.0, 1.0], [0.0, 2.0], [1.0, 2.0], [1.0, 1.0]])
    assert fisher_score(x, np.array([0, 0, 1, 1])).argmax() == 0


def test_each_of_many_labels_is_told_from_the_others_by_its_own_feature():
    y = np.resize(["x", "y", "z"], len(GROUPS))
    x = noise(len(y), 20)
    for i, label in enumerate("xyz"):
        x[:, i] += 4.0 * (y == label)
    half = len(y) // 2
    args = (x[:half], y[:half], GROUPS[:half], x[half:], y[half:])
    found = one_vs_rest(*args, k=1)
    assert set(found) == {"x", "y", "z"}
    assert min(found.values()) > 0.9
    nothing = one_vs_rest(noise(half, 20, 3), *args[1:3], noise(len(y) - half, 20, 4), args[4], k=1)
    assert 0.35 < np.mean(list(nothing.values())) < 0.65


def test_mean_difference_is_for_two_labels():
    with pytest.raises(ValueError, match="two labels"):
        fit_sparse(noise(30, 3), np.resize(["x", "y", "z"], 30), ranking="mean_difference")
