"""Stability of dictionaries that share all, half, or none of their features."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from otoscope.errors import TaskError
from otoscope.sae.measures.stability import iou, stability

RNG = np.random.default_rng(0)
UTTERANCE = np.repeat(np.arange(20), 100)


def drawn(n: int = 20) -> tuple[sparse.csr_array, np.ndarray]:
    return sparse.csr_array((RNG.random((2000, n)) < 0.1) * 1.0), RNG.standard_normal((n, 64))


def test_the_same_features_in_another_order_are_found_again() -> None:
    codes, rows = drawn()
    order = RNG.permutation(20)
    found = stability(codes, sparse.csr_array(codes[:, order]), UTTERANCE, rows, rows[order], n_resamples=20)
    assert found.firing.value == 1
    assert found.writing == 1
    assert found.mean_cosine == pytest.approx(1)


def test_half_of_them_is_a_half_and_none_is_none() -> None:
    (a, rows_a), (b, rows_b) = drawn(), drawn()
    half = sparse.csr_array(sparse.hstack([a[:, :10], b[:, 10:]]))
    rows_half = np.concatenate([rows_a[:10], rows_b[10:]])
    found = stability(a, half, UTTERANCE, rows_a, rows_half, n_resamples=20)
    assert found.firing.value == 0.5
    assert found.writing == 0.5
    nothing = stability(a, b, UTTERANCE, rows_a, rows_b, n_resamples=20)
    assert nothing.firing.value == 0
    assert nothing.writing == 0


def test_one_feature_cannot_serve_many() -> None:
    a, rows = drawn(1)
    copies, many = sparse.csr_array(np.tile(a.toarray(), 4)), np.tile(rows, (4, 1))
    found = stability(copies, a, UTTERANCE, many, rows, n_resamples=20)
    assert found.coverage == 1
    assert found.firing.value == 0.25
    assert found.writing == 0.25


def test_iou_by_hand_and_different_frames() -> None:
    a, b = sparse.csr_array(np.array([[1.0], [1], [0], [0]])), sparse.csr_array(np.array([[1.0], [0], [2], [0]]))
    assert iou(a, b).tolist() == [[pytest.approx(1 / 3)]]
    with pytest.raises(TaskError, match="same frames"):
        stability(a, sparse.csr_array(np.ones((3, 1))), np.zeros(4, int), np.ones((1, 2)), np.ones((1, 2)))
