"""SAELens's layout: ``cfg.json`` and ``sae_weights.safetensors`` (jbloomAus/SAELens, since version 6).

``W_enc`` ``[d_in, d_sae]``, ``b_enc``, ``W_dec`` ``[d_sae, d_in]``, ``b_dec``, and for JumpReLU ``threshold`` ``[d_sae]``.
SAELens writes what was trained with a batch's top k as JumpReLU, and so do we: SAELens then gives the same features. What
it does not know (groups, the training's settings) stands in ``metadata.otoscope``, from which our reader makes the same
dictionary again. ``metadata`` also has ``model_name``, ``hook_name``, ``sampling_rate`` (Hz) and ``frame_rate`` (frames per
second).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from otoscope.errors import ModelError
from otoscope.runs.files import write_bytes, write_json
from otoscope.sae.batchtopk import BatchTopK
from otoscope.sae.dictionary import Dictionary
from otoscope.sae.formats.files import fill, read_config, read_safetensors, taken
from otoscope.sae.jumprelu import JumpReLU
from otoscope.sae.registry import build
from otoscope.sae.topk import TopK

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
#: the version whose layout this is; SAELens takes files without one for those of before version 6
VERSION = "6.54.12"


def recognises(folder: Path) -> bool:
    """Whether the folder has both files."""
    return (folder / CONFIG).exists() and (folder / WEIGHTS).exists()


def write(dictionary: Dictionary, folder: str | Path) -> Path:
    """Write a dictionary so that SAELens loads it; its metadata must be plain data.

    Raises:
        RunError: the folder cannot be written.
    """
    folder = Path(folder)
    config = {
        "architecture": "standard",
        "d_in": dictionary.config.d,
        "d_sae": dictionary.config.n_features,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": dictionary.config.subtract_bias,
        "normalize_activations": "none",
        "reshape_activations": "none",
    }
    tensors = {
        "W_enc": dictionary.encoder.T,
        "b_enc": dictionary.encoder_bias,
        "W_dec": dictionary.decoder,
        "b_dec": dictionary.decoder_bias,
    }
    own: dict[str, Any] = dict(dictionary.describe())
    if isinstance(dictionary, BatchTopK):
        tensors["threshold"] = torch.full_like(dictionary.encoder_bias, dictionary.cut())
        own["threshold"] = dictionary.cut()
    elif isinstance(dictionary, JumpReLU):
        tensors["threshold"] = dictionary.cut()
    if "threshold" in tensors:
        config["architecture"] = "jumprelu"
    elif isinstance(dictionary, TopK):
        config |= {"architecture": "topk", "k": dictionary.config.k, "rescale_acts_by_decoder_norm": False}
    config["metadata"] = {
        "sae_lens_version": VERSION, "sae_lens_training_version": None, **dictionary.metadata, "otoscope": own,
    }  # fmt: skip
    plain = {name: tensor.detach().to("cpu", torch.float32).contiguous() for name, tensor in tensors.items()}
    write_bytes(folder / WEIGHTS, save(plain))
    write_json(folder / CONFIG, config)
    return folder


def read(folder: Path) -> Dictionary:
    """Read a dictionary that SAELens or :func:`write` wrote.

    Raises:
        ModelError: an architecture or setting that has no counterpart here, or a damaged file.
    """
    path = folder / CONFIG
    config, tensors = read_config(path), read_safetensors(folder / WEIGHTS)
    metadata = dict(config.get("metadata") or {})
    own = metadata.pop("otoscope", None)
    for key in ("sae_lens_version", "sae_lens_training_version"):
        metadata.pop(key, None)
    encoder = taken(tensors, "W_enc", folder / WEIGHTS).T
    parts = {
        "encoder": encoder,
        "encoder_bias": taken(tensors, "b_enc", folder / WEIGHTS),
        "decoder": taken(tensors, "W_dec", folder / WEIGHTS),
        "decoder_bias": taken(tensors, "b_dec", folder / WEIGHTS),
    }
    threshold = tensors.get("threshold")
    if own is not None:
        own = dict(own)
        cut = own.pop("threshold", 0.0) if own["architecture"] != "jumprelu" else None
        dictionary = build(own)
        if isinstance(dictionary, BatchTopK):
            parts["threshold"] = torch.tensor(float(cut or 0.0), dtype=torch.float64)
        elif isinstance(dictionary, JumpReLU):
            parts["threshold"] = taken(tensors, "threshold", folder / WEIGHTS)
    else:
        dictionary = build(_described(config, path))
        if isinstance(dictionary, BatchTopK):
            parts["threshold"] = taken(tensors, "topk_threshold", folder / WEIGHTS).to(torch.float64).reshape(())
        elif threshold is not None:
            parts["threshold"] = threshold
        if config.get("rescale_acts_by_decoder_norm"):
            _fold_norm(parts)
    fill(dictionary, parts, folder / WEIGHTS)
    dictionary.metadata = metadata
    return dictionary


def _fold_norm(parts: dict[str, Tensor]) -> None:
    """Features were chosen by pre-activation times decoder norm: make that the pre-activation, and the norm 1."""
    norm = parts["decoder"].norm(dim=1).clamp_min(1e-8)
    parts["encoder"] = parts["encoder"] * norm[:, None]
    parts["encoder_bias"] = parts["encoder_bias"] * norm
    parts["decoder"] = parts["decoder"] / norm[:, None]


def _described(config: dict[str, Any], path: Path) -> dict[str, Any]:
    """Our architecture and settings for a config of SAELens's own."""
    kind = config.get("architecture", "standard")
    before_6 = config.get("activation_fn_str") == "topk" or config.get("activation_fn") == "topk"
    if before_6 and kind == "standard":
        kind = "topk"
    for key, fine in (("normalize_activations", ("none", None, False)), ("reshape_activations", ("none", None))):
        if config.get(key) not in fine:
            raise ModelError(
                f"{path} asks for {key} '{config[key]}', which depends on the model that it ran in: fold it into the weights "
                "with SAELens and save the dictionary again."
            )
    described: dict[str, Any] = {"d": config.get("d_in"), "n_features": config.get("d_sae")}
    described["subtract_bias"] = bool(config.get("apply_b_dec_to_input", True))
    k = config.get("k") or (config.get("activation_fn_kwargs") or {}).get("k") or 1
    k = round(k)  # BatchTopK's may be a fraction, which means as much at inference
    match kind:
        case "standard" | "jumprelu":
            return described | {"architecture": kind}
        case "topk":
            return described | {"architecture": "topk", "k": k}
        case "batchtopk":
            return described | {"architecture": "batchtopk", "k": k}
        case "matryoshka_batchtopk":
            widths = [0, *config["matryoshka_widths"]]
            groups = [(b - a) / described["n_features"] for a, b in zip(widths, widths[1:])]
            return described | {"architecture": "matryoshka", "k": k, "groups": groups}
    raise ModelError(
        f"{path} is of architecture '{kind}', which has no counterpart here: known are standard, topk, batchtopk, "
        "matryoshka_batchtopk, jumprelu."
    )
