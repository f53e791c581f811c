"""Exact repair names every planted place first, with a score of 1; where nothing is at fault it says nothing."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from otoscope.methods.localise.case import Case, Side, scored
from otoscope.methods.localise.exact import exact
from otoscope.methods.localise.planting import cases, truth_of
from otoscope.tasks.faults import draw
from tests.methods.localise.workbench import workbench


@pytest.mark.parametrize("family", ["whisper", "qwen2_audio"])
def test_repair_finds_every_fault(family):
    bench = workbench(family)
    asked = 0
    for fault in itertools.islice(draw(bench.healthy, 1), 24):
        aimed = bench.aimed(fault)
        aimed = aimed.at(3.0) if aimed.tunable else aimed
        with cases(bench, aimed, ("repair",)) as made:
            case = made["repair"]
            mean = np.nanmean(scored(exact, case), axis=0)
            truth = truth_of(aimed, case.places)
            if np.isnan(mean).all():  # the fault does not reach the answer
                continue
            asked += 1
            if aimed.kind == "swap":  # one of the two heads repairs its half
                continue
            assert mean[truth[0]] == pytest.approx(1, abs=1e-3), aimed.name
            assert mean.argmax() == truth[0], aimed.name
    assert asked > 12


def test_a_healthy_model_gives_no_score():
    bench = workbench()
    same = Side(bench.scratch, bench.clean.inputs, bench.clean.metrics)
    case = Case("healthy", bench.places["components"], same, bench.clean, "repair")
    assert np.isnan(exact(case)).all()
