"""A case answers exactly what whole hooked forwards and autograd answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from otoscope.engine.intervene import replace_with
from otoscope.errors import TaskError
from otoscope.methods.attribution import attribute
from otoscope.methods.localise.case import Case, scored
from otoscope.methods.localise.places import LOGITS, whole_sites
from otoscope.methods.localise.planting import cases
from otoscope.tasks.faults import Fault
from tests.methods.localise.workbench import workbench

FAULTS = [
    Fault("head", "scale", "encoder", 1, (2,), 2.0),
    Fault("cross", "noise", "decoder", 1, (3,), 3.0, seed=4),
    Fault("direction", "remove", "encoder", 0, (), 3.0, seed=1),
    Fault("direction", "remove", "decoder", 1, (), 3.0, seed=1),
]
IN_AUDIO_LLM = [
    Fault("head", "scale", "decoder", 2, (1,), 2.0),
    Fault("rows", "noise", "connector", 0, (1,), 2.0),
]


def naive(case: Case, i: int) -> np.ndarray:
    """The metric of a whole hooked forward per place."""
    metric, donor = case.metric(i), case.donor_values(i)
    found = []
    for place in case.places:
        if place.site == LOGITS:
            found.append(case.donor_metric(i))
            continue
        change = replace_with(
            place.site, donor[place.site], positions=place.positions, heads=place.heads, neurons=place.channels
        )
        logits = case.model.run(case.inputs(i), [change]).logits[0, metric.position]
        found.append(float(logits[metric.answer] - logits[metric.foil]))
    return np.array(found)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f"{f.part}-{f.stack}")
def test_patched_equals_naive_in_both_arms(fault):
    bench = workbench()
    with cases(bench, fault) as made:
        for case in made.values():
            for i in range(case.n_items):
                np.testing.assert_allclose(case.patched(i, case.places), naive(case, i), atol=2e-4, err_msg=case.arm)


@pytest.mark.parametrize("fault", IN_AUDIO_LLM, ids=lambda f: f.part)
def test_patched_equals_naive_in_an_audio_llm(fault):
    bench = workbench("qwen2_audio", n=1, tuning=1)
    with cases(bench, fault) as made:
        for case in made.values():
            np.testing.assert_allclose(case.patched(0, case.places), naive(case, 0), atol=5e-4, err_msg=case.arm)


def test_what_is_equal_costs_nothing():
    bench = workbench()
    last = Fault("mlp", "scale", "decoder", 2, (), 2.0)
    with cases(bench, last, ("repair",)) as made:
        case = made["repair"]
        base = case.base_metric(0)
        before = case.forwards
        patched = case.patched(0, case.places)
        changed = [p.name for p, value in zip(case.places, patched) if value != base]
        assert changed == ["decoder.2.mlp"]
        assert case.forwards - before <= 2  # the healthy run, and one patch


def test_slopes_are_autograd_s_and_zero_where_nothing_differs():
    bench = workbench()
    with cases(bench, FAULTS[1]) as made:
        pairs, repair = made["pairs"], made["repair"]
        sites = whole_sites(pairs.places)
        whole = attribute(bench.scratch, pairs.inputs(0), pairs.donor.inputs[0], sites, pairs.metric(0))
        slopes = pairs.slopes(0)
        for site in sites:
            product = slopes[site] * (pairs.donor_values(0)[site] - pairs.base_values(0)[site])
            np.testing.assert_allclose(product.sum(-1)[0].numpy(), whole.scores[str(site)], atol=1e-4)
        own = repair.slopes(0)
        assert not own[sites[0]].any()
        assert repair.slopes(0, everywhere=True)[sites[0]].any()
        torch.testing.assert_close(repair.slopes(0, everywhere=True)[sites[-1]], own[sites[-1]])


def test_slopes_at_the_end_of_the_way_are_the_healthy_model_s():
    bench = workbench()
    with cases(bench, FAULTS[0]) as made:
        repair = made["repair"]
        at_end, weights = repair.slopes(0, 1.0), bench.scratch.weights_hash()
        site = repair.places[-1].site
        healthy = Case("healthy", repair.places, bench.clean, bench.corrupt, "pairs").slopes(0, everywhere=True)
        torch.testing.assert_close(at_end[site], healthy[site])
        assert bench.scratch.weights_hash() == weights
    # with equal models, what enters is on its way from one sound to the other
    pair = Case("pair", repair.places, bench.clean, bench.corrupt, "pairs")
    other = Case("other", repair.places, bench.corrupt, bench.clean, "pairs")
    torch.testing.assert_close(pair.slopes(0, 1.0)[site], other.slopes(0)[site], rtol=1e-3, atol=1e-4)


def test_a_chain_counts_the_rise():
    bench = workbench()
    with cases(bench, FAULTS[3]) as made:
        case = made["repair"]
        rows = scored(lambda c: np.tile([0.0, 0.2, 0.1, 0.9, 1.0, 1.0, 1.0][: len(c.places)], (2, 1)), case)
    assert rows.shape == (2, len(case.places))
    np.testing.assert_allclose(rows[0, :5], [0, 0.2, 0, 0.7, 0.1])


def test_a_method_must_score_every_place():
    bench = workbench()
    with cases(bench, FAULTS[0]) as made, pytest.raises(TaskError, match="one per place"):
        scored(lambda c: np.zeros(3), made["repair"])
