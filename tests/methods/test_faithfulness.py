"""Faithfulness: a planted circuit recovers the behaviour at once, random orders in proportion, and the ends are exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from otoscope.errors import TaskError
from otoscope.methods.faithfulness import FRACTIONS, area, faithfulness, without
from otoscope.methods.localise.attribution import attribution
from otoscope.methods.localise.case import Case
from otoscope.stats.ranking import mean_score
from tests.methods.localise.fake_case import FakeCase, FakeModel, pairs
from tests.methods.localise.workbench import workbench


def planted(gains: dict[str, float]) -> FakeCase:
    """40 parallel places of which only those in ``gains`` write anything."""
    return pairs("circuit", n_layers=8, parallel=True, gains=gains, rest=0.0)


def effects(case) -> np.ndarray:
    """What each place adds to the metric, summed over items."""
    return sum(case.base_metric(i) - case.patched(i, case.places) for i in range(case.n_items))


def with_effects(wanted: dict[str, float]) -> FakeCase:
    """A case whose places add exactly so much to the metric."""
    unit = effects(planted(dict.fromkeys(wanted, 1.0)))
    names = [place.name for place in planted({}).places]
    return planted({name: size / unit[names.index(name)] for name, size in wanted.items()})


def test_a_planted_circuit_is_faithful_at_its_size():
    case = with_effects({"decoder.2.head.1": 1.0, "decoder.6.mlp": 1.0})
    found = faithfulness(case, mean_score(attribution(case)))
    assert found.kept == (0, 0, 0, 0, 0, 2, 4, 8, 20, 40)
    np.testing.assert_allclose(found.f, [0, 0, 0, 0, 0, 1, 1, 1, 1, 1], atol=1e-9)
    assert found.cpr == pytest.approx(0.03 / 2 + 0.95)
    assert found.cmd == pytest.approx(0.019 + 0.03 / 2)


def test_random_orders_recover_in_proportion():
    case = with_effects({f"decoder.{layer}.head.{h}": 1.0 for layer in range(8) for h in (0, 3)})
    rng = np.random.default_rng(0)
    curves = np.array([faithfulness(case, rng.random(40), (0.1, 0.5, 1.0)).f for _ in range(40)])
    np.testing.assert_allclose(curves.mean(0), [0.1, 0.5, 1.0], atol=0.05)


def test_a_harmful_place_is_left_to_the_end_by_sign_and_kept_by_size():
    case = with_effects({"decoder.1.head.0": 1.0, "decoder.3.mlp": 1.0, "decoder.5.head.2": -0.9})
    found = faithfulness(case, mean_score(attribution(case)), (0.025, 0.05, 0.075, 0.5, 1.0))
    span = 1.1
    np.testing.assert_allclose(found.f, [1 / span, 2 / span, 2 / span, 2 / span, 1], atol=1e-9)
    np.testing.assert_allclose(found.f_by_size, [1 / span, 2 / span, 1, 1, 1], atol=1e-9)
    assert found.cpr > 1
    assert found.cmd < area(found.fractions, np.abs(1 - found.f))


def test_areas_are_mib_s():
    """The loop of MIB's evaluation, written out: trapezoids over the fraction, nothing below the first."""
    f = np.random.default_rng(2).random(10)
    under = from_one = 0.0
    for i in range(9):
        width = FRACTIONS[i + 1] - FRACTIONS[i]
        under += width * (f[i] + f[i + 1]) / 2
        from_one += width * (abs(1 - f[i]) + abs(1 - f[i + 1])) / 2
    assert area(FRACTIONS, f) == pytest.approx(under)
    assert area(FRACTIONS, np.abs(1 - f)) == pytest.approx(from_one)
    assert area(FRACTIONS, np.ones(10)) == pytest.approx(0.999)


@pytest.mark.parametrize("family", ["whisper", "qwen2_audio"])
def test_the_ends_of_the_curve_are_the_two_runs(family):
    bench = workbench(family)
    places = bench.places["components"]
    case = Case("circuit", places, bench.clean, bench.corrupt, "circuit")
    found = faithfulness(case, np.arange(float(len(places))), (0.001, 0.5, 1.0))
    assert found.f[0] == 0
    assert found.f[-1] == 1
    # every path from the sound to the answer leads through a place, so nothing but places is needed to corrupt the answer
    corrupt = np.mean([case.donor_metric(i) for i in range(case.n_items)])
    assert found.empty == pytest.approx(corrupt, abs=2e-5)
    # one place at a time is exact patching, and places of a site act together
    assert without(case, 0, places[-1:]) == pytest.approx(case.patched(0, places[-1:])[0], abs=2e-5)
    assert without(case, 0, []) == pytest.approx(case.base_metric(0), abs=2e-5)


def test_nan_comes_last_and_ties_are_broken_by_the_seed():
    case = with_effects({"decoder.2.head.1": 1.0, "decoder.6.mlp": 1.0})
    scores = np.full(40, np.nan)
    scores[[place.name for place in case.places].index("decoder.2.head.1")] = -5.0
    assert faithfulness(case, scores, (0.025, 1.0)).f[0] == pytest.approx(0.5)
    tied = np.zeros(40)
    found = []
    for seed in range(20):
        case.seed = seed
        found.append(faithfulness(case, tied, (0.5, 1.0)).f[0])
    assert 0.3 < np.mean(found) < 0.7
    assert len(set(np.round(found, 6))) == 3


def test_no_difference_no_value():
    model = FakeModel(rest=0.0, parallel=True)
    found = faithfulness(FakeCase(model, model, "circuit"), np.arange(10.0))
    assert np.isnan(found.f).all()
    assert np.isnan([found.cpr, found.cmd]).all()


def test_what_is_no_circuit_is_refused():
    case = pairs("pairs")
    with pytest.raises(TaskError, match="arm 'circuit'"):
        faithfulness(case, np.zeros(10))
    case.arm = "circuit"
    with pytest.raises(TaskError, match="one score per place"):
        faithfulness(case, np.zeros(9))
    with pytest.raises(TaskError, match="increasing shares"):
        faithfulness(case, np.zeros(10), (0.5, 0.1))
    bench = workbench(n=1)
    chain = Case("layers", bench.places["layers"], bench.clean, bench.corrupt, "circuit", chain=True)
    with pytest.raises(TaskError, match="components"):
        faithfulness(chain, np.zeros(len(chain.places)))
    assert torch.is_grad_enabled()
