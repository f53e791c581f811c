"""Faults are as severe as was promised, and the candidates are what the model has."""

from __future__ import annotations

import itertools

import pytest

from otoscope.methods.localise import planting
from otoscope.methods.localise.case import Side
from otoscope.methods.localise.places import components, layers, windows
from otoscope.methods.localise.planting import KEPT, KEPT_FIXED, kept_share, rounded, tuned
from otoscope.tasks.faults import Fault, draw
from tests.methods.localise.workbench import workbench
from tests.tiny import build


@pytest.mark.parametrize("family", ["whisper", "qwen2_audio"])
def test_a_tuned_fault_keeps_what_it_should(family):
    bench = workbench(family)
    found = [tuned(bench, fault) for fault in itertools.islice(draw(bench.healthy, 2), 30)]
    kept = [got for got in found if got is not None]
    assert len(kept) > 8
    for fault, share in kept:
        low, high = KEPT if fault.tunable else KEPT_FIXED
        assert low <= share <= high
        assert kept_share(bench, fault) == share
        # the same share by whole runs of the faulty model, nothing of it taken from the healthy one
        side = bench.clean if fault.part == "unembed" else bench.rehearsed
        items = bench.concerned(fault, side)
        with planting.planted(bench.scratch, fault, planting._towards(bench, fault)):
            faulty = Side(bench.scratch, side.inputs, side.metrics)
            whole = sum(faulty.metric(i) for i in items) / sum(side.metric(i) for i in items)
        assert whole == pytest.approx(share, rel=1e-3, abs=1e-4)


def test_a_part_that_does_not_matter_gets_no_fault():
    bench = workbench()
    block = bench.scratch.adapter.blocks("decoder")[2]
    block.down.weight.data.zero_()  # whatever its neurons do, nothing comes of it
    assert tuned(bench, Fault("neurons", "noise", "decoder", 2, (0, 1, 2))) is None


def test_rounding_changes_everything_a_little():
    model = build("whisper")
    other = planting.scratch_copy(model)
    rounded(other)
    for p, q in zip(model.hf.parameters(), other.hf.parameters()):
        assert (p - q).abs().max() <= p.abs().max() * 2**-8
    assert other.weights_hash() != model.weights_hash()


def test_the_places_are_the_model_s():
    whisper, llm = build("whisper"), build("qwen2_audio")
    names = [place.name for place in components(whisper)]
    assert len(names) == len(set(names)) == 3 * 4 + 3 + 3 * (4 + 4) + 3
    assert names[:5] == [f"encoder.0.head.{i}" for i in range(4)] + ["encoder.0.mlp"]
    assert "decoder.1.cross.3" in names
    rows = [place for place in components(llm) if place.name.startswith("connector")]
    assert sorted(c for place in rows for c in place.channels) == list(range(24))
    assert [place.name for place in layers(whisper)] == [f"encoder.{i}" for i in range(3)] + [
        f"decoder.{i}" for i in range(3)
    ] + ["unembed"]
    at = [p for place in windows(whisper, 4000, 0.1) for p in place.positions]
    assert at == list(range(len(at)))
