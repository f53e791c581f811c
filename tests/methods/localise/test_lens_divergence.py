"""Lens divergence: parts that add up to the logits, effects in closed form, and no word on what no lens can read."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from otoscope.methods.localise.case import Case, Side
from otoscope.methods.localise.lens_divergence import direct, lens_divergence, written
from otoscope.methods.localise.places import LOGITS, Place, components
from otoscope.methods.localise.planting import cases, truth_of
from otoscope.models.site import Site
from otoscope.stats.ranking import mean_score
from otoscope.tasks.faults import Fault
from tests.methods.localise.workbench import workbench
from tests.tiny import build, pair


@pytest.mark.parametrize("family", ["whisper", "qwen2_audio", "granite_speech", "llama"])
def test_what_the_parts_write_adds_up_to_the_logits(family):
    """LayerNorm and RMSNorm, factors on the residual and on the logits: heads, MLPs, biases and the embedding are all."""
    model = build(family, torch.float64)
    inputs, _ = pair(model)
    spec, vocab = model.stacks["decoder"], (7, 11)
    sites = [
        f"decoder.{layer}.{point}"
        for layer in range(spec.n_layers)
        for point in ("resid_pre", "z", "cross_z", "mlp_out", "resid_post")
        if point in spec.points
    ]
    run = model.run(inputs, capture_sites=sites)
    at = run.logits.shape[1] - 2
    end = run.cache[f"decoder.{spec.n_layers - 1}.resid_post"][:, [at]]
    total = direct(model, run.cache["decoder.0.resid_pre"][:, [at]], end, vocab)
    for place in components(model):
        if place.site.stack == "decoder":
            total += direct(model, written(model, place, run.cache[place.site][:, [at]], at), end, vocab)
    for block in model.adapter.blocks("decoder"):
        for attention in (block.attn, block.cross):
            if attention is not None:  # the bias of the output projection is no head's
                nothing = torch.zeros(1, 1, attention.n_heads, attention.d_head, dtype=torch.float64)
                total += direct(model, attention.out(nothing) * block.residual, end, vocab)
    constant = model.adapter.unembed(model.adapter.final("decoder", torch.zeros_like(end)), torch.tensor(vocab))[0, 0]
    whole = (run.logits[0, at, list(vocab)] - constant).detach()
    assert total == pytest.approx(float(whole[0] - whole[1]))


def test_what_it_cannot_read_is_nan():
    for family, unread in (("whisper", "encoder"), ("qwen2_audio", "connector")):
        bench = workbench(family)
        case = Case("pair", bench.places["components"], bench.corrupt, bench.clean, "pairs")
        scores = lens_divergence(case)
        read = np.array([place.site.stack == "decoder" for place in case.places])
        assert any(place.site.stack == unread for place in case.places)
        assert np.isnan(scores[:, ~read]).all()
        assert not np.isnan(scores[:, read]).any()


def test_it_is_silent_on_equal_runs():
    bench = workbench()
    same = Side(bench.scratch, bench.clean.inputs, bench.clean.metrics)
    scores = lens_divergence(Case("healthy", bench.places["components"], same, bench.clean, "repair"))
    assert np.nanmax(scores) == 0


def test_a_fault_of_the_last_layer_is_found_and_a_stream_is_read_whole():
    bench = workbench()
    fault = Fault("mlp", "scale", "decoder", 2, (), 2.0)
    with cases(bench, fault, ("repair",)) as made:
        case = made["repair"]
        scores = mean_score(lens_divergence(case))
        true = truth_of(fault, case.places)[0]
        assert np.nanargmax(scores) == true
        assert np.nansum(scores) == scores[true]
        # the same change of the stream, read as a stream, and the logits' own
        stream = Place("stream", Site("decoder", 2, "resid_post"))
        other = Case("streams", (stream, Place("unembed", LOGITS)), case.base, case.donor, "repair")
        whole, logits = lens_divergence(other)[0]
        assert whole == pytest.approx(lens_divergence(case)[0, true], rel=1e-3)
        assert logits == pytest.approx(abs(case.donor_metric(0) - case.base_metric(0)), rel=1e-4)


def test_circuits_are_scored_with_their_sign():
    bench = workbench()
    places = bench.places["components"]
    circuit = lens_divergence(Case("c", places, bench.clean, bench.corrupt, "circuit"))
    pairs = lens_divergence(Case("p", places, bench.clean, bench.corrupt, "pairs"))
    np.testing.assert_array_equal(np.abs(circuit), pairs)
    assert np.nanmin(circuit) < 0 < np.nanmax(circuit)


def test_only_the_position_that_is_read_is_written_to():
    model = build("whisper")
    value = torch.ones(1, 1, 24)
    stream = Place("words", Site("decoder", 0, "resid_pre"), positions=(1, 2))
    assert not written(model, stream, value, 3).any()
    assert written(model, stream, value, 2).all()
    few = Place("channels", Site("decoder", 0, "resid_pre"), channels=(4,))
    assert written(model, few, value, 3).nonzero()[:, 2].tolist() == [4]
