"""Sparse probes on labels that one feature, two features, or no feature carries."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from otoscope.sae.measures.frames import Label
from otoscope.sae.measures.probing import sparse_probing

RNG = np.random.default_rng(0)
UTTERANCE = np.repeat(np.arange(30), 40)
VALUE = RNG.integers(0, 4, len(UTTERANCE))


def features(*columns: np.ndarray) -> sparse.csr_array:
    noise = RNG.random((len(UTTERANCE), 20)) * (RNG.random((len(UTTERANCE), 20)) < 0.1)
    return sparse.csr_array(np.concatenate([noise, np.stack(columns, axis=1)], axis=1) if columns else noise)


def test_one_feature_per_value_is_found() -> None:
    codes = features(*[(v == VALUE) * (1 + RNG.random(len(VALUE))) for v in range(4)])
    found = sparse_probing(codes, Label(VALUE, tuple("abcd")), UTTERANCE, n_resamples=50)
    assert all(found[k].value == pytest.approx(1) for k in (1, 2, 5))
    assert found[1].n >= 5


def test_a_label_that_no_feature_carries_is_at_chance() -> None:
    found = sparse_probing(features(), Label(VALUE, tuple("abcd")), UTTERANCE, n_resamples=50)
    assert all(abs(found[k].value - 0.5) < 0.05 for k in (1, 2, 5))


def test_a_value_split_over_two_features_needs_two() -> None:
    which = RNG.random(len(VALUE)) < 0.5
    codes = features((VALUE == 0) & which, (VALUE == 0) & ~which, VALUE == 1)
    label = Label(np.minimum(VALUE, 2), tuple("abc"))
    found = sparse_probing(codes, label, UTTERANCE, n_resamples=10)
    assert found[1].value < 0.95 < found[5].value


def test_a_label_of_recordings_is_told_from_means_with_speakers_held_out() -> None:
    speaker = UTTERANCE % 10
    sex = speaker % 2
    codes = features((sex == 1) * RNG.random(len(sex)))
    label = Label(sex, ("f", "m"), of_recordings=True)
    found = sparse_probing(codes, label, UTTERANCE, speaker, n_resamples=50)
    assert found[1].value == pytest.approx(1)
    assert found[1].n == 30
    # a feature per speaker tells nothing of the sex of a speaker that was never heard
    own = features(*[(speaker == s) * 1.0 for s in range(10)])
    assert sparse_probing(own, label, UTTERANCE, speaker, n_resamples=10)[1].value < 0.75
    as_speakers = Label(speaker, tuple("0123456789"), of_recordings=True)
    assert sparse_probing(own, as_speakers, UTTERANCE, speaker, n_resamples=10)[1].value == pytest.approx(1)


def test_too_little_to_probe_gives_nan() -> None:
    label = Label(np.where(VALUE == 0, 0, -1), ("a", "b"))
    assert np.isnan(sparse_probing(features(), label, UTTERANCE)[1].value)
