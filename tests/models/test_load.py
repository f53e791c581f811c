"""Loading from local folders: the same weights, the right class, and one sentence for what cannot be loaded."""

from __future__ import annotations

import json

import pytest
import torch
import transformers as tf
from safetensors.torch import save_file

import otoscope
from otoscope.errors import ModelError
from otoscope.models.load import adapter_class, load_adapter
from tests.tiny import FAMILIES, build, pair


def _save(model, folder):
    model.hf.save_pretrained(folder)
    if model.feature_extractor is not None:
        model.feature_extractor.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_folder_loads_into_the_same_model(family, tmp_path):
    model = build(family)
    loaded = otoscope.load(_save(model, tmp_path / "m"), offline=True)
    assert type(loaded.adapter) is type(model.adapter)
    assert type(loaded.hf) is type(model.hf)
    assert not loaded.hf.training
    assert loaded.weights_hash() == model.weights_hash()
    inputs, _ = pair(model)
    again, _ = pair(loaded)
    assert torch.equal(loaded.run(again).logits, model.run(inputs).logits)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", torch.float16])
def test_dtype_is_an_argument(dtype, tmp_path):
    loaded = load_adapter(_save(build("llama"), tmp_path / "m"), dtype=dtype, offline=True)
    assert loaded.dtype == (dtype if isinstance(dtype, torch.dtype) else getattr(torch, dtype))


def test_another_seed_is_another_hash():
    assert build("whisper").weights_hash() == build("whisper").weights_hash()
    assert build("whisper").weights_hash() != build("whisper", seed=1).weights_hash()


def test_unknown_dtype_and_device_are_refused(tmp_path):
    folder = _save(build("llama"), tmp_path / "m")
    with pytest.raises(ModelError, match="'float7' is not a dtype: expected one of float32"):
        load_adapter(folder, dtype="float7", offline=True)
    for device in ("gpu", "cuda:99"):
        with pytest.raises(ModelError, match=f"the device '{device}' is not available here: expected cpu, cuda"):
            load_adapter(folder, device=device, offline=True)


def test_a_family_without_adapter_is_refused_and_told_which_there_are(tmp_path):
    config = tf.GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2, n_positions=16)
    tf.GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(ModelError, match="is of the family 'gpt2', which otoscope cannot read: supported are whisper"):
        load_adapter(str(tmp_path / "gpt2"), offline=True)
    with pytest.raises(ModelError, match="m is of the family 'mimi'"):
        adapter_class("mimi", "m")


def test_a_head_that_is_not_read_is_refused():
    config = tf.Wav2Vec2Config(hidden_size=24, num_hidden_layers=1, num_attention_heads=4, intermediate_size=8,
                               conv_dim=(8,), conv_kernel=(10,), conv_stride=(8,), num_feat_extract_layers=1,
                               num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2)  # fmt: skip
    adapter = adapter_class("wav2vec2")
    with pytest.raises(ModelError, match="is a Wav2Vec2ForSequenceClassification, which otoscope cannot read yet"):
        adapter(tf.Wav2Vec2ForSequenceClassification(config))


def test_a_language_model_built_otherwise_is_refused():
    config = tf.GemmaConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
                            num_key_value_heads=2, head_dim=4, intermediate_size=8)  # fmt: skip
    config2 = tf.Gemma2Config(**{k: getattr(config, k) for k in ("vocab_size", "hidden_size", "head_dim")},
                              num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, intermediate_size=8)  # fmt: skip
    with pytest.raises(
        ModelError, match="Gemma2ForCausalLM, which otoscope cannot read yet: it lacks a plain residual"
    ):
        adapter_class("llama")(tf.Gemma2ForCausalLM(config2))


def test_a_truncated_checkpoint_is_refused_in_one_sentence(tmp_path):
    folder = tmp_path / "m"
    _save(build("whisper"), folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with pytest.raises(
        ModelError, match=r"model.safetensors' has .* bytes where .* download the model again"
    ) as caught:
        load_adapter(str(folder), offline=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, "not json", json.dumps({"model_type": 5})])
def test_a_folder_without_usable_config_is_refused(tmp_path, content):
    folder = tmp_path / "m"
    _save(build("llama"), folder)
    if content is None:
        (folder / "config.json").unlink()
    else:
        (folder / "config.json").write_text(content)
    with pytest.raises(ModelError) as caught:
        load_adapter(str(folder), offline=True)
    assert "\n" not in str(caught.value)


def test_weights_that_do_not_fit_the_config_are_refused_in_one_sentence(tmp_path):
    folder = tmp_path / "m"
    _save(build("whisper"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "d_model": 32}))
    with pytest.raises(
        ModelError, match=r"do not fit its config.json: model\..* has the shape .* was expected; fetch"
    ) as caught:
        load_adapter(str(folder), offline=True)
    assert "\n" not in str(caught.value)


def _drop(folder, *endings):
    from safetensors.torch import load_file, save_file

    weights = {k: v for k, v in load_file(folder / "model.safetensors").items() if not k.endswith(endings)}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def test_a_checkpoint_that_lacks_weights_is_not_filled_up_at_random(tmp_path):
    folder = tmp_path / "m"
    _save(build("llama"), folder)
    _drop(folder, "layers.1.mlp.down_proj.weight")
    with pytest.raises(ModelError, match=r"incomplete: model\.layers\.1\.mlp\.down_proj\.weight is missing; fetch"):
        load_adapter(str(folder), offline=True)
    _drop(folder, "down_proj.weight", "up_proj.weight")
    with pytest.raises(ModelError, match=r"up_proj\.weight, .* and 5 more are missing"):
        load_adapter(str(folder), offline=True)


def test_weights_that_are_tied_or_only_trained_with_may_be_absent(tmp_path):
    model = build("whisper")  # its output matrix is the embedding, which is stored once
    loaded = load_adapter(_save(model, tmp_path / "w"), offline=True)
    assert torch.equal(loaded.hf.proj_out.weight, model.hf.model.decoder.embed_tokens.weight)
    _save(build("wav2vec2-ctc"), tmp_path / "v")
    _drop(tmp_path / "v", "masked_spec_embed")
    assert load_adapter(str(tmp_path / "v"), offline=True).family == "wav2vec2"


def test_weights_that_nothing_reads_are_passed_over(tmp_path):
    config = build("hubert-base").hf.config
    head = tf.HubertForSequenceClassification(config)
    head.save_pretrained(tmp_path / "m")
    tf.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "m")
    assert type(load_adapter(str(tmp_path / "m"), offline=True).hf) is tf.HubertModel


@pytest.mark.parametrize("bars", [True, False])
def test_loading_and_generating_say_nothing_and_leave_the_users_settings(tmp_path, capfd, bars):
    from huggingface_hub.utils import are_progress_bars_disabled

    folder = _save(build("llama"), tmp_path / "m")
    before = tf.logging.get_verbosity(), tf.logging.is_progress_bar_enabled(), are_progress_bars_disabled()
    tf.logging.set_verbosity_info()
    (tf.logging.enable_progress_bar if bars else tf.logging.disable_progress_bar)()
    capfd.readouterr()
    try:
        model = otoscope.load(folder, offline=True)
        model.generate(model.inputs(tokens=[5, 6]), max_new_tokens=2, temperature=0.3)
        assert capfd.readouterr() == ("", "")
        assert tf.logging.get_verbosity() == tf.logging.INFO
        assert tf.logging.is_progress_bar_enabled() is bars
        assert are_progress_bars_disabled() is not bars
    finally:
        tf.logging.set_verbosity(before[0])
        (tf.logging.enable_progress_bar if before[1] else tf.logging.disable_progress_bar)()


def test_progress_hears_of_how_the_model_was_found(tmp_path, monkeypatch):
    from tests.models.tiny_whisper import whisper, write_ct2_folder

    monkeypatch.setenv("OTOSCOPE_CACHE", str(tmp_path / "cache"))
    write_ct2_folder(tmp_path / "ct2", whisper())
    lines: list[str] = []
    otoscope.load(str(tmp_path / "ct2"), offline=True, progress=lines.append)
    assert lines == [f"converted from the CTranslate2 model in '{tmp_path / 'ct2'}'"]


def test_an_omni_folder_with_its_talker_loads_the_thinker_alone(tmp_path):
    model = build("qwen2_5_omni_thinker")
    config = tf.Qwen2_5OmniConfig(thinker_config=model.hf.config.to_dict(), enable_audio_output=False)
    folder = tmp_path / "omni"
    model.feature_extractor.save_pretrained(folder)
    config.save_pretrained(folder)
    weights = {f"thinker.{name}": tensor for name, tensor in model.hf.state_dict().items()}
    save_file({**weights, "talker.made.up": torch.zeros(2)}, folder / "model.safetensors", metadata={"format": "pt"})
    loaded = otoscope.load(str(folder), offline=True)
    assert type(loaded.hf) is tf.Qwen2_5OmniThinkerForConditionalGeneration
    assert loaded.weights_hash() == model.weights_hash()
    inputs, _ = pair(model)
    assert torch.equal(loaded.run(pair(loaded)[0]).logits, model.run(inputs).logits)


def test_a_device_map_is_passed_on_and_keeps_the_weights_where_it_put_them(tmp_path):
    model = build("qwen2_audio")
    folder = _save(model, tmp_path / "m")
    loaded = otoscope.load(folder, offline=True, device_map={"": "cpu"}, dtype="bfloat16")
    assert loaded.run(pair(loaded)[0]).logits.dtype == torch.bfloat16
    assert otoscope.load(folder, offline=True, device_map="meta").adapter.device.type == "meta"
