"""Evidence of an error: exact margins, exchanges that touch the span alone, and renderings that fit into it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from otoscope.engine.intervene import replace_with
from otoscope.methods.error_evidence import (
    MARGIN,
    encode,
    exchanged,
    gather_evidence,
    make_arms,
    margins,
    neutral_prompt,
    prompt_tokens,
    rendering,
)
from otoscope.tasks.planted_errors import hear
from tests.methods import tiny_sentences

SPAN = (0.2, 0.4)


@pytest.fixture(scope="module")
def model():
    return tiny_sentences.model()


def test_a_margin_is_that_of_the_whole_model(model):
    clips = [tiny_sentences.clip(seed) for seed in (0, 1)]
    tokens = [*model.prompt(), 5, 9]
    read = margins(model, encode(model, clips), tokens, 7, 8)
    for clip, got in zip(clips, read):
        logits = model.run(model.inputs(clip, tokens=tokens)).logits[0, -1]
        assert got == pytest.approx(float(logits[7] - logits[8]), abs=1e-4)


def test_exchanging_the_span_is_patching_the_last_encoder_layer_there(model):
    clip, other = tiny_sentences.clip(0), tiny_sentences.clip(1)
    states = encode(model, [clip, other])
    mixed = exchanged(model, states[0], states[1:], clip, SPAN)
    tokens = [*model.prompt(), 5, 9]
    last = f"encoder.{model.stacks['encoder'].n_layers - 1}.resid_post"
    inputs = model.inputs(clip, tokens=tokens)
    frames = model.clock("encoder", inputs.n_samples[0]).frames(SPAN[0] - MARGIN, SPAN[1] + MARGIN)
    donor = model.capture(model.inputs(other), last)[last]
    hooked = model.run(inputs, [replace_with(last, donor, positions=tuple(frames))]).logits[0, -1]
    assert margins(model, mixed, tokens, 7, 8)[0] == pytest.approx(float(hooked[7] - hooked[8]), abs=1e-4)
    outside = [f for f in range(states.shape[1]) if f not in frames]
    assert torch.equal(mixed[0, outside], states[0, outside])
    # the null: a donor that is the base changes nothing
    assert torch.equal(exchanged(model, states[0], states[:1], clip, SPAN)[0], states[0])


def test_arms_differ_from_the_sentence_in_the_span_alone():
    clip = tiny_sentences.clip(0)
    arms = make_arms(clip, SPAN, "bear", "bare")
    assert len(arms.none) == 2
    assert len(arms.said) == len(arms.written) > 0
    inside = clip.span_samples(*SPAN)
    for made in (*arms.none, *arms.said, *arms.written):
        same = made.samples == clip.samples
        assert same[: inside.start].all()
        assert same[inside.stop :].all()
        assert not same[inside].all()
    # what a voice says there is as loud as what was there
    level = np.sqrt(np.mean(np.square(arms.said[0].samples[inside])))
    assert level == pytest.approx(np.sqrt(np.mean(np.square(clip.samples[inside]))), rel=0.1)
    assert arms.alone.duration == pytest.approx(SPAN[1] - SPAN[0] + 2 * MARGIN, abs=1e-3)


def test_words_put_into_a_gap_are_as_loud_as_the_rest():
    clip = tiny_sentences.clip(0)
    inside = clip.span_samples(*SPAN)
    gap = clip.samples.copy()
    gap[inside] = 0.0
    arms = make_arms(clip.replace(samples=gap), SPAN, "bear", "bare")
    level = np.sqrt(np.mean(np.square(arms.said[0].samples[inside])))
    assert level == pytest.approx(np.sqrt(np.mean(np.square(np.delete(gap, np.r_[inside])))), rel=0.2)


def test_there_is_no_rendering_of_no_words():
    arms = make_arms(tiny_sentences.clip(0), SPAN, "", "--")
    assert arms.said == arms.written == ()


@pytest.mark.parametrize("seconds", [0.15, 0.4, 1.2])
def test_a_rendering_can_be_stretched_into_its_span(seconds):
    spoken = rendering("seventeen", "en-us", "espeak", seconds)
    assert 0.5 <= spoken.duration / seconds <= 2.0


def test_a_neutral_text_is_as_long_as_the_one_it_stands_for(model):
    context = "the cat sat on the mat"
    given, neutral = prompt_tokens(model, context), neutral_prompt(model, context)
    assert len(given) == len(neutral)
    assert given != neutral
    n = len(model.prompt())
    assert given[-n:] == neutral[-n:] == model.prompt()
    assert given[0] == neutral[0]
    assert prompt_tokens(model, " ") == neutral_prompt(model, "") == model.prompt()


def test_evidence_of_a_transcript_says_what_was_written(model):
    clip = tiny_sentences.clip(0, text="the cat sat")
    heard = hear(model, clip, context="the mat")
    (error, *_) = heard.found.errors
    found = gather_evidence(model, clip, heard.found, error, heard.words, context="the mat")
    assert found is not None
    at = len(found.before)
    assert heard.tokens[:at] == found.before
    assert heard.tokens[at] == found.written
    # greedy decoding preferred it
    assert found.margin > 0
    assert 0 <= found.span[0] < found.span[1] <= clip.duration
    assert found.without_context is not None
    assert found.neutral_context is not None
    logits = model.run(model.inputs(clip, tokens=[*model.prompt(), *found.before])).logits[0, -1]
    assert found.without_context == pytest.approx(float(logits[found.written] - logits[found.said]), abs=1e-3)


def test_what_no_verdict_hangs_on_can_be_left_out(model):
    clip = tiny_sentences.clip(0, text="the cat sat")
    heard = hear(model, clip, context="the mat")
    error, given = heard.found.errors[0], {"writer": heard.writer, "context": "the mat"}
    full = gather_evidence(model, clip, heard.found, error, heard.words, **given)
    assert full is not None
    asked = []
    first = gather_evidence(model, clip, heard.found, error, heard.words, settled=lambda e: True, **given)
    assert first is not None
    assert first == replace(full, none=(), rendered_said=(), rendered_written=(), alone=None, margin=first.margin)
    assert first.margin == pytest.approx(full.margin, abs=1e-4)
    later = gather_evidence(
        model, clip, heard.found, error, heard.words, settled=lambda e: asked.append(e) or bool(e.none), **given
    )
    assert later is not None
    assert [bool(e.none) for e in asked] == [False, True]
    assert (later.rendered_written, later.alone) == ((), None)
    last = gather_evidence(model, clip, heard.found, error, heard.words, settled=lambda e: False, **given)
    assert last is not None
    assert last.alone is None
    for name in ("none", "rendered_said", "rendered_written"):
        assert getattr(last, name) == pytest.approx(getattr(full, name), abs=1e-4)
