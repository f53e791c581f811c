"""Faults of the input are where they say, keep what they should, and are found there by exact patching."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from otoscope.engine.metrics import LogitDiff
from otoscope.methods.localise.case import scored
from otoscope.methods.localise.exact import exact
from otoscope.methods.localise.input_faults import InputFault, draw_inputs, input_case, true_places, tuned_input
from otoscope.methods.localise.planting import KEPT_FIXED, Workbench
from otoscope.methods.pose import Posed
from otoscope.tasks.pair import Pair
from otoscope.tasks.task import TaskItem
from tests.tiny import build, sound


@pytest.fixture(scope="module")
def bench() -> Workbench:
    model = build("qwen2_audio")
    posed = []
    for seed in range(3):
        clip = sound(seed, 8000)
        asked = model.ask(clip, "What word?")
        logits = model.run(asked.inputs).logits[0, -1]
        metric = LogitDiff(int(logits.argmax()), int(logits.argmin()), asked.inputs.tokens.shape[1] - 1)
        item = TaskItem(Pair(clip, sound(seed + 9, 8000), (0.0, 0.5), "other"), "yes", "no", "What word?")
        posed.append(Posed(item, asked.inputs, asked.inputs, metric))
    return Workbench(model, model, posed, posed)


def test_a_silenced_span_is_found_where_it_is(bench):
    fault = InputFault("silence", 1, (0.2, 0.4))
    case = input_case(bench, fault)
    true = true_places(fault, case)
    assert [case.places[i].name for i in true] == ["0.19-0.29 s", "0.29-0.39 s"]
    # nothing before the span enters the model differently; a mel frame looks 12 ms ahead
    site = case.places[0].site
    differs = (case.base_values(0)[site] != case.donor_values(0)[site]).any(-1)[0].nonzero().flatten()
    assert int(differs.min()) >= 8
    assert int(differs.max()) <= 22
    moved = np.flatnonzero(case.patched(0, case.places) != case.base_metric(0)).tolist()
    assert set(true) <= set(moved) <= {*true, true[0] - 1, true[-1] + 1}


def test_misleading_words_are_found(bench):
    case = input_case(bench, InputFault("context", 0, severity=2))
    assert case.places[-1].name == "context"
    tokens = [side.inputs[0].tokens[0] for side in (case.base, case.donor)]
    at = list(case.places[-1].positions)
    assert (tokens[0] != tokens[1]).nonzero().flatten().tolist()
    assert {int(i) for i in (tokens[0] != tokens[1]).nonzero().flatten()} <= set(at)
    assert scored(exact, case)[0][-1] == pytest.approx(1, abs=1e-3)
    assert true_places(InputFault("context", 0), case) == [len(case.places) - 1]


def test_draws_repeat_and_what_is_taken_is_within_range(bench):
    one, two = (list(itertools.islice(draw_inputs(bench, 3), 12)) for _ in range(2))
    assert one == two
    assert [InputFault.from_json(f.to_json()) for f in one] == one
    for fault in one:
        got = tuned_input(bench, fault)
        if got is not None:
            assert KEPT_FIXED[0] <= got[1] <= KEPT_FIXED[1]
            assert replace(got[0], severity=0.0) == replace(fault, severity=0.0)
