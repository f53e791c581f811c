"""Alignment of dictionaries that share all, half or none of their features, and under the null."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from otoscope.errors import TaskError
from otoscope.sae.measures.alignment import alignment, correlations, turned_round
from otoscope.sae.measures.frames import Label

UTTERANCE = np.repeat(np.arange(20), 100)
PHONE = np.random.default_rng(9).integers(0, 2, 2000)


def drawn(seed: int, n: int = 24) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.random((2000, n)) < 0.1) * rng.uniform(0.5, 1.5, (2000, n))


def csr(codes: np.ndarray) -> sparse.csr_array:
    return sparse.csr_array(codes)


def test_the_same_features_in_another_order_and_unit_are_all_found() -> None:
    a, order = drawn(0), np.random.default_rng(1).permutation(24)
    found = alignment(csr(a), csr(3 * a[:, order]), UTTERANCE, n_resamples=30)
    assert found.aligned.value == found.aligned.low == 1
    assert found.correlation == pytest.approx(1)
    assert (order[found.partners[:, 1]] == found.partners[:, 0]).all()
    assert abs(found.null) < 0.1


def test_half_is_a_half_and_none_is_none() -> None:
    a, b = drawn(0), drawn(2)
    half = np.concatenate([a[:, :12], b[:, 12:]], axis=1)
    assert alignment(csr(a), csr(half), UTTERANCE, n_resamples=30).aligned.value == 0.5
    assert alignment(csr(a), csr(b), UTTERANCE, n_resamples=30).aligned.value == 0


def test_time_apart_is_the_null() -> None:
    a = drawn(0)
    turned = a[turned_round(UTTERANCE, seed=5)]
    assert alignment(csr(a), csr(turned), UTTERANCE, n_resamples=10).aligned.value == 0
    order = turned_round(UTTERANCE)
    assert sorted(order) == list(range(2000))
    assert (UTTERANCE[order] == UTTERANCE).all()
    assert (order != np.arange(2000)).all()


def test_what_survives_is_told_by_phones() -> None:
    pure = np.where(PHONE[:, None] == 0, 1.0, 0.0) * (np.random.default_rng(3).random((2000, 8)) < 0.3)
    a = np.concatenate([pure, drawn(4, 8)], axis=1)
    b = np.concatenate([pure, drawn(5, 8)], axis=1)
    found = alignment(csr(a), csr(b), UTTERANCE, Label(PHONE, ("x", "y")), n_resamples=10)
    assert found.pure_aligned == 1
    assert found.pure_rest < 0.7


def test_correlations_are_those_of_numpy() -> None:
    a, b = drawn(6, 3), drawn(7, 4)
    expected = np.corrcoef(a.T, b.T)[:3, 3:]
    assert correlations(csr(a), csr(b)) == pytest.approx(expected)
    with pytest.raises(TaskError, match="same frames"):
        alignment(csr(a), csr(b[:5]), UTTERANCE)
