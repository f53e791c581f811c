"""Reconstruction against scikit-learn's R^2 and closed forms, with the offset that other libraries trip over."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import r2_score

from otoscope.sae.measures.reconstruction import cosine, fvu, norm_ratio


@pytest.fixture
def made() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((600, 8)) * np.arange(1, 9) + 50
    return x, x + 0.5 * rng.standard_normal(x.shape), np.repeat(np.arange(20), 30)


def test_fvu_is_one_less_r2_of_all_channels_together(made) -> None:
    x, rebuilt, utterance = made
    found = fvu(x, rebuilt, utterance, n_resamples=200)
    assert found.value == pytest.approx(1 - r2_score(x, rebuilt, multioutput="variance_weighted"), rel=1e-9)
    assert found.low < found.value < found.high
    assert found.n == 20


def test_an_offset_changes_nothing_and_the_mean_explains_nothing(made) -> None:
    x, rebuilt, utterance = made
    far = fvu(x + 1e4, rebuilt + 1e4, utterance, n_resamples=10).value
    assert far == pytest.approx(fvu(x, rebuilt, utterance, n_resamples=10).value, rel=1e-6)
    assert fvu(x, np.broadcast_to(x.mean(0), x.shape), utterance, n_resamples=10).value == pytest.approx(1)


def test_perfect_and_shrunk_reconstructions(made) -> None:
    x, _, utterance = made
    mean = x.mean(0)
    assert fvu(x, x, utterance, n_resamples=10).value == 0
    shrunk = mean + 0.5 * (x - mean)
    assert fvu(x, shrunk, utterance, n_resamples=10).value == pytest.approx(0.25)
    assert norm_ratio(x, shrunk, utterance, n_resamples=10).value == pytest.approx(0.5)
    assert cosine(x, shrunk, utterance, centred=True, n_resamples=10).value == pytest.approx(1)


def test_an_offset_alone_makes_vectors_alike_unless_it_is_taken_off(made) -> None:
    x, _, utterance = made
    nothing = np.random.default_rng(1).standard_normal(x.shape) + 50
    assert cosine(x, nothing, utterance, n_resamples=10).value > 0.95
    assert abs(cosine(x, nothing, utterance, centred=True, n_resamples=10).value) < 0.1


def test_frames_that_do_not_vary_have_no_fvu() -> None:
    x = np.ones((10, 3))
    assert np.isnan(fvu(x, x, np.zeros(10, int)).value)
