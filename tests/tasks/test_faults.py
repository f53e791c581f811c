"""Each planted fault changes exactly the value of the place it names, and is gone without a trace after its block."""

from __future__ import annotations

import itertools

import pytest
import torch

from otoscope.errors import TaskError
from otoscope.methods.localise.case import Side
from otoscope.methods.localise.places import LOGITS
from otoscope.methods.localise.planting import Workbench
from otoscope.tasks.faults import MODEL_FAULTS, Fault, draw, planted
from tests.methods.localise.workbench import workbench

FAMILIES = ("whisper", "qwen2_audio")


@pytest.fixture(scope="module", params=FAMILIES)
def bench(request) -> Workbench:
    return workbench(request.param)


def faults_of(bench: Workbench) -> list[Fault]:
    """Two of every part and kind that the model has, severe enough to be seen."""
    n = sum(any(f.part == part for f in itertools.islice(draw(bench.healthy), 19)) for part, _ in MODEL_FAULTS)
    drawn = [bench.aimed(fault) for fault in itertools.islice(draw(bench.healthy, 3), 2 * n)]
    return [fault.at(2.0) if fault.tunable else fault for fault in drawn]


def test_the_first_place_that_differs_is_the_true_one(bench):
    tried = set()
    for fault in faults_of(bench):
        with planted(bench.scratch, fault, bench.towards if fault.part == "unembed" else None):
            faulty = Side(bench.scratch, bench.clean.inputs, bench.clean.metrics).values(0)
            healthy = bench.clean.values(0)
            places = bench.places[fault.universe]
            differ = [p for p in places if not torch.equal(p.of(faulty[p.site]), p.of(healthy[p.site]))]
        assert differ, fault.name
        layer = differ[0].site
        # what is computed in parallel with it, and before it, is healthy
        first = {
            p.name
            for p in differ
            if (p.site.stack, p.site.layer, p.site.point) == (layer.stack, layer.layer, layer.point)
        }
        assert first == set(fault.truth), fault.name
        tried.add((fault.part, fault.kind))
    missing = set(MODEL_FAULTS) - tried
    assert {part for part, _ in missing} <= ({"rows"} if bench.healthy.family == "whisper" else {"cross"})


def test_nothing_is_left_behind(bench):
    before = bench.scratch.weights_hash()
    for fault in faults_of(bench):
        with planted(bench.scratch, fault, bench.towards if fault.part == "unembed" else None) as edits:
            assert edits
            assert bench.scratch.weights_hash() != before or fault.part == "unembed"
        assert bench.scratch.weights_hash() == before
    assert bench.scratch.hf.get_output_embeddings().weight is not None
    inputs = bench.clean.inputs[0]
    assert torch.equal(bench.scratch.run(inputs).logits, bench.healthy.run(inputs).logits)


def test_a_biased_row_changes_one_logit_alone(bench):
    fault = bench.aimed(Fault("unembed", "bias", "decoder", -1, (0,), 1.0))
    inputs, tied = bench.clean.inputs[0], bench.scratch.hf.get_output_embeddings().weight
    healthy = bench.healthy.run(inputs).logits
    with planted(bench.scratch, fault, bench.towards):
        changed = (bench.scratch.run(inputs).logits != healthy).any(0).any(0)
        assert changed.nonzero().flatten().tolist() == [fault.index[0]]
        faulty = Side(bench.scratch, [inputs], bench.clean.metrics[:1]).values(0)
        assert not torch.equal(faulty[LOGITS], bench.clean.values(0)[LOGITS])
    assert bench.scratch.hf.get_output_embeddings().weight is tied


def test_a_direction_is_removed_from_what_the_layer_writes():
    bench = workbench()
    fault = Fault("direction", "remove", "decoder", 1, severity=1.0, seed=5)
    block = bench.scratch.adapter.blocks("decoder")[1]
    from otoscope.tasks.faults import _leading_direction

    d = _leading_direction(block.down, 5)
    assert abs(float(d.detach().norm()) - 1) < 1e-5
    with planted(bench.scratch, fault):
        values = bench.scratch.capture(
            bench.clean.inputs[0], ["decoder.1.mlp_out", "decoder.1.cross_attn_out", "decoder.1.attn_out"]
        )
        for value in values.values():
            assert float((value @ d.detach()).abs().max()) < 1e-5


def test_the_same_seed_draws_the_same_faults(bench):
    one, two = (list(itertools.islice(draw(bench.healthy, 4), 40)) for _ in range(2))
    assert one == two
    assert one != list(itertools.islice(draw(bench.healthy, 5), 40))
    assert len({fault.name for fault in one}) == len(one)
    assert [Fault.from_json(f.to_json()) for f in one] == one


def test_a_bias_needs_its_direction(bench):
    with (
        pytest.raises(TaskError, match="towards"),
        planted(bench.scratch, Fault("unembed", "bias", "decoder", -1, (1,))),
    ):
        pass
