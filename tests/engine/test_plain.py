"""Plain runs are computed once for every different input, within a sweep and across the sweeps that share them."""

from __future__ import annotations

import numpy as np
import pytest

from otoscope.engine.metrics import LogitDiff
from otoscope.engine.patch import Patch
from otoscope.engine.plain import PlainRuns
from otoscope.engine.sweep import sweep
from tests.engine.test_prefix import N, corners
from tests.tiny import build, pair

METRIC = LogitDiff(5, 7, N - 1)


@pytest.fixture
def model():
    return build("llama")


@pytest.fixture
def forwards(model):
    """Items of every forward of the model."""
    seen: list[int] = []

    def see(_module, _args, kwargs):
        seen.append(len(kwargs["input_ids"]))

    handle = model.hf.model.register_forward_pre_hook(see, with_kwargs=True)
    yield seen
    handle.remove()


def patches(model, *donors):
    layers = range(model.stacks["decoder"].n_layers)
    return [Patch(f"decoder.{k}.resid_pre", (3, 4, 5, 6, 8, 9), donor=d) for k in layers for d in donors]


def test_equal_inputs_of_one_sweep_are_run_once(model, forwards):
    a, b, c = corners(model)
    again = model.inputs(tokens=a.tokens[0].tolist())
    found = sweep(model, a, [b, again, c, b], patches(model, 0, 1, 2, 3), METRIC)
    assert forwards == [3]
    values = found.values["logit_diff"].reshape(-1, 4)
    assert np.all(values[:, 1] == found.base["logit_diff"]), "the same input on both sides changes nothing"
    assert np.array_equal(values[:, 0], values[:, 3])
    assert found.donors["logit_diff"].shape == (4,)


def test_sweeps_that_share_their_plain_runs_give_the_same_answers(model, forwards):
    a, b, c = corners(model)
    plain = PlainRuns()
    asked = [(a, [b, c]), (b, [a]), (c, [a, b])]
    for base, donors in asked:
        which = patches(model, *range(len(donors)))
        shared = sweep(model, base, donors, which, METRIC, plain=plain)
        alone = sweep(model, base, donors, which, METRIC, method="naive")
        assert np.abs(shared.values["logit_diff"] - alone.values["logit_diff"]).max() < 1e-4
        assert np.abs(shared.donors["logit_diff"] - alone.donors["logit_diff"]).max() < 1e-4
    naive = sum(1 + len(patches(model, *range(len(donors)))) for _, donors in asked)
    assert len(forwards) == 1 + naive, "one forward for all three sweeps"


def test_what_an_earlier_sweep_did_not_capture_is_run_again(model, forwards):
    a, b, _ = corners(model)
    plain = PlainRuns()
    sweep(model, a, b, [Patch("decoder.2.resid_pre")], METRIC, plain=plain)
    sweep(model, a, b, [Patch("decoder.2.resid_pre")], METRIC, plain=plain)
    assert forwards == [2]
    found = sweep(model, a, b, [Patch("decoder.0.z", heads=(1,))], METRIC, plain=plain)
    assert forwards == [2, 2]
    alone = sweep(model, a, b, [Patch("decoder.0.z", heads=(1,))], METRIC, method="naive")
    assert np.abs(found.values["logit_diff"] - alone.values["logit_diff"]).max() < 1e-4


def test_room_is_limited_and_another_model_starts_anew(model, forwards):
    a, b, c = corners(model)
    plain = PlainRuns(keep=2)
    for base, donor in ((a, b), (b, a), (a, c), (a, b)):
        sweep(model, base, donor, patches(model, 0), METRIC, plain=plain)
    # b was forgotten when c came
    assert forwards == [2, 1, 1]
    other = build("llama", seed=1)
    found = sweep(other, a, b, patches(other, 0), METRIC, plain=plain)
    alone = sweep(other, a, b, patches(other, 0), METRIC)
    assert np.array_equal(found.values["logit_diff"], alone.values["logit_diff"])


@pytest.mark.parametrize("family", ["whisper", "qwen2_audio", "hubert-ctc-pre"])
def test_sounds_are_told_apart_by_their_content(family):
    model = build(family)
    a, b = pair(model)
    stack = model.adapter.order[-1]
    plain = PlainRuns()
    for base, donor in ((a, b), (b, a)):
        site = Patch(f"{stack}.1.resid_pre")
        shared = sweep(model, base, donor, [site], LogitDiff(5, 7, 0), plain=plain)
        alone = sweep(model, base, donor, [site], LogitDiff(5, 7, 0))
        assert shared.values["logit_diff"] == pytest.approx(alone.values["logit_diff"], abs=1e-5)
        assert shared.base["logit_diff"] == pytest.approx(alone.base["logit_diff"], abs=1e-5)
