"""A decoder that remembers: its logits are the model's, and a draft changes what is computed, not what is written."""

import numpy as np
import pytest
import torch

import otoscope
from otoscope.models.writer import Writer
from tests.methods import tiny_sentences


@pytest.fixture(scope="module")
def model():
    return tiny_sentences.model()


def encoded(model, clip):
    with torch.no_grad():
        return model.hf.model.encoder(model.inputs(clip, tokens=model.prompt()).features).last_hidden_state


def test_logits_are_those_of_the_model_in_any_order(model):
    clip = tiny_sentences.clip(0)
    writer = Writer(model.hf, encoded(model, clip))
    prompt = model.prompt()
    for text in ([5, 9, 7], [5, 9, 7, 8], [5, 3], [], [5, 3, 4, 4]):
        expected = model.run(model.inputs(clip, tokens=[*prompt, *text])).logits[0]
        got = writer.logits([*prompt, *text], len(prompt) - 1)
        assert torch.allclose(got, expected[len(prompt) - 1 :], atol=1e-5)


@pytest.mark.parametrize("seed", [0, 2, 3])
def test_a_draft_changes_nothing_that_is_written(model, seed):
    clip = tiny_sentences.clip(seed)
    states, prompt = encoded(model, clip), model.prompt()
    end = model.hf.config.eos_token_id
    plain = [t for t in model.generate(model.inputs(clip), max_new_tokens=40)[0] if t < end]
    whole = Writer(model.hf, states).write(prompt, most=40)
    assert whole == plain
    other = np.random.default_rng(seed).integers(0, 10, 12).tolist()
    for draft in (whole, whole[:4], [*whole[:5], *other, *whole[7:]], whole[2:], other):
        writer = Writer(model.hf, states)
        assert writer.write(prompt, draft, most=40) == whole
        assert writer.write(prompt, draft, most=40) == whole


def test_a_right_draft_is_read_in_one_pass(model, monkeypatch):
    writer = Writer(model.hf, encoded(model, tiny_sentences.clip(0)))
    whole = writer.write(model.prompt(), most=30)
    calls = []
    plain = writer.logits
    monkeypatch.setattr(writer, "logits", lambda *given: calls.append(1) or plain(*given))
    assert writer.write(model.prompt(), whole, most=30) == whole
    assert len(calls) == 1


@pytest.mark.weights
@pytest.mark.data
def test_it_writes_what_whisper_writes(whisper_tiny_en, shared_data):
    model = otoscope.load(whisper_tiny_en)
    clip = otoscope.read(shared_data / "librispeech" / "777-126732-0034.flac", rate=16000)
    states, end = encoded(model, clip), model.hf.generation_config.eos_token_id
    for context in ("", "I do not say that, protested Michaelis."):
        inputs = model.ask(clip, context=context).inputs
        plain = [t for t in model.generate(inputs, max_new_tokens=60)[0] if t < end]
        draft = model.tokenizer(" I don't say that, protested Michaelis gently.").input_ids
        assert Writer(model.hf, states).write(inputs.tokens[0].tolist(), draft, most=60) == plain
