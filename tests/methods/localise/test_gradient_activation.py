"""Gradient times activation: the effect of removing a place in a linear network, whatever the donor is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from otoscope.engine.intervene import scale
from otoscope.methods.localise.case import Case
from otoscope.methods.localise.gradient_activation import gradient_activation
from tests.methods.localise.fake_case import FakeCase, FakeModel, pairs
from tests.methods.localise.workbench import workbench


def test_it_is_what_removal_changes_where_nothing_bends():
    case = pairs("circuit", parallel=True)
    worth = gradient_activation(case)
    for j, place in enumerate(case.places):
        zero = [scale(place.site, 0.0, heads=place.heads)]
        pair = case.model.run(case.inputs(0), zero).logits[0, -1]
        assert worth[0, j] == pytest.approx(case.base_metric(0) - float(pair[0] - pair[1]))
    case.arm = "repair"
    np.testing.assert_allclose(gradient_activation(case), np.abs(worth))


def test_it_sees_no_donor():
    base = FakeModel(bend=torch.tanh, gains={"decoder.0.head.1": 4.0})
    found = [gradient_activation(FakeCase(base, FakeModel(bend=torch.tanh, rest=r))) for r in (1.0, 2.0)]  # type: ignore[arg-type]
    np.testing.assert_array_equal(*found)
    bench = workbench(n=1)
    places = bench.places["components"]
    alone = gradient_activation(Case("a", places, bench.clean, bench.corrupt, "pairs"))
    same = gradient_activation(Case("b", places, bench.clean, bench.clean, "pairs"))
    np.testing.assert_allclose(alone, same, rtol=1e-5)
    assert (alone > 0).all()


def test_it_is_the_slope_of_fading_a_place_out():
    bench = workbench(n=1, dtype=torch.float64)
    case = Case("circuit", bench.places["components"], bench.clean, bench.corrupt, "circuit")
    worth, metric = gradient_activation(case)[0], case.metric(0)
    for j in range(0, len(case.places), 7):
        place, read = case.places[j], []
        for factor in (1 - 1e-5, 1 + 1e-5):
            logits = case.model.run(case.inputs(0), [scale(place.site, factor, heads=place.heads)]).logits
            read.append(float(logits[0, metric.position, metric.answer] - logits[0, metric.position, metric.foil]))
        assert worth[j] == pytest.approx((read[1] - read[0]) / 2e-5, rel=1e-4, abs=1e-6)
