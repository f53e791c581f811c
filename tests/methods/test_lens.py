"""The logit lens: closed form, planted saturation layer, untrained null, bad input, real weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as tf

import otoscope
from otoscope.engine.intervene import replace_with
from otoscope.errors import ModelError, TaskError
from otoscope.methods.lens import logit_lens, saturation_layer
from otoscope.models.language import LanguageAdapter
from tests import tiny

DECODERS = ["whisper", "llama", "qwen2", "qwen3"]


def silence_layers_from(model: otoscope.Model, first: int) -> None:
    """Zero what every layer from ``first`` on writes into the residual stream."""
    trunk = model.hf.model.decoder if model.family == "whisper" else model.hf.model
    with torch.no_grad():
        for layer in list(trunk.layers)[first:]:
            for name, part in layer.named_modules():
                if name.split(".")[-1] in ("out_proj", "o_proj", "fc2", "down_proj"):
                    for parameter in part.parameters():
                        parameter.zero_()


@pytest.mark.parametrize("family", DECODERS)
def test_last_layer_is_the_models_own_answer(family: str) -> None:
    model = tiny.build(family, torch.float64)
    inputs, _ = tiny.pair(model)
    lens = logit_lens(model, inputs, answer=7, foil=9)
    logits = model.run(inputs).logits[0]
    assert lens.agreement < 1e-10
    assert np.array_equal(lens.top1[-1], logits.argmax(-1).numpy())
    assert np.allclose(lens.answer.logit[-1], logits[:, 7], atol=1e-10)
    assert np.allclose(lens.answer.log_prob[-1], logits.log_softmax(-1)[:, 7], atol=1e-10)
    assert np.allclose(lens.logit_diff[-1], logits[:, 7] - logits[:, 9], atol=1e-10)
    assert np.array_equal(lens.answer.rank[-1], (logits > logits[:, 7:8]).sum(-1).numpy())
    assert np.allclose(lens.entropy[-1], torch.distributions.Categorical(logits=logits).entropy(), atol=1e-10)
    assert np.all(lens.kl[-1] < 1e-10)
    assert np.all(lens.kl[:-1] > 1e-3)


def test_a_middle_layer_by_hand() -> None:
    model = tiny.build("llama", torch.float64)
    inputs, _ = tiny.pair(model)
    lens = logit_lens(model, inputs)
    state = model.capture(inputs, "decoder.1.resid_post")["decoder.1.resid_post"]
    with torch.no_grad():
        log_p = model.hf.lm_head(model.hf.model.norm(state))[0].log_softmax(-1)
    final = model.run(inputs).logits[0].log_softmax(-1)
    assert np.array_equal(lens.top1[1], log_p.argmax(-1).numpy())
    assert np.allclose(lens.kl[1], (final.exp() * (final - log_p)).sum(-1), atol=1e-10)
    # without an answer, the final most likely token is followed
    assert np.array_equal(lens.answer.token, lens.top1[-1])
    assert np.all(lens.answer.rank[-1] == 0)


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("decided", [0, 1])
def test_planted_saturation_layer(family: str, decided: int) -> None:
    """Layers after ``decided`` write nothing, and ``decided`` itself writes one answer far louder than all before it."""
    model = tiny.build(family, torch.float64)
    silence_layers_from(model, decided + 1)
    inputs, _ = tiny.pair(model)
    target = 17
    planted = 1e3 * model.hf.get_output_embeddings().weight[target].detach()
    # the loudest direction of a token need not win under a norm with gain; ask the head itself
    winner = int(model.adapter.unembed(model.adapter.final("decoder", planted[None, None]))[0, 0].argmax())
    before = logit_lens(model, inputs)
    assert winner not in before.top1[decided - 1 : decided], "the planted token must be news to the layer before"
    lens = logit_lens(model, inputs, interventions=[replace_with(f"decoder.{decided}.resid_post", planted[None, None])])
    assert np.all(lens.top1[decided:] == winner)
    assert np.all(lens.saturation == decided)
    assert np.allclose(lens.kl[decided:], 0, atol=1e-10)
    assert np.all(lens.answer.prob[decided:] > 0.5)


def test_saturation_by_definition() -> None:
    top1 = np.array([[5, 1, 2, 3], [4, 1, 9, 3], [5, 1, 2, 8], [5, 1, 2, 3]])
    #   changes back to 5 at layer 2; never changes; leaves its first choice and returns; decided by the last layer
    assert saturation_layer(top1).tolist() == [2, 0, 2, 3]


@pytest.mark.parametrize("family", DECODERS)
def test_untrained_weights_decide_nothing(family: str) -> None:
    """With the library's own initial weights no layer prefers anything: nearly uniform, however early it 'saturates'."""
    torch.manual_seed(0)
    trained = tiny.build(family)
    hf = type(trained.hf)(trained.hf.config)
    model = otoscope.Model(type(trained.adapter)(hf, "untrained", None, trained.feature_extractor))
    lens = logit_lens(model, tiny.pair(trained)[0])
    uniform = np.log(50)
    assert np.all(lens.entropy > 0.95 * uniform)
    assert np.all(lens.top1_prob < 0.1)
    assert np.all(lens.kl < 0.2)


def test_answers_may_differ_per_position() -> None:
    model = tiny.build("llama")
    inputs, _ = tiny.pair(model, n_tokens=5)
    one = logit_lens(model, inputs, answer=[4, 5, 6, 7, 8])
    for position, token in enumerate([4, 5, 6, 7, 8]):
        same = logit_lens(model, inputs, answer=token)
        assert np.allclose(one.answer.logit[:, position], same.answer.logit[:, position])
    assert one.foil is None
    with pytest.raises(TaskError, match="foil="):
        _ = one.logit_diff


def test_long_texts_are_read_in_chunks() -> None:
    model = tiny.build("llama", torch.float64)
    inputs = model.inputs(tokens=np.random.default_rng(0).integers(4, 50, 60).tolist())
    lens = logit_lens(model, inputs)
    log_p = model.run(inputs).logits[0].log_softmax(-1)
    assert np.allclose(lens.answer.log_prob[-1], log_p.max(-1).values, atol=1e-10)
    assert lens.agreement < 1e-10


def test_table_is_plain_and_complete() -> None:
    model = tiny.build("whisper")
    inputs, _ = tiny.pair(model, n_tokens=4)
    rows = logit_lens(model, inputs, answer=7, foil=9).table()
    assert len(rows) == 3 * 4
    assert json.loads(json.dumps(rows)) == rows
    assert all(row["saturated"] for row in rows if row["layer"] == 2)
    assert rows[0]["answer_text"] == "<7>"


def test_bad_input_gets_one_sentence() -> None:
    model = tiny.build("llama")
    inputs, _ = tiny.pair(model)
    with pytest.raises(TaskError, match="same token"):
        logit_lens(model, inputs, answer=7, foil=7)
    with pytest.raises(TaskError, match="no token 50"):
        logit_lens(model, inputs, answer=50)
    with pytest.raises(TaskError, match="2 tokens for 7 positions"):
        logit_lens(model, inputs, answer=[4, 5])
    with pytest.raises(ModelError, match="no tokenizer"):
        logit_lens(model, inputs, answer="word")
    with pytest.raises(TaskError, match="2 item"):
        logit_lens(model, type(inputs).stack([inputs, inputs]))
    speech = tiny.build("wav2vec2-ctc")
    with pytest.raises(ModelError, match="ctc_lens"):
        logit_lens(speech, speech.inputs(tiny.sound(0)))


def test_a_head_that_is_not_the_unembedding_is_refused() -> None:
    """A model that scales its logits would be misread at every layer, so the agreement check must fail."""

    class Scaled(tf.LlamaForCausalLM):
        def forward(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            output = super().forward(*args, **kwargs)
            output.logits = 0.5 * output.logits  # type: ignore[operator]
            return output

    model = tiny.build("llama")
    scaled = Scaled(model.hf.config)
    scaled.load_state_dict(model.hf.state_dict())
    with pytest.raises(ModelError, match="not the unembedding"):
        logit_lens(otoscope.Model(LanguageAdapter(scaled, "scaled")), tiny.pair(model)[0])


@pytest.mark.weights
@pytest.mark.data
def test_real_whisper_hears_country(shared_data: Path, whisper_tiny_en: Path) -> None:
    model = otoscope.load(str(whisper_tiny_en))
    clip = otoscope.read(shared_data / "recordings/jfk.flac", 16000)
    inputs = model.inputs(clip, text="And so my fellow Americans ask not what your")
    lens = logit_lens(model, inputs, answer="country", foil="company")
    assert lens.agreement < 1e-3
    assert lens.texts[int(lens.top1[-1, -1])] == " country"
    assert lens.answer.rank[-1, -1] == 0
    assert lens.logit_diff[-1, -1] > 1
    # the input token itself cannot be the answer already at the first layer everywhere: hearing takes layers
    assert lens.saturation.max() > 0
    with pytest.raises(TaskError, match="same token"):
        logit_lens(model, inputs, answer="country", foil="country's")


@pytest.mark.weights
def test_real_language_model(smollm2: Path) -> None:
    model = otoscope.load(str(smollm2))
    lens = logit_lens(model, model.inputs(text="The capital of France is"), answer="Paris", foil="London")
    assert lens.agreement < 1e-3
    assert lens.answer.rank[-1, -1] < 3
    assert lens.logit_diff[-1, -1] > 0
    assert lens.saturation[-1] > 0
