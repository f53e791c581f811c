"""Attribution: the exact effect where the network is linear, its derivative elsewhere, silent where nothing differs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from otoscope.engine.patch import Patch
from otoscope.methods import attribution as per_position
from otoscope.methods.localise.attribution import attribution
from otoscope.methods.localise.case import Case, Side
from otoscope.methods.localise.exact import exact
from otoscope.methods.localise.planting import cases, truth_of
from otoscope.stats.ranking import mean_score
from otoscope.tasks.faults import Fault
from tests.methods.localise.fake_case import pairs, repair
from tests.methods.localise.workbench import workbench


def changes(case) -> np.ndarray:
    """Exact change of the metric per place."""
    return np.stack([case.patched(i, case.places) - case.base_metric(i) for i in range(case.n_items)])


@pytest.mark.parametrize("case", [repair({"decoder.1.head.2": 3.0}), pairs()], ids=["repair", "pairs"])
def test_it_is_exact_in_a_linear_network(case):
    np.testing.assert_allclose(attribution(case), np.abs(changes(case)), atol=1e-9)


def test_circuits_are_scored_with_their_sign():
    case = pairs("circuit", parallel=True)
    np.testing.assert_allclose(attribution(case), -changes(case), atol=1e-9)
    assert (attribution(case) < 0).any()
    assert (attribution(case) > 0).any()


def test_what_comes_before_the_fault_scores_zero_and_alone_it_is_the_only_one():
    names = [place.name for place in repair({}, n_layers=4).places]
    true = names.index("decoder.1.head.2")
    scores = attribution(repair({"decoder.1.head.2": 3.0}, n_layers=4, bend=torch.tanh))
    before = [j for j, name in enumerate(names) if name.startswith(("decoder.0", "decoder.1.head")) and j != true]
    assert not scores[:, before].any()
    assert (scores[:, true] > 0).all()
    alone = attribution(repair({"decoder.1.head.2": 3.0}, n_layers=4, bend=torch.tanh, parallel=True))
    assert np.flatnonzero(alone.any(0)).tolist() == [true]


def test_a_saturated_place_is_missed():
    """Its known weakness: the slope in the base run is flat where the fault pushed what follows into saturation."""
    case = repair({"decoder.0.mlp": 60.0}, n_layers=3, bend=torch.tanh)
    true = [place.name for place in case.places].index("decoder.0.mlp")
    # the estimate of the true place is far from what its repair really does
    assert np.abs(attribution(case) - np.abs(changes(case)))[:, true].min() > 1


def test_pairs_agree_with_attribution_per_position():
    bench = workbench()
    with cases(bench, Fault("cross", "noise", "decoder", 1, (3,), 3.0, seed=4), ("pairs",)) as made:
        case = made["pairs"]
        found = attribution(case)
        for i in range(case.n_items):
            sites = {str(place.site) for place in case.places}
            whole = per_position.attribute(case.model, case.inputs(i), case.donor.inputs[i], sites, case.metric(i))
            want = [abs(whole.score(Patch(place.site, heads=place.heads))) for place in case.places]
            np.testing.assert_allclose(found[i], want, rtol=2e-3, atol=2e-5)


@pytest.mark.parametrize("part", ["head", "mlp"])
def test_it_is_exact_patching_to_first_order(part):
    """A fault so small that the curvature is lost: the estimate is the exact change, everywhere."""
    bench = workbench(dtype=torch.float64)
    fault = Fault(part, "scale", "encoder", 1, (2,) if part == "head" else (), 1e-6)
    with cases(bench, fault, ("repair",)) as made:
        case = made["repair"]
        want = np.abs(changes(case))
        np.testing.assert_allclose(attribution(case), want, rtol=1e-3, atol=1e-5 * want.max())
        span = abs(case.donor_metric(0) - case.base_metric(0))
        true = truth_of(fault, case.places)[0]
        assert attribution(case)[0, true] == pytest.approx(span, rel=1e-3)


def test_it_is_silent_on_equal_runs_and_finds_a_real_fault():
    bench = workbench()
    same = Side(bench.scratch, bench.clean.inputs, bench.clean.metrics)
    assert not attribution(Case("healthy", bench.places["components"], same, bench.clean, "repair")).any()
    fault = Fault("head", "scale", "encoder", 1, (2,), 1.0)
    with cases(bench, fault, ("repair",)) as made:
        case = made["repair"]
        assert mean_score(attribution(case)).argmax() == truth_of(fault, case.places)[0]
        assert mean_score(exact(case)).argmax() == truth_of(fault, case.places)[0]
