"""Differences of activations: closed forms, what CKA cannot see, padding left out, silence on equal runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from otoscope.methods.localise.activation_difference import activation_difference
from otoscope.methods.localise.case import Case, Side
from otoscope.methods.localise.cka_difference import cka_difference
from otoscope.methods.localise.places import Place
from otoscope.methods.localise.planting import cases, truth_of
from otoscope.methods.localise.states import states
from otoscope.methods.similarity import cka
from otoscope.models.site import Site
from otoscope.tasks.faults import Fault
from tests.methods.localise.fake_case import pairs, repair
from tests.methods.localise.workbench import workbench


def test_distance_in_closed_form():
    """The faulty place writes 3 times what it should: its values are off by twice their norm; earlier ones by nothing."""
    case = repair({"decoder.1.head.2": 3.0})
    scores = dict(zip((place.name for place in case.places), activation_difference(case)[0]))
    assert scores["decoder.1.head.2"] == pytest.approx(2.0)
    assert {scores[f"decoder.0.head.{h}"] for h in range(4)} == {0.0}
    assert scores["decoder.0.mlp"] == 0.0
    assert 0 < scores["decoder.1.mlp"] < 2


@pytest.mark.parametrize("method", [activation_difference, cka_difference])
def test_both_are_silent_on_equal_runs(method):
    bench = workbench()
    same = Side(bench.scratch, bench.clean.inputs, bench.clean.metrics)
    assert not method(Case("healthy", bench.places["components"], same, bench.clean, "repair")).any()


def test_cka_sees_noise_but_no_scale():
    bench = workbench()
    for kind, seen in (("noise", True), ("scale", False)):
        fault = Fault("head", kind, "encoder", 1, (2,), 2.0, seed=3)
        with cases(bench, fault, ("repair",)) as made:
            case, true = made["repair"], truth_of(fault, made["repair"].places)[0]
            score = cka_difference(case)[true]
            assert (score > 0.05) if seen else score == pytest.approx(0, abs=1e-5)
            if seen:
                assert cka_difference(case)[:true].max() < 1e-5
            # the distance sees both
            assert activation_difference(case)[:, true].min() > 0.5


def test_frames_are_sets_of_their_items_and_tokens_are_pooled():
    bench = workbench()
    places = bench.places["components"]
    case = Case("pair", places, bench.corrupt, bench.clean, "pairs")
    found = dict(zip((place.name for place in places), cka_difference(case)))
    for name, frames in (("encoder.1.head.2", True), ("decoder.1.mlp", False)):
        place = next(p for p in places if p.name == name)
        base, donor = (
            [states(case, i, place, values(i)[place.site]) for i in range(2)]
            for values in (case.base_values, case.donor_values)
        )
        if not frames:
            base, donor = np.concatenate(base), np.concatenate(donor)
        assert found[name] == pytest.approx(1 - cka(base, donor))


def test_padding_is_left_out():
    bench = workbench(n=1)
    case = Case("pair", bench.places["components"], bench.corrupt, bench.clean, "pairs")
    place = Place("encoder.2.mlp", Site("encoder", 2, "mlp_out"))
    value = case.base_values(0)[place.site]
    n = case.model.clock("encoder", case.inputs(0).n_samples[0]).n_valid
    assert n < value.shape[1]
    np.testing.assert_array_equal(states(case, 0, place, value), value[0, :n].double().numpy())
    window = Place("window", place.site, positions=(n, n + 1))
    np.testing.assert_array_equal(states(case, 0, window, value), value[0, n : n + 2].double().numpy())


def test_too_few_samples_have_no_cka():
    case = pairs(n_items=1, bend=torch.tanh)  # three positions
    assert np.isnan(cka_difference(case)).all()
    assert not np.isnan(cka_difference(pairs(n_items=2, bend=torch.tanh))).any()
