"""dictionary_learning's layout, to read: ``ae.pt`` and ``config.json`` (saprmarks/dictionary_learning; AudioSAE uses it).

``config.json`` names the class in ``trainer.dict_class``. Linear layers hold ``decoder.weight`` as ``[d, f]``; what is a
parameter of its own, ``W_enc`` as ``[d, f]`` and ``W_dec`` as ``[f, d]``. ``AutoEncoder`` is brought to unit decoder norm,
as the library does when it loads one. ``AutoEncoderTopK`` keeps the top k even where a threshold was stored, which is the
library's default. Weights only: nothing is unpickled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from otoscope.errors import ModelError
from otoscope.sae.dictionary import Dictionary
from otoscope.sae.formats.files import fill, read_config, read_weights_only, taken
from otoscope.sae.registry import build

CONFIG, WEIGHTS = "config.json", "ae.pt"
#: their class -> our architecture
KINDS = {
    "AutoEncoder": "standard",
    "AutoEncoderNew": "standard",
    "AutoEncoderTopK": "topk",
    "BatchTopKSAE": "batchtopk",
    "MatryoshkaBatchTopKSAE": "matryoshka",
    "JumpReluAutoEncoder": "jumprelu",
}


def recognises(folder: Path) -> bool:
    """Whether the folder has weights of that name."""
    return (folder / WEIGHTS).exists()


def read(folder: Path) -> Dictionary:
    """Read a dictionary of dictionary_learning or AudioSAE.

    Raises:
        ModelError: a class that has no counterpart here, a damaged file, or one that holds more than weights.
    """
    trainer: dict[str, Any] = read_config(folder / CONFIG).get("trainer") or {}
    theirs, path = trainer.get("dict_class", ""), folder / WEIGHTS
    if theirs not in KINDS:
        raise ModelError(f"{folder} holds a '{theirs}', which has no counterpart here: known are {', '.join(KINDS)}.")
    tensors = read_weights_only(path)
    linear = "encoder.weight" in tensors
    encoder = tensors["encoder.weight"] if linear else taken(tensors, "W_enc", path).T
    decoder = taken(tensors, "decoder.weight", path).T if linear else taken(tensors, "W_dec", path)
    bias = next((name for name in ("b_dec", "bias", "decoder.bias") if name in tensors), "b_dec")
    parts = {
        "encoder": encoder,
        "encoder_bias": taken(tensors, "encoder.bias" if linear else "b_enc", path),
        "decoder": decoder,
        "decoder_bias": taken(tensors, bias, path),
    }
    described: dict[str, Any] = {
        "architecture": KINDS[theirs], "d": encoder.shape[1], "n_features": encoder.shape[0],
        "subtract_bias": theirs not in ("AutoEncoderNew", "JumpReluAutoEncoder"),
    }  # fmt: skip
    if described["architecture"] in ("topk", "batchtopk", "matryoshka"):
        described["k"] = int(tensors["k"]) if "k" in tensors else trainer["k"]
    if theirs in ("BatchTopKSAE", "MatryoshkaBatchTopKSAE", "JumpReluAutoEncoder"):
        parts["threshold"] = taken(tensors, "threshold", path)
    if theirs == "MatryoshkaBatchTopKSAE":
        described["groups"] = (taken(tensors, "group_sizes", path).to(torch.float64) / encoder.shape[0]).tolist()
    if theirs == "AutoEncoder":
        _unit_norm(parts)
    dictionary = build(described)
    fill(dictionary, parts, path)
    dictionary.metadata = {"imported_from": "dictionary_learning"}
    if "lm_name" in trainer:
        dictionary.metadata |= {"model_name": trainer["lm_name"], "layer": trainer.get("layer")}
    return dictionary


def _unit_norm(parts: dict[str, Tensor]) -> None:
    norm = parts["decoder"].norm(dim=1)
    parts["decoder"] = parts["decoder"] / norm[:, None]
    parts["encoder"] = parts["encoder"] * norm[:, None]
    parts["encoder_bias"] = parts["encoder_bias"] * norm
