"""Planted errors on a real sentence: what is spoilt, and that nothing else is; plants that cannot be made are refused."""

from dataclasses import replace

import pytest
import torch

import otoscope
from otoscope.audio.align import align
from otoscope.errors import TaskError
from otoscope.models.asr_errors import compare
from otoscope.tasks.planted_errors import ACOUSTIC, PRIOR, hear, plant

pytestmark = [pytest.mark.weights, pytest.mark.data]
TEXT = "I WAS DELIGHTED WITH THE COUNTRY AND THE MANNER OF LIFE"


@pytest.fixture(scope="module")
def model(whisper_tiny_en):
    return otoscope.load(whisper_tiny_en)


@pytest.fixture(scope="module")
def healthy(model, shared_data):
    folder = shared_data / "librispeech"
    clip = otoscope.read(folder / "2412-153948-0005.flac", rate=16000).replace(text=TEXT, name="sentence")
    return hear(model, align(clip))


def test_content_words_that_are_right_can_be_spoilt(healthy):
    assert [healthy.found.said[i] for i in healthy.usable()] == ["DELIGHTED", "COUNTRY", "MANNER"]


def test_words_beside_an_error_are_left_alone(healthy):
    # "the" is taken out of the reference before COUNTRY, so that it is an insertion there
    spans = healthy.clip.words
    clip = healthy.clip.replace(text=TEXT.replace("THE COUNTRY", "COUNTRY"), words=(*spans[:4], *spans[5:]))
    found = compare(clip.text, healthy.found.written)
    assert [e.kind for e in found.errors] == ["insertion"]
    usable = replace(healthy, clip=clip, found=found).usable()
    assert [found.said[i] for i in usable] == ["DELIGHTED", "MANNER"]


@pytest.mark.parametrize("how", ["noise", "silence", "mixed", "context", "bias"])
def test_one_word_goes_wrong_for_the_reason_that_was_planted(model, healthy, how):
    word = 8  # MANNER
    done = plant(model, healthy, word, how)
    assert done is not None
    assert done.prior == (how in PRIOR)
    assert (how in ACOUSTIC) != done.prior
    inside = healthy.clip.span_samples(*done.span)
    same = done.sentence.clip.samples == healthy.clip.samples
    assert same[: inside.start].all()
    assert same[inside.stop :].all()
    assert same.all() == done.prior
    assert bool(done.sentence.context) == (how == "context")
    wrong = [e for e in done.sentence.found.errors if e.said_at[0] <= word < max(e.said_at[1], 1)]
    assert bool(wrong) == done.changed
    assert len(done.sentence.found.errors) == len(wrong)
    weights = model.hf.proj_out.weight.detach().clone()
    with done.in_force(model):
        # as the model itself writes it, without any draft
        inputs = model.ask(done.sentence.clip, context=done.sentence.context).inputs
        end = model.hf.generation_config.eos_token_id
        assert tuple(t for t in model.generate(inputs, max_new_tokens=200)[0] if t < end) == done.sentence.tokens
        assert (how == "bias") == bool((model.hf.proj_out.weight != weights).any())
    assert torch.equal(model.hf.proj_out.weight.detach(), weights)


def test_a_bias_makes_the_other_word_be_written(model, healthy):
    done = plant(model, healthy, 8, "bias")
    assert done is not None
    assert done.changed
    (error,) = done.sentence.found.errors
    # one word, such as "manor"
    assert error.written == (done.other,)
    assert done.other.isalpha()


def test_another_word_in_its_place_needs_donors(model, healthy):
    assert plant(model, healthy, 5, "word") is None


def test_what_cannot_be_planted_is_refused(model, healthy):
    with pytest.raises(TaskError, match="choose one of noise"):
        plant(model, healthy, 5, "hum")  # type: ignore[arg-type]
    with pytest.raises(TaskError, match="word 0 of"):
        plant(model, healthy, 0, "noise")
