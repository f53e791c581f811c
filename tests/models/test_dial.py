"""The dial: a LoRA adapter's change added to plain weights equals the adapter itself, in any mixture, and comes off again."""

from __future__ import annotations

import copy
import json

import pytest
import torch

from otoscope.errors import ModelError
from otoscope.models.dial import Dial
from tests.tiny import build, pair

peft = pytest.importorskip("peft")

TARGETS = r".*\.(q_proj|o_proj)"


@pytest.fixture(scope="module")
def model():
    return build("llama")


def adapter(model, folder, seed, **settings):
    """A LoRA adapter with random weights, written by peft; returns the logits of peft's own model with it."""
    torch.manual_seed(seed)
    config = peft.LoraConfig(r=3, lora_alpha=5, target_modules=TARGETS, **settings)
    wrapped = peft.get_peft_model(copy.deepcopy(model.hf), config)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.3)
    wrapped.save_pretrained(folder)
    inputs = pair(model)[0]
    with torch.no_grad():
        return wrapped(input_ids=inputs.tokens).logits


def logits(model):
    return model.run(pair(model)[0]).logits


def test_a_whole_share_is_the_adapter_as_peft_runs_it(model, tmp_path):
    expected = adapter(model, tmp_path, 1)
    dial = Dial(model, {"one": tmp_path})
    plain = logits(model)
    assert (expected - plain).abs().max() > 0.1
    dial.set(one=1.0)
    assert (logits(model) - expected).abs().max() < 1e-4
    dial.off()
    assert torch.equal(logits(model), plain)


def test_rank_stabilised_scaling_is_peft_s(model, tmp_path):
    expected = adapter(model, tmp_path, 2, use_rslora=True)
    dial = Dial(model, {"one": tmp_path})
    dial.set(one=1.0)
    assert (logits(model) - expected).abs().max() < 1e-4
    dial.off()


def test_mixtures_add_both_changes(model, tmp_path):
    for name, seed in (("a", 3), ("b", 4)):
        adapter(model, tmp_path / name, seed)
    dial = Dial(model, {"a": tmp_path / "a", "b": tmp_path / "b"})
    layer = model.hf.model.layers[0].self_attn.q_proj
    own = layer.weight.clone()
    dial.set(a=1.0)
    change_a = layer.weight - own
    dial.set(b=1.0)
    change_b = layer.weight - own
    dial.set(a=0.25, b=0.75)
    assert torch.allclose(layer.weight, own + 0.25 * change_a + 0.75 * change_b, atol=1e-6)
    dial.off()
    assert torch.equal(layer.weight, own)


def test_an_unknown_name_is_named(model, tmp_path):
    adapter(model, tmp_path, 5)
    with pytest.raises(ModelError, match="no adapter 'two': it has one"):
        Dial(model, {"one": tmp_path}).set(two=1.0)


def test_what_is_no_adapter_is_refused(model, tmp_path):
    with pytest.raises(ModelError, match="holds no adapter that can be read"):
        Dial(model, {"one": tmp_path / "nowhere"})
    adapter(model, tmp_path, 6)
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**settings, "peft_type": "IA3"}))
    with pytest.raises(ModelError, match="no plain LoRA adapter"):
        Dial(model, {"one": tmp_path})


def test_an_adapter_of_another_model_is_refused(model, tmp_path):
    adapter(model, tmp_path, 7)
    with pytest.raises(ModelError, match="for another model"):
        Dial(build("whisper"), {"one": tmp_path})
