"""Linear and MLP probes find what was planted, agree with scikit-learn, and say no more than is there."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from otoscope.errors import TaskError
from otoscope.methods.probes import disjoint_folds, fit, fit_mlp, held_out
from tests.methods.probes.synthetic import balanced, linear, noise, speakers, xor

GROUPS = speakers(12, 20)
Y = balanced(len(GROUPS))


def test_label_is_found_in_the_layers_that_hold_it_and_nowhere_else():
    layers = [noise(240, 24, 1), linear(Y, 24, seed=2), linear(Y, 24, seed=3), noise(240, 24, 4)]
    found = [held_out(x, Y, GROUPS, GROUPS, seeds=(0, 1)).accuracy() for x in layers]
    assert all(found[k].low > 0.8 for k in (1, 2))
    # held-out accuracy on noise lies a little below chance: what a fold has more of, its training part has less of
    assert all(found[k].low < 0.5 and found[k].value < 0.56 for k in (0, 3))


def test_validation_on_training_speakers_picks_the_layer_that_holds_the_label():
    planted, empty = (held_out(x, Y, GROUPS, GROUPS, seeds=(0,)) for x in (linear(Y, 24), noise(240, 24)))
    assert planted.validation > empty.validation + 0.2


def test_label_that_is_there_only_non_linearly_is_read_by_an_mlp_alone():
    x = xor(Y, 8)
    flat = held_out(x, Y, GROUPS, GROUPS, seeds=(0,)).accuracy()
    deep = held_out(x, Y, GROUPS, GROUPS, seeds=(0,), folds=3, fitting=fit_mlp).accuracy()
    assert flat.value < 0.65
    assert deep.low > 0.9


def test_mlp_reads_nothing_from_noise():
    found = held_out(noise(240, 8), Y, GROUPS, GROUPS, seeds=(0,), folds=3, fitting=fit_mlp).accuracy()
    assert found.low < 0.5
    assert found.value < 0.56


@pytest.mark.parametrize("labels", [2, 4])
def test_fit_agrees_with_scikit_learn_on_standardised_features(labels: int):
    rng = np.random.default_rng(0)
    y = rng.integers(labels, size=300)
    x = rng.standard_normal((300, 6)) * [1, 2, 3, 4, 5, 100] + y[:, None] + 7
    probe = fit(x, y, penalties=[0.01])
    mean, spread = x.mean(0), x.std(0) * np.sqrt(6)
    rival = LogisticRegression(C=1 / (0.01 * len(x)), max_iter=5000, tol=1e-8).fit((x - mean) / spread, y)
    assert np.abs(np.exp(probe.log_probs(x)) - rival.predict_proba((x - mean) / spread)).max() < 5e-3
    assert probe.score(x, y) == pytest.approx(rival.score((x - mean) / spread, y), abs=0.01)


def test_penalty_is_strong_where_features_are_mostly_noise():
    x = linear(balanced(60), 300, strength=1.0)
    groups = speakers(6, 10)
    assert fit(x, balanced(60), groups).penalty > fit(linear(Y, 4, strength=6.0), Y, GROUPS).penalty


def test_weights_point_along_the_planted_direction():
    y = balanced(600)
    x = noise(600, 5)
    x[:, 3] += np.where(y == "b", 2.0, -2.0)
    weights = fit(x, y).weights
    assert weights.shape == (1, 5)
    assert weights[0, 3] > 5 * np.abs(np.delete(weights[0], 3)).max()


def test_no_speaker_is_on_both_sides_and_every_row_is_tested_once():
    seen = np.zeros(len(Y), int)
    for train, test in disjoint_folds(Y, GROUPS, 5, seed=3):
        assert not set(GROUPS[train]) & set(GROUPS[test])
        seen[test] += 1
    assert (seen == 1).all()


def test_sharing_speakers_inflates_accuracy_where_the_voice_tells_the_label():
    """Each speaker has one label and a voice, and nothing but the voice is in the features."""
    groups = speakers(16, 12)
    of_speaker = dict(zip(np.unique(groups), np.resize(["a", "b"], 16)))
    y = np.array([of_speaker[g] for g in groups])
    voice = noise(16, 30, seed=5)[np.unique(groups, return_inverse=True)[1]]
    x = voice + 0.3 * noise(len(y), 30, seed=6)
    shared = held_out(x, y, None, groups, seeds=(0, 1)).accuracy()
    disjoint = held_out(x, y, groups, groups, seeds=(0, 1)).accuracy()
    assert shared.value > 0.95
    assert disjoint.value < 0.7
    assert disjoint.low < 0.5


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (noise(10, 2), np.array(["a"] * 10), "at least two"),
        (noise(9, 2), balanced(10), "label per row"),
        (np.full((10, 2), np.nan), balanced(10), "NaN"),
    ],
)
def test_what_cannot_be_probed_is_refused(x: np.ndarray, y: np.ndarray, said: str):
    with pytest.raises(TaskError, match=said):
        fit(x, y)


def test_one_speaker_cannot_be_held_out():
    with pytest.raises(TaskError, match="at least two speakers"):
        disjoint_folds(balanced(10), np.array(["s"] * 10))
