"""GGUF files become Hugging Face folders with the same answers."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
import transformers as tf
from gguf import GGMLQuantizationType as Kind

from otoscope.errors import ModelError
from otoscope.models.convert_gguf import convert_gguf
from tests.models.tiny_whisper import tokenizer

_END = "<|im_end|>"
_LAYER = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip


def _llama(tied: bool = True) -> tf.LlamaForCausalLM:
    torch.manual_seed(0)
    config = tf.LlamaConfig(
        vocab_size=len(_tokens()), hidden_size=96, intermediate_size=64, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, max_position_embeddings=40, rms_norm_eps=1e-5, tie_word_embeddings=tied,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0}, initializer_range=0.2,
    )  # fmt: skip
    return tf.LlamaForCausalLM(config).eval()


def _tokens() -> list[str]:
    vocab = tokenizer().get_vocab(with_added_tokens=False)
    return [*sorted(vocab, key=vocab.__getitem__), _END]


def _permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's own (convert_hf_to_gguf.py, LlamaModel.permute)."""
    return weight.reshape(heads, 2, len(weight) // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def _write(path, model, kind=Kind.F32, architecture="llama", pre="smollm", extra=None):
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(500.0)
    writer.add_layer_norm_rms_eps(1e-5)
    tokens = _tokens()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token == _END else 1 for token in tokens])
    writer.add_token_merges(["t h", "th e", "Ġ the"])
    writer.add_bos_token_id(len(tokens) - 1)
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_chat_template("{{ messages[0]['content'] }}<|im_end|>")
    names = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
    if not config.tie_word_embeddings:
        names["output"] = "lm_head"
    for i in range(config.num_hidden_layers):
        names.update({f"blk.{i}.{theirs}": f"model.layers.{i}.{ours}" for theirs, ours in _LAYER.items()})
    weights = model.state_dict()
    for theirs, ours in names.items():
        values = weights[f"{ours}.weight"].numpy()
        if theirs.endswith("attn_q"):
            values = _permuted(values, config.num_attention_heads)
        if theirs.endswith("attn_k"):
            values = _permuted(values, config.num_key_value_heads)
        stored = Kind.F32 if values.ndim == 1 else kind
        writer.add_tensor(f"{theirs}.weight", gguf.quantize(values, stored), raw_dtype=stored)
    if extra:
        writer.add_tensor(extra, np.zeros((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _convert(tmp_path, model, **options):
    _write(tmp_path / "m.gguf", model, **options)
    out = tmp_path / "hf"
    out.mkdir()
    convert_gguf(tmp_path / "m.gguf", out)
    return out


def _logits(model):
    with torch.no_grad():
        return model(torch.tensor([[5, 9, 1, 30, 77, 2, 2, 8]])).logits


@pytest.mark.parametrize("tied", [True, False])
def test_floats_come_back_bit_for_bit(tmp_path, tied):
    model = _llama(tied)
    back, info = tf.AutoModelForCausalLM.from_pretrained(
        _convert(tmp_path, model), dtype="auto", output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert back.dtype == torch.float32
    assert torch.equal(_logits(back), _logits(model))
    assert (back.lm_head.weight is back.model.embed_tokens.weight) == tied


# half a step: Q8_0 has 127 steps to the peak of a block, Q4_1 has 15 from its lowest to its highest value
@pytest.mark.parametrize(("kind", "error"), [(Kind.F16, 1 / 2048), (Kind.Q8_0, 1 / 200), (Kind.Q4_1, 1 / 14)])
def test_quantised_matrices_come_back_within_their_rounding(tmp_path, kind, error):
    model = _llama()
    back = tf.AutoModelForCausalLM.from_pretrained(_convert(tmp_path, model, kind=kind), dtype="auto")
    assert back.dtype == torch.float16
    for name, weight in model.named_parameters():
        difference = (back.get_parameter(name).float() - weight).abs().max() / weight.abs().max()
        assert difference < error, name
        assert difference > 0 or weight.ndim == 1, name


def test_the_tokenizer_comes_from_the_file(tmp_path):
    words = tf.AutoTokenizer.from_pretrained(_convert(tmp_path, _llama()))
    assert words.eos_token == words.bos_token == _END
    ids = words("in the 1984 cat" + _END).input_ids
    text = words.convert_ids_to_tokens(ids)
    assert text == ["i", "n", "Ġthe", "Ġ", "1", "9", "8", "4", "Ġ", "c", "a", "t", _END]
    assert words.decode(ids, skip_special_tokens=True) == "in the 1984 cat"
    assert words.apply_chat_template([{"role": "user", "content": "the"}], tokenize=False) == "the" + _END


def test_what_cannot_be_converted_is_named(tmp_path):
    out = tmp_path / "hf"
    out.mkdir()
    path = tmp_path / "m.gguf"
    for options, expected in (
        ({"architecture": "gpt2"}, "holds a gpt2 model"),
        ({"pre": "llama-bpe"}, "has the tokenizer gpt2/llama-bpe"),
        ({"extra": "blk.0.ffn_gate_exps.weight"}, "has the tensor 'blk.0.ffn_gate_exps.weight'"),
    ):
        _write(path, _llama(), **options)
        with pytest.raises(ModelError, match=expected):
            convert_gguf(path, out)


@pytest.mark.parametrize("kept", [0, 2, 10, 400, 0.3, 0.99])
def test_a_truncated_file_is_refused(tmp_path, kept):
    path = tmp_path / "m.gguf"
    _write(path, _llama())
    raw = path.read_bytes()
    path.write_bytes(raw[: int(kept * len(raw)) if isinstance(kept, float) else kept])
    with pytest.raises(ModelError, match="is not a whole GGUF file") as caught:
        convert_gguf(path, tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="does not exist"):
        convert_gguf(tmp_path / "nothing.gguf", tmp_path)
