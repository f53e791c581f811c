"""CTranslate2 folders become Hugging Face folders with the same answers, and damaged ones are refused."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
import torch
import transformers as tf
from safetensors.numpy import load_file

from otoscope.errors import ModelError
from otoscope.models.convert_ct2 import convert_ct2, is_ct2_folder
from otoscope.models.ct2_format import read_ct2
from tests.models.tiny_whisper import model_bin, tokenizer, whisper, write_ct2_folder


def _convert(tmp_path, model, kind="float32"):
    source, out = tmp_path / "ct2", tmp_path / "hf"
    write_ct2_folder(source, model, kind)
    out.mkdir()
    convert_ct2(source, out)
    return out


def _logits(model):
    mel = torch.randn(2, model.config.num_mel_bins, 100, generator=torch.Generator().manual_seed(1))
    tokens = torch.tensor([[7, 3, 5, 1], [2, 9, 250, 11]])
    with torch.no_grad():
        return model(input_features=mel.to(model.dtype), decoder_input_ids=tokens).logits


def test_float32_comes_back_bit_for_bit(tmp_path):
    model = whisper()
    back, info = tf.WhisperForConditionalGeneration.from_pretrained(
        _convert(tmp_path, model), dtype=torch.float32, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert torch.equal(_logits(back), _logits(model))
    assert back.proj_out.weight is back.model.decoder.embed_tokens.weight
    for key in ("encoder_attention_heads", "decoder_attention_heads", "encoder_layers", "decoder_layers", "vocab_size"):
        assert getattr(back.config, key) == getattr(model.config, key)


# an int8 row keeps about 1/254 of its peak, int16 1/2048, bfloat16 1/256 of the value
@pytest.mark.parametrize(
    ("kind", "error"), [("float16", 5e-3), ("bfloat16", 5e-2), ("int16", 1e-2), ("int8", 8e-2), ("int8_float16", 8e-2)]
)
def test_coarser_types_come_back_within_their_rounding(tmp_path, kind, error):
    model = whisper()
    out = _convert(tmp_path, model, kind)
    back = tf.WhisperForConditionalGeneration.from_pretrained(out, dtype=torch.float32)
    difference = (_logits(back) - _logits(model)).abs().max()
    assert 0 < difference < error * _logits(model).abs().max()
    stored = load_file(out / "model.safetensors")["model.encoder.conv1.bias"].dtype
    assert stored == (np.float16 if kind.endswith("float16") and kind != "bfloat16" else np.float32)


def test_heads_are_64_wide_where_the_file_does_not_say(tmp_path):
    model = whisper(d_model=128, encoder_attention_heads=2, decoder_attention_heads=2)
    source = tmp_path / "ct2"
    write_ct2_folder(source, model)
    raw = (source / "model.bin").read_bytes()
    (source / "model.bin").write_bytes(raw.replace(b"num_heads", b"num_bread"))
    (tmp_path / "hf").mkdir()
    convert_ct2(source, tmp_path / "hf")
    assert torch.equal(
        _logits(tf.WhisperForConditionalGeneration.from_pretrained(tmp_path / "hf", dtype=torch.float32)),
        _logits(model),
    )


def test_the_processor_and_generate_work_offline(tmp_path):
    out = _convert(tmp_path, whisper())
    processor = tf.AutoProcessor.from_pretrained(out)
    words = processor.tokenizer
    ids = {name: words.convert_tokens_to_ids(f"<|{name}|>") for name in ("startoftranscript", "en", "transcribe")}
    assert words("the cat", add_special_tokens=False).input_ids == tokenizer().encode("the cat").ids
    assert words.convert_ids_to_tokens(len(words) - 1) == "<|30.00|>"
    assert len(words) == json.loads((out / "config.json").read_text())["vocab_size"]
    model = tf.WhisperForConditionalGeneration.from_pretrained(out, dtype=torch.float32)
    config = model.generation_config
    assert config.suppress_tokens == [1, 2]
    assert config.begin_suppress_tokens == [3]
    assert config.alignment_heads == [[1, 0], [2, 3]]
    assert set(config.lang_to_id) == {"<|en|>", "<|de|>", "<|haw|>"}
    seen = []
    model.model.decoder.register_forward_pre_hook(lambda m, a, k: seen.append(k["input_ids"]), with_kwargs=True)
    sound = np.sin(np.arange(16000) / 9).astype(np.float32)
    mel = processor(sound, sampling_rate=16000, return_tensors="pt").input_features[..., :100]
    rows = model.generate(mel, language="en", max_length=12)
    # without its task token the prompt is one that Whisper never saw
    assert seen[0].tolist()[0][:3] == list(ids.values())
    assert not set(rows[0].tolist()) & {1, 2}
    seen.clear()
    model.generate(mel, max_length=12)
    detect, prompt = (tokens.tolist()[0] for tokens in seen[:2])
    assert detect == [ids["startoftranscript"]]
    assert prompt[1] in config.lang_to_id.values()
    assert prompt[2] == ids["transcribe"]


def test_a_lost_first_merge_is_put_back(tmp_path):
    source, out = tmp_path / "ct2", tmp_path / "hf"
    write_ct2_folder(source, whisper())
    whole = json.loads((source / "tokenizer.json").read_text())
    for spelling in (list, " ".join):
        lost = json.loads((source / "tokenizer.json").read_text())
        lost["model"]["merges"] = [spelling(merge) for merge in whole["model"]["merges"][1:]]
        (source / "tokenizer.json").write_text(json.dumps(lost))
        out.mkdir(exist_ok=True)
        convert_ct2(source, out)
        words = tf.AutoTokenizer.from_pretrained(out)
        assert words.tokenize("the th") == ["the", "Ġ", "th"]
        (source / "tokenizer.json").write_text(json.dumps(whole))


def test_large_v3_has_128_mel_bins(tmp_path):
    out = _convert(tmp_path, whisper(num_mel_bins=128))
    assert tf.AutoFeatureExtractor.from_pretrained(out).feature_size == 128


@pytest.mark.parametrize("kept", [0, 3, 60, 0.5, 0.999])
def test_a_truncated_file_is_refused(tmp_path, kept):
    raw = model_bin(whisper())
    path = tmp_path / "model.bin"
    path.write_bytes(raw[: int(kept * len(raw)) if isinstance(kept, float) else kept])
    with pytest.raises(ModelError, match=r"truncated|is empty"):
        read_ct2(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "model.bin"
    with pytest.raises(ModelError, match="does not exist"):
        read_ct2(path)
    path.write_bytes(b"PK\3\4" + bytes(1000))
    with pytest.raises(ModelError, match="not a CTranslate2 model we can read"):
        read_ct2(path)
    path.write_bytes(struct.pack("<I", 6) + struct.pack("<H", 4) + b"\xff\xfe\xfd\0" + bytes(100))
    with pytest.raises(ModelError, match="is not text"):
        read_ct2(path)


def test_a_shape_that_does_not_fit_its_bytes_is_refused(tmp_path):
    raw = model_bin(whisper())
    name = b"decoder/layer_norm/beta\0"
    at = raw.index(name) + len(name) + 1
    (tmp_path / "model.bin").write_bytes(raw[:at] + struct.pack("<I", 17) + raw[at + 4 :])
    with pytest.raises(ModelError, match=r"'decoder/layer_norm/beta' of shape \(17,\) has 64 bytes"):
        read_ct2(tmp_path / "model.bin")


def test_what_is_missing_is_named(tmp_path):
    source, out = tmp_path / "ct2", tmp_path / "hf"
    out.mkdir()
    write_ct2_folder(source, whisper())
    raw = (source / "model.bin").read_bytes()
    (source / "model.bin").write_bytes(raw.replace(b"decoder/layer_1/", b"decoder/layer_7/"))
    with pytest.raises(ModelError, match=r"decoder layers are \[0, 2, 7\]"):
        convert_ct2(source, out)
    (source / "model.bin").write_bytes(raw.replace(b"encoder/conv2/bias", b"encoder/conv3/bias"))
    with pytest.raises(ModelError, match="no variable 'encoder/conv2/bias'"):
        convert_ct2(source, out)
    (source / "model.bin").write_bytes(model_bin(whisper(), spec="TransformerSpec"))
    with pytest.raises(ModelError, match="holds a CTranslate2 TransformerSpec"):
        convert_ct2(source, out)
    (source / "model.bin").write_bytes(raw)
    (source / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"tokenizer\.json' is missing"):
        convert_ct2(source, out)
    (source / "tokenizer.json").write_text('{"added_tokens": [], "model": {"vocab": {"a": 0}, "merges": []}}')
    with pytest.raises(ModelError, match="belongs to another Whisper"):
        convert_ct2(source, out)


def test_only_ct2_folders_are_taken_for_one(tmp_path):
    assert not is_ct2_folder(tmp_path)
    (tmp_path / "model.bin").write_bytes(b"x")
    assert is_ct2_folder(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "whisper"}')
    assert not is_ct2_folder(tmp_path)
