"""CTranslate2 Whisper folders (faster-whisper's) as plain Hugging Face folders, for Whispers of any size.

The numbers are the same; only names change, and CTranslate2's fused projections are taken apart again. The sizes of
the config are read from the shapes, special tokens from ``tokenizer.json``, and what ``generate`` needs (suppressed
tokens, alignment heads, language ids) from the folder's own ``config.json``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from otoscope.errors import ModelError
from otoscope.models.bpe import complete_merges
from otoscope.models.checkpoint import read_json, save_tensors, write_json
from otoscope.models.ct2_format import Ct2File, read_ct2

#: <|0.00|> to <|30.00|> in steps of 0.02 s
_N_TIMESTAMPS = 1501
#: what WhisperFeatureExtractor needs besides the number of mel bins; the same for every Whisper
_PREPROCESSOR = {
    "feature_extractor_type": "WhisperFeatureExtractor",
    "processor_class": "WhisperProcessor",
    "sampling_rate": 16000,
    "chunk_length": 30,
    "n_samples": 480000,
    "nb_max_frames": 3000,
    "n_fft": 400,
    "hop_length": 160,
    "padding_side": "right",
    "padding_value": 0.0,
    "return_attention_mask": False,
}


def is_ct2_folder(folder: Path) -> bool:
    """Whether ``folder`` looks like a CTranslate2 model: it has a ``model.bin`` and no Hugging Face config."""
    if not (folder / "model.bin").is_file():
        return False
    config = folder / "config.json"
    return not config.is_file() or "model_type" not in read_json(config)


def convert_ct2(folder: Path, out: Path) -> None:
    """Write the CTranslate2 Whisper in ``folder`` to ``out`` as a Hugging Face folder.

    Writes ``config.json``, ``generation_config.json``, ``preprocessor_config.json``, ``tokenizer.json``,
    ``tokenizer_config.json`` and ``model.safetensors`` (floats in the source's precision; integers as float32).

    Args:
        folder: holds ``model.bin``, ``tokenizer.json`` and, usually, ``config.json``.
        out: an existing folder, empty.

    Raises:
        ModelError: a file is missing, damaged, or not a Whisper.
    """
    weights = read_ct2(folder / "model.bin")
    if not weights.spec.startswith("Whisper"):
        raise ModelError(f"'{folder}' holds a CTranslate2 {weights.spec}: only Whisper models can be converted.")
    ct2_config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    config = _config(weights)
    tokenizer = _tokenizer(folder / "tokenizer.json", config["vocab_size"])
    special = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    config.update(_special_ids(special, folder))

    save_tensors(_state_dict(weights, config), out / "model.safetensors")
    write_json(out / "config.json", config)
    write_json(out / "generation_config.json", _generation_config(config, ct2_config, special))
    write_json(out / "tokenizer.json", tokenizer)
    write_json(out / "tokenizer_config.json", _tokenizer_config(special))
    write_json(out / "preprocessor_config.json", {"feature_size": config["num_mel_bins"], **_PREPROCESSOR})


def _config(weights: Ct2File) -> dict[str, Any]:
    """The sizes of the model, all from the shapes (and the head counts that the file spells out)."""
    vocab, d_model = weights.array("decoder/embeddings/weight").shape
    config: dict[str, Any] = {
        "model_type": "whisper",
        "architectures": ["WhisperForConditionalGeneration"],
        "vocab_size": vocab,
        "d_model": d_model,
        "num_mel_bins": weights.array("encoder/conv1/weight").shape[1],
        "max_source_positions": len(weights.array("encoder/position_encodings/encodings")),
        "max_target_positions": len(weights.array("decoder/position_encodings/encodings")),
        "dtype": "float16" if weights.array("encoder/conv1/weight").dtype == np.float16 else "float32",
    }
    for side in ("encoder", "decoder"):
        config[f"{side}_layers"] = _n_layers(weights, side)
        config[f"{side}_ffn_dim"] = len(weights.array(f"{side}/layer_0/ffn/linear_0/weight"))
        heads = weights.variables.get(f"{side}/num_heads")
        # every published Whisper has heads of 64 channels; older files do not spell the number out
        config[f"{side}_attention_heads"] = int(heads) if heads is not None else d_model // 64
    return config


def _n_layers(weights: Ct2File, side: str) -> int:
    layers = {int(found[1]) for name in weights.variables if (found := re.match(rf"{side}/layer_(\d+)/", name))}
    if layers != set(range(len(layers))) or not layers:
        raise ModelError(f"the CTranslate2 model is incomplete: its {side} layers are {sorted(layers)}.")
    return len(layers)


def _state_dict(weights: Ct2File, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Every parameter under its name in ``WhisperForConditionalGeneration``; ``proj_out`` stays tied, hence absent."""
    out: dict[str, np.ndarray] = {}

    def copy(source: str, target: str, gamma_beta: bool = False) -> None:
        for theirs, ours in (("gamma", "weight"), ("beta", "bias")) if gamma_beta else (("weight",) * 2, ("bias",) * 2):
            out[f"model.{target}.{ours}"] = weights.array(f"{source}/{theirs}")

    def split(source: str, target: str, parts: str) -> None:
        """One fused projection into its equal parts, e.g. "qkv"; Whisper's keys have no bias."""
        weight, bias = weights.array(f"{source}/weight"), weights.array(f"{source}/bias")
        for part, w, b in zip(parts, np.split(weight, len(parts)), np.split(bias, len(parts))):
            out[f"model.{target}.{part}_proj.weight"] = w
            if part != "k":
                out[f"model.{target}.{part}_proj.bias"] = b

    copy("encoder/conv1", "encoder.conv1")
    copy("encoder/conv2", "encoder.conv2")
    out["model.decoder.embed_tokens.weight"] = weights.array("decoder/embeddings/weight")
    for side in ("encoder", "decoder"):
        out[f"model.{side}.embed_positions.weight"] = weights.array(f"{side}/position_encodings/encodings")
        copy(f"{side}/layer_norm", f"{side}.layer_norm", gamma_beta=True)
        for i in range(config[f"{side}_layers"]):
            theirs, ours = f"{side}/layer_{i}", f"{side}.layers.{i}"
            copy(f"{theirs}/self_attention/layer_norm", f"{ours}.self_attn_layer_norm", gamma_beta=True)
            split(f"{theirs}/self_attention/linear_0", f"{ours}.self_attn", "qkv")
            copy(f"{theirs}/self_attention/linear_1", f"{ours}.self_attn.out_proj")
            if side == "decoder":
                copy(f"{theirs}/attention/layer_norm", f"{ours}.encoder_attn_layer_norm", gamma_beta=True)
                split(f"{theirs}/attention/linear_0", f"{ours}.encoder_attn", "q")
                split(f"{theirs}/attention/linear_1", f"{ours}.encoder_attn", "kv")
                copy(f"{theirs}/attention/linear_2", f"{ours}.encoder_attn.out_proj")
            copy(f"{theirs}/ffn/layer_norm", f"{ours}.final_layer_norm", gamma_beta=True)
            copy(f"{theirs}/ffn/linear_0", f"{ours}.fc1")
            copy(f"{theirs}/ffn/linear_1", f"{ours}.fc2")
    return {name: np.ascontiguousarray(values) for name, values in out.items()}


def _tokenizer(path: Path, vocab_size: int) -> dict[str, Any]:
    """``tokenizer.json`` with the timestamp tokens spelled out, so that every id of the model has a name, and with the
    merges it lost put back.

    The timestamps' ids are the last ``_N_TIMESTAMPS`` of the vocabulary; older tokenizer files leave them implicit.
    """
    if not path.is_file():
        raise ModelError(f"'{path}' is missing: copy tokenizer.json from the Whisper this folder was converted from.")
    tokenizer = read_json(path)
    try:
        known = {token["content"] for token in tokenizer["added_tokens"]}
        n_known = len(set(tokenizer["model"]["vocab"]) | known)
        # files spell a merge as "a b" or as ["a", "b"]
        spelled = (m.split(" ", 1) if isinstance(m, str) else m for m in tokenizer["model"]["merges"])
        merges = [(left, right) for left, right in spelled]
        whole = complete_merges(tokenizer["model"]["vocab"], merges, special=known)
    except (KeyError, TypeError, ValueError):
        raise ModelError(f"'{path}' is not a Hugging Face tokenizers file.") from None
    tokenizer["model"]["merges"] = [list(merge) for merge in whole]
    if "<|0.00|>" not in known:
        if n_known + _N_TIMESTAMPS != vocab_size:
            raise ModelError(
                f"'{path}' has {n_known} tokens and {_N_TIMESTAMPS} timestamps where the model has {vocab_size}: "
                "it belongs to another Whisper."
            )
        plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
        tokenizer["added_tokens"] += [
            {"id": n_known + i, "content": f"<|{i * 0.02:.2f}|>", **plain} for i in range(_N_TIMESTAMPS)
        ]
    return tokenizer


def _special_ids(special: dict[str, int], folder: Path) -> dict[str, Any]:
    """The ids that a Whisper config names."""
    try:
        end, start = special["<|endoftext|>"], special["<|startoftranscript|>"]
    except KeyError as error:
        raise ModelError(
            f"'{folder / 'tokenizer.json'}' has no token {error}: it is not a Whisper tokenizer."
        ) from None
    return {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end, "decoder_start_token_id": start}


def _generation_config(config: dict[str, Any], ct2: dict[str, Any], special: dict[str, int]) -> dict[str, Any]:
    """What ``WhisperForConditionalGeneration.generate`` reads; defaults are those of OpenAI's own checkpoints."""
    end = config["eos_token_id"]
    multilingual = end != 50256  # the English vocabulary is GPT-2's, which ends there
    out: dict[str, Any] = {
        **{key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")},
        "suppress_tokens": ct2.get("suppress_ids") or _non_speech_tokens(multilingual),
        "begin_suppress_tokens": ct2.get("suppress_ids_begin") or [220, end],
        "no_timestamps_token_id": special["<|notimestamps|>"],
        "prev_sot_token_id": special["<|startofprev|>"],
        "max_length": config["max_target_positions"],
        "max_initial_timestamp_index": 50,
        "is_multilingual": multilingual,
        "return_timestamps": False,
    }
    if ct2.get("alignment_heads"):
        out["alignment_heads"] = ct2["alignment_heads"]
    if multilingual:
        tasks = ("transcribe", "translate")
        out["task"] = "transcribe"  # else generate leaves the task token out of the prompt, and the model may loop
        out["task_to_id"] = {task: special[f"<|{task}|>"] for task in tasks}
        # language tokens are <|xx|> or <|xxx|>, and stand between the start token and the tasks
        out["lang_to_id"] = {
            token: i
            for token, i in special.items()
            if re.fullmatch(r"<\|[a-z]{2,3}\|>", token) and special["<|startoftranscript|>"] < i
        }
    return out


def _non_speech_tokens(multilingual: bool) -> list[int]:
    from transformers.models.whisper.configuration_whisper import NON_SPEECH_TOKENS, NON_SPEECH_TOKENS_MULTI

    return NON_SPEECH_TOKENS_MULTI if multilingual else NON_SPEECH_TOKENS


def _tokenizer_config(special: dict[str, int]) -> dict[str, Any]:
    end = "<|endoftext|>"
    names = [token for token in special if not re.fullmatch(r"<\|\d+\.\d\d\|>", token)]
    return {
        "tokenizer_class": "WhisperTokenizer",
        "processor_class": "WhisperProcessor",
        "bos_token": end,
        "eos_token": end,
        "unk_token": end,
        "pad_token": end,
        "additional_special_tokens": names,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1024,
    }
