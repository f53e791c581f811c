"""Purity of features that belong to a phone, of features that know none, and how lenient counting flatters them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from otoscope.sae.measures.purity import phone_of_features, phone_purity

RNG = np.random.default_rng(0)
N = 2400
PHONE = RNG.integers(0, 6, N)
UTTERANCE = np.repeat(np.arange(20), N // 20)


def test_a_feature_per_phone_is_pure() -> None:
    codes = sparse.csr_array((PHONE[:, None] == np.arange(6)).astype(float))
    found = phone_purity(codes, UTTERANCE, PHONE, 6, n_resamples=20)
    assert found.strict.value == 1
    assert found.lenient.value == 1
    own, share = phone_of_features(codes, PHONE, 6)
    assert own.tolist() == list(range(6))
    assert share.tolist() == [1] * 6


def test_half_of_the_entries_wrong_is_half_the_purity_while_lenient_counting_sees_nothing() -> None:
    right = (PHONE[:, None] == np.arange(6)).astype(float)
    wrong = np.zeros((N, 40))
    wrong[np.arange(N), RNG.integers(0, 40, N)] = 1
    found = phone_purity(sparse.csr_array(np.concatenate([right, wrong], axis=1)), UTTERANCE, PHONE, 6, n_resamples=20)
    # features that know nothing are right by chance, in one of six frames
    assert found.strict.value == pytest.approx((1 + 1 / 6) / 2, abs=0.03)
    assert found.lenient.value > 0.99


def test_features_that_know_no_phone_are_at_chance() -> None:
    codes = sparse.csr_array(RNG.random((N, 50)) < 0.1).astype(float)
    found = phone_purity(sparse.csr_array(codes), UTTERANCE, PHONE, 6, n_resamples=50)
    assert found.strict.value == pytest.approx(1 / 6, abs=0.02)


def test_no_phones_give_nan() -> None:
    codes = sparse.csr_array(np.ones((N, 2)))
    assert np.isnan(phone_purity(codes, UTTERANCE, np.full(N, -1), 6).strict.value)
