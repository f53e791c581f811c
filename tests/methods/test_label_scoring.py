"""Scores of whole labels, against one plain forward per label."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from otoscope.engine.intervene import scale
from otoscope.engine.model import Model
from otoscope.errors import ModelError, TaskError
from otoscope.methods.label_scoring import answer, answers, end_tokens, match, score_labels
from tests.tasks.conflict_clips import tiny_asr
from tests.tiny import AUDIO_LLM, build, sound

QUESTION, CONTEXT = "What word was said?", "Is it no?"
#: several lengths, shared beginnings ("seven", "set", "se"), one label that begins others
LABELS = ("no", "seven", "set", "se", "w", "a word")


@pytest.fixture(scope="module")
def model() -> Model:
    return build("qwen2_audio")


@pytest.fixture(scope="module")
def asr() -> Model:
    return tiny_asr()


def prompts(model: Model, n: int = 5) -> list:
    """Items of two lengths, with and without context."""
    return [
        model.ask(sound(i), QUESTION if model.listens_and_reads else "", CONTEXT if i % 2 else "") for i in range(n)
    ]


def naive(model: Model, clip, context: str, label: str, ended: bool) -> float:
    """One forward over prompt and label, the label appended by the adapter itself."""
    question = QUESTION if model.listens_and_reads else ""
    asked = model.ask(clip, question, context, answer=label)
    tokens = model.label_tokens(label)
    logits = model.run(asked.inputs).logits[0].double().log_softmax(-1)
    positions = asked.groups["answer"]
    assert len(positions) == len(tokens)
    total = sum(logits[p, t] for p, t in zip(positions, tokens))
    if ended:
        total = total + logits[positions[-1] + 1, list(end_tokens(model))].logsumexp(-1)
    return float(total)


@pytest.mark.parametrize("family", [*AUDIO_LLM, "whisper"])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 5e-5), (torch.float64, 1e-9)])
@pytest.mark.parametrize("ends", ["where needed", "all"])
def test_scores_equal_one_forward_per_label(family, dtype, close, ends):
    asked = tiny_asr() if family == "whisper" else build(family)
    asked.hf.to(dtype)
    found = score_labels(asked, prompts(asked), LABELS, ends=ends, batch_size=2)
    expected = [
        [naive(asked, sound(i), CONTEXT if i % 2 else "", label, ends == "all" or label == "se") for label in LABELS]
        for i in range(5)
    ]
    assert found.shape == (5, len(LABELS))
    assert np.abs(found - np.array(expected)).max() < close
    # items differ in sound (0, 2) and in context (0, 1), so a mix-up of them would show
    assert np.abs(found[0] - found[2]).max() > 5 * close
    assert np.abs(found[0] - found[1]).max() > 5 * close


def test_labels_of_one_token_need_one_forward_per_batch_and_others_no_further_one(model):
    calls: list[tuple[int, ...]] = []
    handle = model.adapter.stack_module("decoder").register_forward_pre_hook(
        lambda _module, _args, kwargs: calls.append(tuple(kwargs["inputs_embeds"].shape[:2])), with_kwargs=True
    )
    try:
        asked = [model.ask(sound(i), QUESTION) for i in range(6)]
        length = asked[0].inputs.tokens.shape[1]
        single = score_labels(model, asked, ["w", "a"], batch_size=4)
        assert calls == [(4, length), (2, length)]
        several = score_labels(model, asked, ["w", "a", "seven"], batch_size=6)
        assert calls[2:] == [(6, length)]
    finally:
        handle.remove()
    assert several[:, :2] == pytest.approx(single, abs=1e-5)


def test_the_difference_of_labels_of_one_token_is_that_of_their_logits(model):
    asked = model.ask(sound(1), QUESTION, CONTEXT)
    (scores,) = score_labels(model, asked, ["w", "a"])
    logits = model.run(asked.inputs).logits[0, -1]
    (w,), (a,) = model.label_tokens("w"), model.label_tokens("a")
    assert scores[0] - scores[1] == pytest.approx(float(logits[w] - logits[a]), abs=1e-5)


def test_a_label_that_begins_another_gets_only_its_own_share(model):
    asked = model.ask(sound(1), QUESTION)
    scores = np.exp(score_labels(model, asked, ["se", "set", "seven"])[0])
    (whole,) = np.exp(score_labels(model, asked, ["se"])[0])
    # the answers that begin with "se" are "se" itself, those that go on, and others; without an end, "se" takes all
    assert scores.sum() < whole
    all_ends = np.exp(score_labels(model, asked, ["se", "set", "seven"], ends="all")[0])
    assert all_ends[0] == pytest.approx(scores[0], rel=1e-4)
    assert (all_ends[1:] < scores[1:]).all()


def test_ends_of_several_kinds_are_added(model, monkeypatch):
    asked = model.ask(sound(1), QUESTION)
    one = np.exp(score_labels(model, asked, ["w"], ends="all"))
    monkeypatch.setattr(model.hf.generation_config, "eos_token_id", [0])
    other = np.exp(score_labels(model, asked, ["w"], ends="all"))
    monkeypatch.setattr(model.hf.generation_config, "eos_token_id", [2, 0])
    assert end_tokens(model) == (2, 0)
    assert np.exp(score_labels(model, asked, ["w"], ends="all")) == pytest.approx(one + other, rel=1e-4)


def test_prompts_are_asked_here_where_they_were_not_and_a_sound_may_be_missing(model):
    clip = sound(2)
    asked = score_labels(model, [model.ask(clip, QUESTION, CONTEXT), model.ask(None, QUESTION, CONTEXT)], LABELS)
    given = score_labels(model, [(clip, QUESTION, CONTEXT), (None, QUESTION, CONTEXT)], LABELS)
    assert np.array_equal(asked, given)
    assert np.abs(asked[0] - asked[1]).max() > 1e-3
    assert np.array_equal(score_labels(model, (clip, QUESTION, CONTEXT), LABELS), given[:1])
    for label, value in zip(LABELS, asked[1]):
        assert value == pytest.approx(naive(model, None, CONTEXT, label, label == "se"), abs=2e-5)


def test_interventions_are_in_force_for_prompt_and_label(model):
    asked = [model.ask(sound(i), QUESTION) for i in range(2)]
    plain = score_labels(model, asked, LABELS)
    nothing = score_labels(model, asked, LABELS, interventions=[scale("decoder.1.resid_pre", 1.0)])
    assert nothing == pytest.approx(plain, abs=2e-5)
    change = scale("decoder.*.mlp_out", 0.5)
    found = score_labels(model, asked, LABELS, interventions=[change])
    assert np.abs(found - plain).max() > 0.1
    with model.intervene(change):
        expected = [[naive(model, sound(i), "", label, label == "se") for label in LABELS] for i in range(2)]
    assert found == pytest.approx(np.array(expected), abs=2e-5)


def test_answers_are_what_the_most_likely_tokens_spell(model):
    asked = [model.ask(sound(i), QUESTION, CONTEXT if i % 2 else "") for i in range(4)]
    end = end_tokens(model)
    expected = []
    for one in asked:
        tokens, new = one.inputs.tokens[0].tolist(), []
        while len(new) < 5 and not (new and new[-1] in end):
            new.append(int(model.run(one.inputs.with_tokens([*tokens, *new])).logits[0, -1].argmax()))
        expected.append(model.tokenizer.decode(new, skip_special_tokens=True).strip())
    assert answers(model, asked, max_new_tokens=5, batch_size=3) == expected
    assert answer(model, asked[1], max_new_tokens=5) == expected[1]
    assert answer(model, (sound(0), QUESTION, ""), max_new_tokens=5) == expected[0]
    changed = answers(model, asked, max_new_tokens=5, interventions=[scale("decoder.*.mlp_out", 0.0)])
    assert changed != expected


def test_an_answer_is_a_label_only_as_a_whole():
    assert match(" Seven. ", ["six", "seven"]) == "seven"
    assert match("SEA-WAVES", ["sea waves"]) == "sea waves"
    for none in ("It is seven.", "seventeen", "", "seven six"):
        assert match(none, ["six", "seven"]) == ""


def test_a_model_that_transcribes_writes_after_its_context(asr):
    before = asr.ask(sound(0), "", CONTEXT)
    assert len(before.groups["context"]) > 0
    written = answers(asr, [before, asr.ask(sound(0))], max_new_tokens=4)
    for text, context in zip(written, (CONTEXT, "")):
        assert text == answer(asr, (sound(0), "", context), max_new_tokens=4)
        assert CONTEXT not in text


def test_what_cannot_be_scored_is_refused(model, asr, monkeypatch):
    asked = model.ask(sound(1), QUESTION)
    with pytest.raises(TaskError, match="A prompt holds an answer already"):
        score_labels(model, model.ask(sound(1), QUESTION, answer="no way"), LABELS)
    with pytest.raises(TaskError, match="'no' and 'no' are the same tokens"):
        score_labels(model, asked, ["no", "up", "no"])
    with pytest.raises(TaskError, match="The label '' has no tokens"):
        score_labels(model, asked, ["no", ""])
    with pytest.raises(TaskError, match="ends is 'never'; give 'where needed' or 'all'"):
        score_labels(model, asked, LABELS, ends="never")  # type: ignore[arg-type]
    with pytest.raises(TaskError, match=r"Prompt and longest label have \d+ tokens and tiny-asr reads 32"):
        score_labels(asr, [(sound(0), "", "")], ["no", "no " * 20])
    with pytest.raises(ModelError, match="cannot be asked: expected an audio-LLM or a Whisper"):
        score_labels(build("llama"), [(None, QUESTION, "")], LABELS)
    monkeypatch.setattr("otoscope.methods.label_scoring.end_tokens", lambda _: ())
    with pytest.raises(ModelError, match="names no token that ends an answer, which the label 'se' needs"):
        score_labels(model, asked, ["se", "set"])
    assert np.isfinite(score_labels(model, asked, ["no", "up"])).all()
