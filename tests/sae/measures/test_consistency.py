"""TCS of features whose ratio is known: constant in a token, without order, and anywhere between."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from otoscope.sae.measures.consistency import ratios, tcs, tokens

N_TOKENS, LENGTH = 600, 5
PHONE = np.repeat(np.random.default_rng(0).permutation(np.arange(N_TOKENS) % 7), LENGTH)
UTTERANCE = np.repeat(np.arange(30), N_TOKENS * LENGTH // 30)


def test_tokens_end_where_phone_or_recording_change() -> None:
    phone, utterance = np.array([0, 0, 1, -1, 1, 1, 1, 0]), np.array([0, 0, 0, 0, 0, 0, 1, 1])
    assert tokens(utterance, phone).tolist() == [0, 0, 1, -1, 2, 2, 3, 4]


def test_a_feature_that_is_constant_in_every_token_has_0() -> None:
    rng = np.random.default_rng(1)
    number = tokens(UTTERANCE, PHONE)
    constant = rng.random(number.max() + 1)[number]
    codes = sparse.csr_array(np.stack([constant, constant**2], axis=1))
    assert tcs(codes, UTTERANCE, PHONE, n_resamples=10).value == pytest.approx(0, abs=1e-9)
    assert tcs(codes, UTTERANCE, PHONE, shuffled=True, n_resamples=10).value > 1


def test_a_feature_without_order_has_the_closed_form_and_shuffling_changes_nothing() -> None:
    codes = sparse.csr_array(np.random.default_rng(2).random((len(PHONE), 50)))
    number = tokens(UTTERANCE, PHONE)
    n, s = len(number), number.max() + 1
    plain, shuffled = (tcs(codes, UTTERANCE, PHONE, shuffled=x, n_resamples=50) for x in (False, True))
    assert plain.value == pytest.approx((n - s) / (s - 1), rel=0.05)
    assert shuffled.value == pytest.approx(plain.value, rel=0.05)


def test_ratio_equals_sums_of_squares_by_hand() -> None:
    """Against the one-way analysis of variance of scipy, whose F is ``(across / (S - 1)) / (within / (N - S))``."""
    from scipy.stats import f_oneway

    rng = np.random.default_rng(3)
    number = tokens(UTTERANCE, PHONE)
    value = rng.random(number.max() + 1)[number] + rng.random(len(number))
    found = ratios(sparse.csr_array(value[:, None]), number)[0]
    n, s = len(number), number.max() + 1
    f = f_oneway(*(value[number == i] for i in range(s))).statistic
    assert found == pytest.approx((n - s) / (s - 1) / f, rel=1e-6)


def test_rare_features_and_unknown_phones_say_nothing() -> None:
    codes = np.zeros((len(PHONE), 1))
    codes[:5] = 1
    assert np.isnan(tcs(sparse.csr_array(codes), UTTERANCE, PHONE).value)
    assert np.isnan(tcs(sparse.csr_array(codes), UTTERANCE, np.full(len(PHONE), -1)).value)
