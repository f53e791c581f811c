"""LoRA layers stay in force: in the forward, at every site, in the replay, and in generation."""

from __future__ import annotations

import numpy as np
import peft
import pytest
import torch
from torch import nn

import otoscope
from otoscope.engine.intervene import add
from otoscope.engine.metrics import LogitDiff
from otoscope.engine.patch import Patch
from otoscope.engine.sweep import sweep
from otoscope.errors import ModelError
from otoscope.models import linear as linears
from otoscope.models.inputs import Inputs
from otoscope.models.linear import fast_linears
from tests.tiny import build, pair

#: a family of each kind, and the linear layers that get a LoRA: attention and MLP, tower and connector, the head
TARGETS = {
    "qwen2_audio": ["q_proj", "v_proj", "o_proj", "out_proj", "fc1", "fc2", "down_proj", "gate_proj", "linear", "lm_head"],
    "qwen2_5_omni_thinker": ["q_proj", "k_proj", "out_proj", "o_proj", "proj", "up_proj"],
    "whisper": ["q_proj", "k_proj", "v_proj", "out_proj", "fc2"],
    "llama": ["q_proj", "v_proj", "o_proj", "down_proj", "lm_head"],
}  # fmt: skip


def wrapped(model, targets, seed=0):
    """A peft model around the same weights, its LoRA layers random instead of zero."""
    made = peft.get_peft_model(model.hf, peft.LoraConfig(r=2, lora_alpha=4, target_modules=targets))
    generator = torch.Generator().manual_seed(seed)
    for name, p in made.named_parameters():
        if "lora_" in name:
            p.data = 0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return made


@pytest.fixture(params=TARGETS)
def family(request):
    return request.param


@pytest.fixture
def plain(family):
    return build(family)


@pytest.fixture
def model(family):
    base = build(family)
    again = type(base.adapter)(
        wrapped(base, TARGETS[family]), base.name, base.tokenizer, base.feature_extractor
    )  # the adapter is given the peft model
    return otoscope.Model(again)


def merged(family):
    """The LoRA layers multiplied out into plain linear layers: another way to the same numbers."""
    base = build(family)
    hf = wrapped(base, TARGETS[family]).merge_and_unload()
    return otoscope.Model(type(base.adapter)(hf, base.name, base.tokenizer, base.feature_extractor))


def test_the_model_inside_is_the_librarys_with_its_lora_layers(model, plain, family):
    assert type(model.hf) is type(plain.hf)
    assert any(isinstance(m, peft.tuners.lora.LoraLayer) for m in model.hf.modules())
    inputs = Inputs.stack(list(pair(model)))
    expected = merged(family).run(inputs).logits
    assert (model.run(inputs).logits - expected).abs().max() < 1e-4
    assert (plain.run(inputs).logits - expected).abs().max() > 0.1


def test_every_site_holds_what_the_merged_model_holds(model, family):
    inputs = Inputs.stack(list(pair(model)))
    ours, theirs = model.capture(inputs, "*"), merged(family).capture(inputs, "*")
    for site in ours:
        assert (ours[site] - theirs[site]).abs().max() < 1e-4, site


def test_blocks_take_the_lora_layers_along(model, family):
    inputs = Inputs.stack(list(pair(model)))
    values = model.capture(inputs, "decoder.*")
    for layer, block in enumerate(model.adapter.blocks("decoder")):
        at = {p: values[f"decoder.{layer}.{p}"] for p in ("z", "attn_out", "resid_mid", "mlp_post", "mlp_out")}
        assert (block.attn.out(at["z"]) - at["attn_out"]).abs().max() < 1e-5
        assert (block.down(at["mlp_post"]) - at["mlp_out"]).abs().max() < 1e-5
        assert (block.mlp_neurons(at["resid_mid"]) - at["mlp_post"]).abs().max() < 1e-5


def test_a_sweep_equals_naive_hooks(model):
    clean, corrupt = pair(model)
    sites = [str(s) for s in model.sites("*.1.resid_pre,*.0.z,*.1.mlp_post,*.0.cross_pattern" if model.family == "whisper"
             else "*.1.resid_pre,*.0.z,*.1.mlp_post")]  # fmt: skip
    patches = [Patch(site, positions) for site in sites for positions in (None, (1,), (2, 4))]
    metric = LogitDiff(5, 7, model.run(clean).logits.shape[1] - 1)
    fast = sweep(model, corrupt, clean, patches, metric)
    slow = sweep(model, corrupt, clean, patches, metric, method="naive")
    assert np.abs(fast.values["logit_diff"] - slow.values["logit_diff"]).max() < 1e-4
    assert np.abs(slow.values["logit_diff"] - slow.base["logit_diff"]).max() > 1e-3


def test_fast_linears_leave_lora_layers_in_force(model, monkeypatch):
    monkeypatch.setenv("OTOSCOPE_ONEDNN", "1")
    linears.use_onednn.cache_clear()
    inputs = Inputs.stack(list(pair(model)))
    expected = model.run(inputs).logits
    with torch.no_grad(), fast_linears(model.hf):
        got = model.adapter.forward(inputs)
    linears.use_onednn.cache_clear()
    assert (got - expected).abs().max() < 1e-4
    assert not any("forward" in m.__dict__ for m in model.hf.modules() if type(m) is nn.Linear)


def test_generation_with_an_intervention_is_the_merged_models(model, family):
    inputs, other = pair(model)[0], merged(family)
    change = [add("decoder.1.resid_post", torch.linspace(-3, 3, 24))]
    model.hf.generation_config.eos_token_id = other.hf.generation_config.eos_token_id = None
    ours = model.generate(inputs, change, max_new_tokens=6)
    assert ours == other.generate(inputs, change, max_new_tokens=6)


def test_an_adapter_is_loaded_from_a_folder_a_name_beside_the_weights_or_refused(model, plain, family, tmp_path):
    folder = tmp_path / "m"
    plain.hf.save_pretrained(folder)
    if plain.feature_extractor is not None:
        plain.feature_extractor.save_pretrained(folder)
    made = wrapped(build(family), TARGETS[family])
    made.save_pretrained(folder / "adapters" / "twin")
    expected = model.run(pair(model)[0]).logits
    for name in ("twin", folder / "adapters" / "twin"):
        loaded = otoscope.load(str(folder), adapter=name, offline=True)
        assert loaded.name.endswith("m+twin")
        assert (loaded.run(pair(loaded)[0]).logits - expected).abs().max() < 1e-5
    assert loaded.weights_hash() != otoscope.load(str(folder), offline=True).weights_hash()
    with pytest.raises(ModelError, match=r"there is no adapter 'other': .* this model comes with twin"):
        otoscope.load(str(folder), adapter="other", offline=True)
    with pytest.raises(ModelError, match=r"has no adapter_config.json, so it is not a LoRA that peft has saved"):
        otoscope.load(str(folder), adapter=str(tmp_path), offline=True)


def test_an_adapter_for_another_model_is_refused(tmp_path):
    folder = tmp_path / "m"
    build("llama").hf.save_pretrained(folder)
    wrapped(build("whisper"), ["fc1"]).save_pretrained(tmp_path / "lora")
    with pytest.raises(ModelError, match=r"cannot be put on this model .* expected one that was trained on it"):
        otoscope.load(str(folder), adapter=tmp_path / "lora", offline=True)


def test_a_learned_prompt_is_refused():
    base = build("llama")
    made = peft.get_peft_model(base.hf, peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    with pytest.raises(ModelError, match="is a learned prompt, which otoscope cannot read: expected LoRA layers"):
        type(base.adapter)(made)
