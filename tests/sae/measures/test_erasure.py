"""Erasing planted features: a true dictionary takes the label away, features of anything else leave it."""

from __future__ import annotations

import numpy as np
import pytest

from otoscope.sae.edits import active_in, matched, scaled, written
from otoscope.sae.measures.erasure import erasure
from otoscope.sae.measures.frames import Label
from otoscope.sae.measures.planted import PlantedConfig, planted

SMALL = PlantedConfig(n_speakers=6, per_speaker=3, tokens=10)


@pytest.fixture(scope="module")
def world():
    return planted(SMALL, seed=0)


def of_class(world) -> Label:
    by_phone, names = world.classes.partitions["manner"]
    phone = world.frames.phone.codes
    return Label(np.where(phone >= 0, by_phone[phone], -1), names)


def test_true_features_erase_their_class_and_others_do_not(world) -> None:
    curve = erasure(world.frames, world.read(world.dictionary("perfect")), of_class(world), "manner", n_resamples=50)
    assert curve is not None
    # not all of it: frames that lack the class's features are not yet frames of another class
    assert curve.erased.low > 0.5
    assert abs(curve.erased_null.value) < 0.1
    assert curve.chosen.features[0] < SMALL.n_classes  # the feature of the class itself comes first
    plain = {p.factor: p.accuracy.value for p in curve.points if p.arm == "own"}
    assert plain[0.0] < plain[0.5] < plain[1.0]
    called = {p.factor: p.called for p in curve.points if p.arm == "own"}
    assert called[0.0] < called[1.0] <= called[4.0]  # turned up, the class is heard at least as often


def test_worse_dictionaries_erase_less(world) -> None:
    quality = {
        q: erasure(world.frames, world.read(world.dictionary(q)), of_class(world), "manner", n_resamples=10)
        for q in ("perfect", "random")
    }
    assert quality["perfect"].erased.value > quality["random"].erased.value + 0.1


def test_a_label_that_nobody_can_tell_has_no_curve(world) -> None:
    drawn = np.random.default_rng(0).integers(0, 2, len(world.frames.x))
    nothing = Label(drawn, ("heads", "tails"))
    assert erasure(world.frames, world.read(world.dictionary("perfect")), nothing, "coin", n_resamples=10) is None


def test_edits_by_hand() -> None:
    from scipy import sparse

    codes = sparse.csr_array(np.array([[1.0, 0, 2], [0, 3, 0]]))
    decoder = np.array([[1.0, 0], [0, 1], [1, 1]])
    x = np.array([[5.0, 5], [5, 5]])
    assert written(codes, decoder, [0, 2]).tolist() == [[3, 2], [0, 0]]
    assert scaled(x, codes, decoder, [0, 2], 0).tolist() == [[2, 3], [5, 5]]
    assert scaled(x, codes, decoder, [0, 2], 1).tolist() == x.tolist()
    assert scaled(x, codes, decoder, [1], 3).tolist() == [[5, 5], [5, 11]]
    assert scaled(x, codes, decoder, [], 0).tolist() == x.tolist()
    assert active_in(codes, [1, 2]).tolist() == [True, True]
    assert active_in(codes, [0]).tolist() == [True, False]
    rates = np.array([0.1, 0.11, 0.5, 0.51, 0.0])
    assert set(matched(rates, [0, 2])) == {1, 3}
