"""A unit that was made to follow a label is found with it; labels that say nothing are found with no unit."""

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from otoscope.methods.unit_selectivity import moved, selective, standard_labels

RECORDING = np.repeat(np.arange(12), 40)
N = len(RECORDING)


def speech_like(seed: int, n_units: int = 60) -> np.ndarray:
    """Units that resemble their neighbours in time, as activations of overlapping frames do."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((N, n_units))
    return np.stack([np.convolve(column, np.ones(6) / 6, mode="same") for column in x.T], axis=1)


def stretches(seed: int) -> np.ndarray:
    """A label that holds for six frames at a time."""
    rng = np.random.default_rng(seed)
    return np.repeat(rng.random(N // 6 + 1) < 0.3, 6)[:N].astype(float)


def test_planted_unit_is_found_with_its_label_and_no_other():
    labels = {"a": stretches(1), "b": stretches(2)}
    x = speech_like(0)
    x[:, 17] += 0.8 * labels["b"]
    found = selective(x, labels, RECORDING, "shift", draws=60)
    assert np.argwhere(found.p <= 0.05).tolist() == [[17, 1]]
    assert found.auc[17, 1] > 0.75
    assert abs(found.r[17, 1]) > 3 * found.control[17, 1]


def test_unit_that_falls_with_its_label_is_found_as_well():
    labels = {"a": stretches(1)}
    x = speech_like(0)
    x[:, 5] -= 0.8 * labels["a"]
    found = selective(x, labels, RECORDING, "shift", draws=60)
    assert np.flatnonzero(found.p[:, 0] <= 0.05).tolist() == [5]
    assert found.auc[5, 0] < 0.25


def test_chance_lets_any_unit_pass_about_as_often_as_it_should():
    passed = [
        (selective(speech_like(s), {"a": stretches(100 + s)}, RECORDING, "shift", draws=40).p <= 0.05).any()
        for s in range(24)
    ]
    assert np.mean(passed) <= 0.2  # 5% are expected, and more than 4 of 24 have a chance of 1%


def test_labels_of_whole_recordings_are_compared_by_recordings():
    """Units that differ from recording to recording follow a label of recordings by chance: rows are not the units of evidence."""
    rng = np.random.default_rng(3)
    x = speech_like(0) + 2 * rng.standard_normal((12, 60))[RECORDING]
    labels = {"a": (np.arange(12) < 6)[RECORDING].astype(float)}
    naive = np.array([roc_auc_score(labels["a"], column) for column in x.T])
    assert (np.abs(naive - 0.5) > 0.25).any()
    assert not (selective(x, labels, RECORDING, "exchange", draws=60).p <= 0.05).any()
    x[:, 9] += 30 * labels["a"]
    assert np.flatnonzero(selective(x, labels, RECORDING, "exchange", draws=60).auc[:, 0] == 1.0).tolist() == [9]


def test_auc_and_correlation_agree_with_scikit_learn_and_scipy():
    value = np.random.default_rng(1).uniform(80, 300, N)
    labels = {"a": stretches(1), "pitch": value}
    for x in (
        speech_like(0, 8),
        np.round(speech_like(0, 8), 1),
        np.maximum(speech_like(0, 8), 0),
    ):  # more and more ties
        found = selective(x, labels, RECORDING, "shift", draws=3)
        assert np.allclose(found.auc[:, 0], [roc_auc_score(stretches(1), column) for column in x.T], atol=1e-5)
        assert np.isnan(found.auc[:, 1]).all()
    untied = selective(speech_like(0, 8), labels, RECORDING, "shift", draws=3)
    expected = [spearmanr(value, column)[0] for column in speech_like(0, 8).T]
    assert np.allclose(untied.r[:, 1], expected, atol=1e-5)


def test_units_that_are_nearly_always_zero_do_not_hide_the_others():
    """Two rows above zero are enough for a high tie-corrected correlation with a rare label, in every draw of the null."""
    rng = np.random.default_rng(5)
    labels = {str(k): (rng.random(N) < 0.05).astype(float) for k in range(30)}
    plain = rng.standard_normal((N, 60))
    plain[:, 17] += 4 * labels["4"]
    sparse = np.zeros((N, 300))
    for column in sparse.T:
        column[rng.choice(N, 2, replace=False)] = 1.0
    found = selective(np.concatenate([plain, sparse], axis=1), labels, RECORDING, "shift", draws=60)
    alone = selective(plain, labels, RECORDING, "shift", draws=60)
    corrected = [abs(spearmanr(label, column)[0]) for label in labels.values() for column in sparse.T]
    assert max(corrected) > 1.2 * alone.threshold
    assert found.threshold == pytest.approx(alone.threshold, rel=0.02)
    assert np.argwhere(found.p <= 0.05).tolist() == [[17, 4]]


def test_null_keeps_every_recordings_own_labels():
    labels = standard_labels({"a": stretches(1)})
    shifted = moved(labels, RECORDING, "shift", np.random.default_rng(0))
    for k in range(12):
        rows = k == RECORDING
        assert np.allclose(np.sort(shifted[rows], axis=0), np.sort(labels[rows], axis=0))
    # neighbours stay neighbours, but for the seam of each circle
    assert (np.diff(shifted[:, 0]) != 0).sum() <= (np.diff(labels[:, 0]) != 0).sum() + 24


def test_constant_units_respond_to_nothing():
    x = speech_like(0)
    x[:, 3] = 1.0
    found = selective(x, {"a": stretches(1)}, RECORDING, "shift", draws=5)
    assert np.isnan(found.r[3]).all()
    assert np.isnan(found.p[3]).all()


@pytest.mark.parametrize("null", ["shift", "exchange"])
def test_same_seed_gives_the_same(null):
    labels = {"a": (np.arange(12) % 2)[RECORDING].astype(float)}
    one, two = (selective(speech_like(0), labels, RECORDING, null, draws=5, seed=4) for _ in range(2))
    assert np.array_equal(one.p, two.p)
