"""GGUF language models of the Llama shape (SmolLM2 among them) as plain Hugging Face folders.

Quantised matrices are expanded with ``gguf``'s own code and kept as float16: its rounding is a hundred times finer
than that of 4 bits, at half the disk and load time of float32. What was stored as floats keeps its precision.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from otoscope.errors import ModelError
from otoscope.models.checkpoint import save_tensors, write_json

if TYPE_CHECKING:
    from gguf import GGUFReader

#: the parameters of a layer, llama.cpp's name -> the name in LlamaForCausalLM
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
#: GGUF's token type for tokens that text never contains
_CONTROL = 3


def convert_gguf(path: Path, out: Path) -> None:
    """Write the Llama-shaped model in the GGUF file ``path`` to ``out`` as a Hugging Face folder.

    Writes ``config.json``, ``generation_config.json``, ``tokenizer.json``, ``tokenizer_config.json`` and
    ``model.safetensors``.

    Args:
        path: the ``.gguf`` file: architecture ``llama``, byte-level BPE with the ``smollm`` or ``gpt-2`` splitting.
        out: an existing folder, empty.

    Raises:
        ModelError: the file is missing, truncated, or of another architecture or tokenizer.
    """
    reader = _open(path)
    meta = {name: field.contents() for name, field in reader.fields.items()}
    if meta.get("general.architecture") != "llama":
        raise ModelError(f"'{path}' holds a {meta.get('general.architecture')} model: only llama GGUFs are converted.")
    try:
        config = _config(meta, {tensor.name for tensor in reader.tensors})
        tokenizer = _tokenizer(meta, path)
    except KeyError as error:
        raise ModelError(f"'{path}' lacks the GGUF entry {error}, so it cannot be converted.") from None
    weights = _state_dict(reader, config, path)
    config["dtype"] = weights["model.embed_tokens.weight"].dtype.name
    save_tensors(weights, out / "model.safetensors")
    write_json(out / "config.json", config)
    ids = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    write_json(out / "generation_config.json", ids)
    write_json(out / "tokenizer.json", tokenizer)
    write_json(out / "tokenizer_config.json", _tokenizer_config(meta))


def _open(path: Path) -> GGUFReader:
    from gguf import GGUFReader

    if not path.is_file():
        raise ModelError(f"'{path}' does not exist.")
    try:
        return GGUFReader(path)
    except (ValueError, IndexError, KeyError, OverflowError, struct.error) as error:
        # the reader does not check lengths: a damaged file shows as whatever numpy then trips over
        raise ModelError(f"'{path}' is not a whole GGUF file ({error}): download it again.") from None


def _config(meta: dict[str, Any], tensors: set[str]) -> dict[str, Any]:
    heads, width = meta["llama.attention.head_count"], meta["llama.embedding_length"]
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": len(meta["tokenizer.ggml.tokens"]),
        "hidden_size": width,
        "intermediate_size": meta["llama.feed_forward_length"],
        "num_hidden_layers": meta["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": meta.get("llama.attention.head_count_kv", heads),
        "head_dim": width // heads,
        "max_position_embeddings": meta["llama.context_length"],
        "rms_norm_eps": float(f"{meta['llama.attention.layer_norm_rms_epsilon']:.6g}"),  # stored as float32
        "rope_parameters": {"rope_type": "default", "rope_theta": meta.get("llama.rope.freq_base", 10000.0)},
        "hidden_act": "silu",
        "tie_word_embeddings": "output.weight" not in tensors,
        "bos_token_id": meta["tokenizer.ggml.bos_token_id"],
        "eos_token_id": meta["tokenizer.ggml.eos_token_id"],
        "pad_token_id": meta.get("tokenizer.ggml.padding_token_id", meta["tokenizer.ggml.eos_token_id"]),
    }


def _state_dict(reader: GGUFReader, config: dict[str, Any], path: Path) -> dict[str, np.ndarray]:
    from gguf import GGMLQuantizationType, dequantize

    exact = (GGMLQuantizationType.F32, GGMLQuantizationType.BF16)  # bfloat16 has a range that float16 lacks
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    out: dict[str, np.ndarray] = {}
    for tensor in reader.tensors:
        block, _, rest = tensor.name.removeprefix("blk.").partition(".")
        kind = rest.removesuffix(".weight")
        if tensor.name.removesuffix(".weight") in _TOP:
            name = _TOP[tensor.name.removesuffix(".weight")]
        elif tensor.name.startswith("blk.") and kind in _LAYER:
            name = f"model.layers.{block}.{_LAYER[kind]}"
        else:
            raise ModelError(f"'{path}' has the tensor '{tensor.name}', which no plain Llama has.")
        try:
            values = dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError as error:
            raise ModelError(f"'{path}' is quantised in a way that cannot be expanded: {error}.") from None
        if kind in heads:
            values = _unpermute(values, heads[kind])
        dtype = np.float32 if tensor.tensor_type in exact else np.float16
        out[f"{name}.weight"] = np.ascontiguousarray(values, dtype)
    return out


def _unpermute(weight: np.ndarray, n_heads: int) -> np.ndarray:
    """Undo llama.cpp's row order of queries and keys, ``[d_out, d_in]``.

    It rotates neighbouring channels (0, 1), (2, 3), ...; transformers rotates channel i with i + d_head / 2.
    """
    d_out, d_in = weight.shape
    return weight.reshape(n_heads, d_out // n_heads // 2, 2, d_in).swapaxes(1, 2).reshape(d_out, d_in)


def _tokenizer(meta: dict[str, Any], path: Path) -> dict[str, Any]:
    """``tokenizer.json``: byte-level BPE, whose splitting GGUF names rather than spells out."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    kind, splitting = meta["tokenizer.ggml.model"], meta.get("tokenizer.ggml.pre", "gpt-2")
    if kind != "gpt2" or splitting not in ("smollm", "gpt-2"):
        raise ModelError(f"'{path}' has the tokenizer {kind}/{splitting}: only gpt2/smollm and gpt2/gpt-2 are known.")
    tokens = meta["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in meta["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    digits = [pre_tokenizers.Digits(individual_digits=True)] if splitting == "smollm" else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*digits, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in _control_tokens(meta)])
    return json.loads(tokenizer.to_str())


def _control_tokens(meta: dict[str, Any]) -> list[str]:
    tokens, types = meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.token_type"]
    return [token for token, kind in zip(tokens, types) if kind == _CONTROL]


def _tokenizer_config(meta: dict[str, Any]) -> dict[str, Any]:
    tokens = meta["tokenizer.ggml.tokens"]
    named = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
    ids = {ours: meta.get(f"tokenizer.ggml.{theirs}_token_id") for theirs, ours in named.items()}
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": meta["llama.context_length"],
        "additional_special_tokens": _control_tokens(meta),
        **{f"{name}_token": tokens[i] for name, i in ids.items() if i is not None},
    }
    if template := meta.get("tokenizer.chat_template"):
        config["chat_template"] = template
    return config
