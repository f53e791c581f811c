"""Tokens of a given transcript under edits: the frames themselves change nothing, and scores are those of a hooked forward."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import otoscope
from otoscope.engine.intervene import replace_with
from otoscope.sae.measures.behaviour import n_valid
from otoscope.sae.measures.forced import Forced
from otoscope.sae.measures.side_effects import ce_costs, share, writes_words
from tests.cli.folder import save_tiny_whisper
from tests.tiny import sound

SITE = "encoder.0.resid_post"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return otoscope.load(str(save_tiny_whisper(tmp_path_factory.mktemp("model"))))


@pytest.fixture(scope="module")
def heard(model) -> Forced:
    found = Forced.of(model, SITE, sound(0, 8000), "one two three")
    assert found is not None
    return found


def test_frames_and_tokens_are_those_of_the_sound(model, heard) -> None:
    assert len(heard.x) == n_valid(model, SITE, sound(0, 8000)) == 25
    assert heard.spans.shape == (len(heard.label), 2)
    assert (heard.spans[:, 0] <= heard.spans[:, 1]).all()
    assert heard.spans.max() <= 25


def test_scores_are_those_of_one_hooked_forward_each(model, heard) -> None:
    edited = [heard.x, 0.5 * heard.x, -heard.x]
    found = heard.scores(edited)
    start = len(model.prompt()) - 1
    for row, x in enumerate(edited):
        there = replace_with(SITE, torch.as_tensor(x)[None], positions=range(25))
        logits = model.run(heard.inputs, [there]).logits[0, start:-1]
        expected = logits.log_softmax(-1)[range(len(heard.label)), list(heard.label)]
        assert found.log_probs[row] == pytest.approx(expected.numpy(), abs=1e-4)
        assert found.right[row].tolist() == (logits.argmax(-1) == torch.tensor(heard.label)).tolist()
    assert np.abs(found.log_probs[0] - found.log_probs[2]).max() > 1e-3


def test_an_edit_that_does_nothing_costs_nothing(heard) -> None:
    costs = ce_costs([heard], {"nothing": lambda x: x, "half": lambda x: 0.5 * x}, n_resamples=5)
    assert costs["nothing"].value == pytest.approx(0, abs=1e-6)
    assert abs(costs["half"].value) > 1e-4


def test_words_on_sounds_are_counted(model) -> None:
    sounds = [sound(seed, 8000) for seed in range(2)]
    plain = writes_words(model, SITE, sounds)
    assert writes_words(model, SITE, sounds, lambda x: x) == plain
    assert share([True, False, True, True], n_resamples=20).value == 0.75
