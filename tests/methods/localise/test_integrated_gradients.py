"""Integrated gradients: attribution where nothing bends, and closer to the truth where something does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from otoscope.methods.localise.attribution import attribution
from otoscope.methods.localise.case import Case, Side
from otoscope.methods.localise.integrated_gradients import integrated_gradients
from tests.methods.localise.fake_case import pairs, repair
from tests.methods.localise.workbench import workbench


@pytest.mark.parametrize("case", [pairs(), pairs("circuit", parallel=True)], ids=["pairs", "circuit"])
def test_it_is_attribution_in_a_linear_network(case):
    np.testing.assert_allclose(integrated_gradients(case), attribution(case), atol=1e-9)


def test_the_parts_of_parallel_places_add_up_to_the_whole_change():
    """Completeness: what is linear after the places is given exactly by slopes at any point of the way."""
    case = pairs("circuit", parallel=True, bend=torch.tanh)
    for i in range(case.n_items):
        assert integrated_gradients(case)[i].sum() == pytest.approx(case.base_metric(i) - case.donor_metric(i))


def test_it_is_closer_than_one_slope_where_the_base_run_is_saturated():
    """One component is at fault and the next saturates: moving along the way, the slope comes back."""
    apart = []
    for seed in range(5):
        case = repair({"decoder.0.mlp": 6.0}, n_layers=2, bend=torch.tanh, seed=seed)
        true = [place.name for place in case.places].index("decoder.0.mlp")
        want = np.abs([case.patched(i, case.places) - case.base_metric(i) for i in range(case.n_items)])[:, true]
        apart.append([np.abs(f(case)[:, true] - want).mean() for f in (integrated_gradients, attribution)])
    ours, one_slope = np.mean(apart, 0)
    assert ours < 0.5 * one_slope


def test_it_is_silent_on_equal_runs_and_leaves_the_weights_alone():
    bench = workbench()
    same = Side(bench.scratch, bench.clean.inputs, bench.clean.metrics)
    weights = bench.scratch.weights_hash()
    assert not integrated_gradients(Case("healthy", bench.places["components"], same, bench.clean, "repair")).any()
    assert bench.scratch.weights_hash() == weights
