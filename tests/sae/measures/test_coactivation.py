"""Spurious co-activation where there is none, where there is nothing else, and at chance."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from otoscope.sae.measures.coactivation import coactivation, inner

RNG = np.random.default_rng(0)
PHONE = np.repeat(RNG.integers(0, 6, 500), 6)
UTTERANCE = np.repeat(np.arange(20), len(PHONE) // 20)
CLASS = np.arange(6) // 3
UNRELATED = CLASS[:, None] != CLASS[None]


def test_frames_at_a_boundary_are_left_out() -> None:
    phone, utterance = np.array([0, 0, 0, 1, 1, 1, 1]), np.array([0, 0, 0, 0, 0, 0, 1])
    assert inner(utterance, phone).tolist() == [False, True, False, False, True, False, False]


def test_two_features_per_phone_are_never_spurious() -> None:
    codes = np.tile((PHONE[:, None] == np.arange(6)).astype(float), 2)
    found = coactivation(sparse.csr_array(codes), UTTERANCE, PHONE, UNRELATED, n_resamples=20)
    assert found.unrelated.value == 0
    assert found.expected.value == pytest.approx(0.5, abs=0.05)


def test_features_that_now_and_then_fire_anywhere_are_spurious_in_part() -> None:
    own = PHONE[:, None] == np.arange(6)
    everywhere = RNG.random(own.shape) < 0.1
    found = coactivation(
        sparse.csr_array((own | everywhere).astype(float)), UTTERANCE, PHONE, UNRELATED, n_resamples=20
    )
    # by hand: the feature of the phone with one of five others, three of them unrelated; or two of the five
    own_pairs, other_pairs = 0.1 * np.array([2, 3]), 0.1**2 * np.array([1 + 3, 6])
    expected = (own_pairs[1] + other_pairs[1]) / (own_pairs.sum() + other_pairs.sum())
    assert found.unrelated.value == pytest.approx(expected, abs=0.03)
    assert found.unrelated.low < found.unrelated.value < found.unrelated.high


def test_features_that_belong_to_no_phone_are_not_counted() -> None:
    codes = sparse.csr_array((RNG.random((len(PHONE), 30)) < 0.3).astype(float))
    assert np.isnan(coactivation(codes, UTTERANCE, PHONE, UNRELATED).unrelated.value)
