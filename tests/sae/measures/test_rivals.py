"""The rivals: a random decoder stays random, PCA is the best of its rank, ICA spans the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from otoscope.sae.measures.reconstruction import fvu
from otoscope.sae.measures.rivals import components, random_dictionary, raw, read_with
from otoscope.sae.registry import build

RNG = np.random.default_rng(0)
X = (RNG.laplace(size=(2000, 6)) @ RNG.standard_normal((6, 12)) + 5 + 0.1 * RNG.standard_normal((2000, 12))).astype(
    np.float32
)
UTTERANCE = np.repeat(np.arange(20), 100)


def unexplained(rebuilt: np.ndarray) -> float:
    return fvu(X, rebuilt, UTTERANCE, n_resamples=5).value


def test_reading_with_a_dictionary_is_encoding_and_decoding() -> None:
    made = build({"architecture": "topk", "d": 12, "n_features": 48, "k": 3}, torch.Generator().manual_seed(0))
    found = read_with(made, X)
    with torch.no_grad():
        codes = made.encode(torch.from_numpy(X))
        assert found.codes.toarray() == pytest.approx(codes.numpy(), abs=1e-5)
        assert found.rebuilt == pytest.approx(made.decode(codes).numpy(), abs=1e-4)


def test_a_random_decoder_stays_random_while_its_encoder_learns() -> None:
    before, after = (random_dictionary(X, 48, 3, steps=steps, batch_size=256, seed=1) for steps in (1, 200))
    assert torch.equal(before.decoder, after.decoder)
    assert unexplained(read_with(after, X).rebuilt) < 0.8 * unexplained(read_with(before, X).rebuilt)
    assert not torch.equal(after.decoder, random_dictionary(X, 48, 3, steps=1, batch_size=8, seed=2).decoder)


def test_principal_components_leave_the_smallest_eigenvalues_and_independent_ones_the_same() -> None:
    eigenvalues = np.sort(np.linalg.eigvalsh(np.cov(X.T)))[::-1]
    pca, ica = components(X, 4, "pca"), components(X, 4, "ica")
    assert unexplained(pca.rebuilt) == pytest.approx(eigenvalues[4:].sum() / eigenvalues.sum(), rel=1e-3)
    assert unexplained(ica.rebuilt) == pytest.approx(unexplained(pca.rebuilt), rel=0.02)
    assert pca.codes.shape == ica.codes.shape == (2000, 4)
    assert components(X, 99, "pca").codes.shape[1] == 12


def test_ica_finds_the_sources_that_pca_mixes() -> None:
    sources = RNG.laplace(size=(4000, 3))
    mixed = (sources @ RNG.standard_normal((3, 3)) * [3, 2, 1]).astype(np.float32)
    found = components(mixed, 3, "ica").codes.toarray()
    match = np.abs(np.corrcoef(found.T, sources.T)[:3, 3:]).max(axis=1)
    assert (match > 0.95).all()


def test_raw_channels_are_about_their_means() -> None:
    found = raw(X)
    assert np.abs(found.codes.toarray().mean(0)).max() < 1e-3
    assert (found.rebuilt == X).all()
