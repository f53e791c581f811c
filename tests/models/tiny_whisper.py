"""A tiny Whisper with a tokenizer, and a writer of CTranslate2 folders: the way back of what the package reads."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import torch
import transformers as tf
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

#: in OpenAI's order: end, start, languages, tasks, and what follows
SPECIALS = ["endoftext", "startoftranscript", "en", "de", "haw", "translate", "transcribe", "startoflm", "startofprev"]
SPECIALS += ["nospeech", "notimestamps"]
N_TIMESTAMPS = 1501


def tokenizer() -> Tokenizer:
    """Letters and a few merges, byte-level, with Whisper's special tokens and, as in faster-whisper, no timestamps."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the")]
    vocab = {token: i for i, token in enumerate([*letters, *("".join(pair) for pair in merges)])}
    made = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(f"<|{name}|>", normalized=False, special=True) for name in SPECIALS])
    return made


def whisper(seed: int = 0, **config: object) -> tf.WhisperForConditionalGeneration:
    """A random Whisper whose vocabulary is that of :func:`tokenizer` with its timestamps."""
    words = tokenizer()
    end = words.token_to_id("<|endoftext|>")
    sizes = {
        "vocab_size": words.get_vocab_size() + N_TIMESTAMPS, "d_model": 16, "encoder_layers": 2, "decoder_layers": 3,
        "encoder_attention_heads": 2, "decoder_attention_heads": 4, "encoder_ffn_dim": 24, "decoder_ffn_dim": 20,
        "num_mel_bins": 8, "max_source_positions": 50, "max_target_positions": 32, "pad_token_id": end,
        "bos_token_id": end, "eos_token_id": end, "decoder_start_token_id": end + 1, "begin_suppress_tokens": None,
    }  # fmt: skip
    torch.manual_seed(seed)
    model = tf.WhisperForConditionalGeneration(tf.WhisperConfig(**{**sizes, **config})).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases start at 0 and 1, which would hide a mix-up
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def write_ct2_folder(folder: Path, model: tf.WhisperForConditionalGeneration, kind: str = "float32") -> None:
    """Write ``model`` as CTranslate2 would: ``kind`` is float32, float16, bfloat16, int8, int8_float16 or int16."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.bin").write_bytes(model_bin(model, kind))
    tokenizer().save(str(folder / "tokenizer.json"))
    config = {"suppress_ids": [1, 2], "suppress_ids_begin": [3], "alignment_heads": [[1, 0], [2, 3]], "lang_ids": []}
    (folder / "config.json").write_text(json.dumps(config))


def model_bin(model: tf.WhisperForConditionalGeneration, kind: str = "float32", spec: str = "WhisperSpec") -> bytes:
    """The bytes of ``model.bin``."""
    out = [struct.pack("<I", 6), _string(spec), struct.pack("<I", 3)]
    arrays = _variables(model)
    heads = model.config
    arrays["encoder/num_heads"] = np.int16(heads.encoder_attention_heads)
    arrays["decoder/num_heads"] = np.int16(heads.decoder_attention_heads)
    stored: dict[str, np.ndarray] = {}
    for name, values in arrays.items():
        stored.update(_stored(name, np.asarray(values), kind))
    out.append(struct.pack("<I", len(stored)))
    out += [_variable(name, values, kind) for name, values in sorted(stored.items())]
    alias = _string("decoder/projection/weight") + _string("decoder/embeddings/weight")
    return b"".join([*out, struct.pack("<I", 1), alias])


def _string(text: str) -> bytes:
    raw = text.encode() + b"\0"
    return struct.pack("<H", len(raw)) + raw


def _stored(name: str, values: np.ndarray, kind: str) -> dict[str, np.ndarray]:
    """The arrays that stand for ``values``: quantised matrices bring their scale."""
    if values.dtype.kind == "i":
        return {name: values}
    if kind.startswith("int") and name.endswith("weight") and values.ndim > 1:
        limit = 127 if kind.startswith("int8") else 2**10
        peak = np.abs(values.reshape(len(values), -1)).max(1) if kind.startswith("int8") else np.abs(values).max()
        scale = (limit / peak).astype(np.float32)
        column = scale.reshape(scale.shape + (1,) * (values.ndim - scale.ndim))
        whole = np.rint(values * column).astype(np.int8 if kind.startswith("int8") else np.int16)
        return {name: whole, f"{name}_scale": scale}
    return {name: values.astype(np.float16 if kind.endswith("float16") and kind != "bfloat16" else np.float32)}


def _variable(name: str, values: np.ndarray, kind: str) -> bytes:
    code = {"float32": 0, "int8": 1, "int16": 2, "float16": 4}[values.dtype.name]
    raw = values.tobytes()
    if kind == "bfloat16" and code == 0:
        code, raw = 5, (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    head = _string(name) + struct.pack("<B", values.ndim) + struct.pack(f"<{values.ndim}I", *values.shape)
    return head + struct.pack("<BI", code, len(raw)) + raw


def _variables(model: tf.WhisperForConditionalGeneration) -> dict[str, np.ndarray]:
    """CTranslate2's names, spelled from the specification (python/ctranslate2/specs/whisper_spec.py)."""
    of = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    out: dict[str, np.ndarray] = {"decoder/embeddings/weight": of["model.decoder.embed_tokens.weight"]}

    def linear(theirs: str, *ours: str) -> None:
        out[f"{theirs}/weight"] = np.concatenate([of[f"{name}.weight"] for name in ours])
        biases = [of.get(f"{name}.bias", np.zeros(len(of[f"{name}.weight"]), np.float32)) for name in ours]
        out[f"{theirs}/bias"] = np.concatenate(biases)

    def norm(theirs: str, ours: str) -> None:
        out[f"{theirs}/gamma"], out[f"{theirs}/beta"] = of[f"{ours}.weight"], of[f"{ours}.bias"]

    for conv in ("conv1", "conv2"):
        linear(f"encoder/{conv}", f"model.encoder.{conv}")
    for side, layers in (("encoder", model.config.encoder_layers), ("decoder", model.config.decoder_layers)):
        out[f"{side}/position_encodings/encodings"] = of[f"model.{side}.embed_positions.weight"]
        norm(f"{side}/layer_norm", f"model.{side}.layer_norm")
        for i in range(layers):
            theirs, ours = f"{side}/layer_{i}", f"model.{side}.layers.{i}"
            attention = f"{ours}.self_attn"
            norm(f"{theirs}/self_attention/layer_norm", f"{ours}.self_attn_layer_norm")
            linear(f"{theirs}/self_attention/linear_0", *(f"{attention}.{x}_proj" for x in "qkv"))
            linear(f"{theirs}/self_attention/linear_1", f"{attention}.out_proj")
            if side == "decoder":
                cross = f"{ours}.encoder_attn"
                norm(f"{theirs}/attention/layer_norm", f"{ours}.encoder_attn_layer_norm")
                linear(f"{theirs}/attention/linear_0", f"{cross}.q_proj")
                linear(f"{theirs}/attention/linear_1", f"{cross}.k_proj", f"{cross}.v_proj")
                linear(f"{theirs}/attention/linear_2", f"{cross}.out_proj")
            norm(f"{theirs}/ffn/layer_norm", f"{ours}.final_layer_norm")
            linear(f"{theirs}/ffn/linear_0", f"{ours}.fc1")
            linear(f"{theirs}/ffn/linear_1", f"{ours}.fc2")
    return out
