"""Counts of active features against counts by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from otoscope.sae.measures.sparsity import alive, dense, firing_rates, l0, l0_by_class


@pytest.fixture
def codes() -> sparse.csr_array:
    values = np.zeros((20, 40), np.float32)
    values[:, 0] = 1
    values[::2, 1] = 2
    values[3, 2] = 0.5
    values[:, 3] = -1  # below 0 is not active
    return sparse.csr_array(values)


UTTERANCE = np.repeat(np.arange(4), 5)


def test_l0_counts_what_is_above_0(codes) -> None:
    found = l0(codes, UTTERANCE, n_resamples=200)
    assert found.value == pytest.approx((20 + 10 + 1) / 20)
    assert found.low <= found.value <= found.high
    assert found.n == 4


def test_l0_of_classes_and_of_nothing(codes) -> None:
    classes = np.where(np.arange(20) % 2 == 0, 0, -1)
    found = l0_by_class(codes, UTTERANCE, classes, ("even", "never"), n_resamples=10)
    assert found["even"].value == 2
    assert set(found) == {"even"}
    assert np.isnan(l0(codes, UTTERANCE, np.zeros(20, bool)).value)


def test_alive_and_dense(codes) -> None:
    assert alive(codes) == pytest.approx(3 / 40)
    assert firing_rates(codes)[:4].tolist() == pytest.approx([1, 0.5, 0.05, 0])
    assert dense(codes, UTTERANCE, n_resamples=10).value == pytest.approx(2 / 40)
