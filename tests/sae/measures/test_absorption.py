"""Absorption planted at a known rate, absent where features are honest, and undecided where the class cannot be read."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from otoscope.sae.measures.absorption import absorption, f1, main_features

N_PHONES, D = 8, 32


@pytest.fixture
def world():
    """Phones 0-3 are of the class; feature 0 is the class, features 1-8 are the phones."""
    rng = np.random.default_rng(0)
    phone = np.repeat(rng.integers(0, N_PHONES, 700), 4)
    utterance = np.repeat(np.arange(20), len(phone) // 20)
    rows = np.linalg.qr(rng.standard_normal((D, D)))[0][: N_PHONES + 1]
    codes = np.concatenate([(phone < 4)[:, None], phone[:, None] == np.arange(N_PHONES)], axis=1).astype(float)
    x = codes @ rows + 0.02 * rng.standard_normal((len(phone), D))
    return x, codes, rows, utterance, phone


def measure(world, codes, rows):
    x, _, _, utterance, phone = world
    known = np.ones(len(phone), bool)
    return absorption(x, sparse.csr_array(codes), rows, utterance, {"class": phone < 4}, known, n_resamples=50)


def test_honest_features_absorb_nothing(world) -> None:
    _, codes, rows, _, _ = world
    found = measure(world, codes, rows)
    assert found.classes == ("class",)
    assert found.absorbed.value == 0
    assert found.missed.value == 0


def test_a_planted_absorption_is_found_at_its_rate(world) -> None:
    """The feature of phone 0 takes the direction of its class in: one phone of four."""
    _, codes, rows, _, phone = world
    codes, rows = codes.copy(), rows.copy()
    codes[phone == 0, 0] = 0
    rows[1] += rows[0]
    found = measure(world, codes, rows)
    share = (phone == 0).sum() / (phone < 4).sum()
    assert found.absorbed.value == pytest.approx(share, abs=0.05)
    assert found.absorbed.low <= share <= found.absorbed.high


def test_a_feature_that_is_silent_without_another_speaking_for_it_is_missed_not_absorbed(world) -> None:
    _, codes, rows, _, phone = world
    codes = codes.copy()
    codes[phone == 0] = 0
    codes[phone == 0, 8] = 1  # the feature of a phone outside the class
    found = measure(world, codes, rows)
    assert found.missed.value > 0.15
    assert found.absorbed.value == 0


def test_a_class_that_cannot_be_read_is_not_judged(world) -> None:
    x, codes, rows, utterance, _ = world
    drawn = np.random.default_rng(1).random(len(x)) < 0.3
    found = absorption(x, sparse.csr_array(codes), rows, utterance, {"none": drawn}, np.ones(len(x), bool))
    assert found.classes == ()
    assert np.isnan(found.absorbed.value)


def test_main_features_stop_where_another_adds_nothing() -> None:
    rng = np.random.default_rng(0)
    y = rng.random(2000) < 0.5
    noise = (rng.random((2000, 10)) < 0.1).astype(float)
    one = np.concatenate([noise, y[:, None]], axis=1)
    assert main_features(one, y, np.arange(2000) // 50).tolist() == [10]
    first = rng.random(2000) < 0.5
    two = np.concatenate([noise, (y & first)[:, None], (y & ~first)[:, None]], axis=1)
    assert sorted(main_features(two, y, np.arange(2000) // 50)) == [10, 11]


def test_f1_against_scikit_learn() -> None:
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(0)
    a, b = rng.random(100) < 0.4, rng.random(100) < 0.5
    assert f1(a, b) == pytest.approx(f1_score(a, b))
