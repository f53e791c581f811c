"""The bench on planted truth: what was planted is there, the encoder finds it, and measures rank dictionaries rightly."""

from __future__ import annotations

import numpy as np
import pytest

from otoscope.sae.measures.battery import Settings
from otoscope.sae.measures.planted import PlantedConfig, planted, pursuit
from otoscope.sae.measures.trust import judge, trust_in_all

SMALL = PlantedConfig(n_speakers=6, per_speaker=3, tokens=10)


@pytest.fixture(scope="module")
def world():
    return planted(SMALL, seed=0)


def test_what_was_planted_is_there(world) -> None:
    codes, phone = world.codes, world.frames.phone.codes
    # hierarchy: the class's feature whenever one of its phones
    assert ((codes[:, 0] > 0) == (world.classes.concepts["class0"][phone] & (phone >= 0))).all()
    background = codes[:, -SMALL.n_background :] > 0
    rates = background.mean(0)[::2]
    assert rates[0] > 2 * rates[-1]  # frequency
    pair = background[:, 0] & background[:, 1]
    assert pair.sum() / background[:, 0].sum() > SMALL.together - 0.1  # correlation
    same = world.frames.utterance[1:] == world.frames.utterance[:-1]
    lasting = (background[1:, 0] & background[:-1, 0])[same].sum() / background[:-1, 0][same].sum()
    assert lasting == pytest.approx(SMALL.persistence, abs=0.1)  # temporal smoothness


def test_the_encoder_finds_the_true_codes_with_the_true_directions(world) -> None:
    found = world.read(world.dictionary("perfect")).codes.toarray()
    assert ((found > 0) == (world.codes > 0)).mean() > 0.98
    agreed = (found > 0) & (world.codes > 0)
    assert np.abs(found - world.codes)[agreed].mean() < 0.1


def test_pursuit_of_orthogonal_rows_is_their_projection() -> None:
    rng = np.random.default_rng(0)
    rows = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    truth = np.zeros((5, 8))
    truth[np.arange(5), :5] = np.eye(5) + 1
    truth[:, 5:] = 0
    assert pursuit(truth @ rows, rows, 5) == pytest.approx(truth, abs=1e-4)


def test_a_number_is_reliable_only_if_it_ranks_every_time() -> None:
    fine = {"perfect": [3.0, 3.0], "half": [2.0, 2.5], "random": [1.0, 1.0]}
    assert judge("probe.phone.k1", fine).verdict == "reliable"
    assert judge("fvu", fine).verdict == "unreliable"  # less is better
    assert judge("l0", fine).verdict == "describes"
    assert judge("probe.x", fine | {"half": [2.0, 3.0]}).verdict == "unreliable"
    assert judge("probe.x", fine | {"random": [1.0, float("nan")]}).verdict == "unreliable"


def test_the_measures_that_must_work_rank_and_ties_are_called_unreliable() -> None:
    found = trust_in_all((0,), SMALL, Settings(n_resamples=5, rows=1500))
    for name in ("fvu", "cosine_centred", "probe.phone.k1", "phone_purity", "stability", "stability_cosine"):
        assert found[name].verdict == "reliable", (name, found[name])
    assert found["l0"].verdict == "describes"
    values = found["stability"].values
    assert values["perfect"] == [1.0]
    assert values["random"][0] < 0.1
