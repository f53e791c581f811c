"""Behaviour with rebuilt frames: all of it with the frames themselves, none of it with zeros, and between."""

from __future__ import annotations

import pytest
import torch

import otoscope
from otoscope.audio.clip import Clip
from otoscope.sae.measures.behaviour import behaviour, cross_entropy, n_valid, plain
from tests.cli.folder import save_tiny_whisper
from tests.tiny import sound

SITE = "encoder.0.resid_post"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return otoscope.load(str(save_tiny_whisper(tmp_path_factory.mktemp("model"))))


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return [sound(seed, 8000) for seed in range(2)]


TEXTS = ["one", "two two"]


def test_the_frames_themselves_keep_everything_and_zeros_nothing(model, clips) -> None:
    before = plain(model, SITE, clips, TEXTS)
    same = behaviour(model, SITE, clips, TEXTS, before, lambda x: x, n_resamples=20)
    assert same.wer_delta.value == 0
    assert same.ce_delta.value == pytest.approx(0, abs=1e-6)
    assert same.wer.value == pytest.approx(sum(p.errors for p in before) / sum(p.words for p in before))
    gone = behaviour(model, SITE, clips, TEXTS, before, torch.zeros_like, n_resamples=20)
    own, zeroed, tokens = (sum(p[i] for p in before) for i in (3, 4, 5))
    assert gone.ce_delta.value == pytest.approx((zeroed - own) / tokens, abs=1e-5)
    assert abs(zeroed - own) > 1e-3


def test_recovered_is_1_for_the_frames_themselves_and_0_for_zeros(model, clips) -> None:
    """With the zeroed run put 2 nats above the untouched one, as a model that has learnt something would have it."""
    before = [p._replace(zeroed=p.own + 2.0) for p in plain(model, SITE, clips[:1], TEXTS[:1])]
    same = behaviour(model, SITE, clips[:1], TEXTS[:1], before, lambda x: x, n_resamples=5)
    assert same.ce_recovered.value == pytest.approx(1, abs=1e-5)
    after = behaviour(model, SITE, clips[:1], TEXTS[:1], before, torch.zeros_like, n_resamples=5)
    assert after.ce_recovered.value == pytest.approx(1 - after.ce_delta.value * before[0].tokens / 2, abs=1e-4)


def test_only_frames_of_the_sound_are_rebuilt(model, clips) -> None:
    seen = []
    before = plain(model, SITE, clips[:1], TEXTS[:1])
    behaviour(model, SITE, clips[:1], TEXTS[:1], before, lambda x: seen.append(len(x)) or x, n_resamples=5)
    assert set(seen) == {n_valid(model, SITE, clips[0])} == {25}


def test_cross_entropy_is_the_loss_of_the_bare_model(model, clips) -> None:
    found, n = cross_entropy(model, clips[0], "one")
    label = model.tokenizer(" one", add_special_tokens=False).input_ids
    prompt = model.adapter.prompt("en")
    inputs = model.inputs(clips[0], tokens=[*prompt, *label])
    with torch.no_grad():
        logits = model.hf(input_features=inputs.features, decoder_input_ids=inputs.tokens).logits
    rows = logits[0, len(prompt) - 1 : len(prompt) - 1 + len(label)]
    expected = torch.nn.functional.cross_entropy(rows, torch.tensor(label), reduction="sum")
    assert found == pytest.approx(float(expected), rel=1e-4)
    assert n == len(label)
    assert cross_entropy(model, clips[0], "") == (0.0, 0)
