"""Overlap of codes that stay, that flicker, and that have no order; averaging that brings a feature back and keeps L0."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from otoscope.sae.measures.smoothness import adjacent_overlap, smoothed

RNG = np.random.default_rng(0)
UTTERANCE = np.repeat(np.arange(10), 40)


def test_codes_that_never_change_overlap_wholly_and_flickering_ones_not() -> None:
    still = np.zeros((400, 30))
    still[np.arange(400), UTTERANCE] = 1
    assert adjacent_overlap(sparse.csr_array(still), UTTERANCE, n_resamples=20).value == 1
    flicker = np.zeros((400, 2))
    flicker[np.arange(400), np.arange(400) % 2] = 1
    assert adjacent_overlap(sparse.csr_array(flicker), UTTERANCE, n_resamples=20).value == 0


def test_codes_without_order_overlap_by_their_rate() -> None:
    codes = sparse.csr_array((RNG.random((400, 200)) < 0.15) * 1.0)
    found = adjacent_overlap(codes, UTTERANCE, n_resamples=200)
    assert found.low < 0.15 < found.high


def test_frames_of_different_recordings_are_no_neighbours() -> None:
    codes = np.zeros((4, 1))
    codes[1:3] = 1  # active at the end of one recording and at the start of the next
    assert adjacent_overlap(sparse.csr_array(codes), np.array([0, 0, 1, 1]), n_resamples=20).value == 0


def test_nothing_active_is_nan() -> None:
    assert np.isnan(adjacent_overlap(sparse.csr_array(np.zeros((4, 3))), np.zeros(4, int)).value)


def test_smoothing_agrees_with_averages_computed_one_by_one() -> None:
    codes = np.where(RNG.random((60, 20)) < 0.2, RNG.random((60, 20)), 0.0)
    utterance = np.repeat([0, 1, 2], 20)
    found = smoothed(sparse.csr_array(codes), utterance, 3, reach=1).toarray()
    for t in range(60):
        near = [s for s in (t - 1, t, t + 1) if 0 <= s < 60 and utterance[s] == utterance[t]]
        mean = codes[near].mean(0)
        kept = np.argsort(-mean)[:3]
        expected = np.zeros(20)
        expected[kept] = mean[kept]
        assert found[t] == pytest.approx(expected, abs=1e-6)


def test_smoothing_raises_the_overlap_and_keeps_as_many_features() -> None:
    codes = sparse.csr_array((RNG.random((400, 200)) < 0.05) * RNG.random((400, 200)))
    after = smoothed(codes, UTTERANCE, 8)
    assert after.nnz / 400 <= 8
    before = adjacent_overlap(codes, UTTERANCE, n_resamples=20).value
    assert adjacent_overlap(after, UTTERANCE, n_resamples=20).value > before + 0.2
