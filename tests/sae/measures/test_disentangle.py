"""Cause and isolate where each factor has channels of its own, and where all factors share theirs."""

from __future__ import annotations

import numpy as np
import pytest

from otoscope.sae.measures.disentangle import disentangle
from tests.sae.measures.hearing import D, TwoSounds, read_identity

FACTORS = {"voicing": (0, 1, 2), "place": (3, 4, 5), "height": (6, 7, 8)}


def pairs(shared: bool = False, n: int = 8, seed: int = 0) -> list[TwoSounds]:
    """Sounds of four frames; a pair's own channels differ much. ``shared``: every factor is read from, and moves, all channels."""
    rng, made = np.random.default_rng(seed), []
    for i in range(n):
        for factor, channels in FACTORS.items():
            x = rng.uniform(0.2, 0.4, (4, D))
            donor = x.copy()
            own = list(range(9)) if shared else list(channels)
            donor[:, own] += rng.uniform(0.5, 1, (4, len(own)))
            # sounds that differ in one thing differ a little in others
            donor += 0.02 * rng.standard_normal(donor.shape)
            made.append(TwoSounds(factor, f"{factor}{i}", x, donor, own))
    return made


def test_features_of_their_own_are_cause_and_isolated() -> None:
    found = disentangle(pairs(), read_identity, k=3, n_resamples=100)
    own = found.arms["own"]
    assert own.cause.low > 0.9
    assert own.isolate.low > 0.9
    assert own.disentangle.value == pytest.approx((own.cause.value + own.isolate.value) / 2)
    assert {f: sorted(chosen) for f, chosen in found.features.items()} == {f: list(c) for f, c in FACTORS.items()}
    # everything put in causes all and isolates nothing; features drawn at random do about as little as they are few
    assert found.arms["all channels"].cause.value == pytest.approx(1)
    assert found.arms["all channels"].isolate.value == pytest.approx(0, abs=0.1)
    assert found.arms["random features"].disentangle.value < own.disentangle.value - 0.2
    assert len(found.rows) == 3 * 4


def test_what_factors_share_cannot_be_told_apart() -> None:
    found = disentangle(pairs(shared=True), read_identity, k=9, n_resamples=50)
    assert found.arms["own"].disentangle.value < 0.75
    assert found.arms["all channels"].disentangle.value == pytest.approx(0.5, abs=0.05)


def test_one_factor_alone_says_nothing() -> None:
    only = [p for p in pairs() if p.factor == "place"]
    assert np.isnan(disentangle(only, read_identity, k=3, n_resamples=10).arms["own"].disentangle.value)
