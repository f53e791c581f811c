"""EleutherAI sparsify's layout, to read: ``cfg.json`` and ``sae.safetensors``.

``encoder.weight`` ``[f, d]``, ``encoder.bias``, ``W_dec`` ``[f, d]``, ``b_dec``; TopK of ``ReLU(E (x - b) + c)``.
"""

from __future__ import annotations

from pathlib import Path

from otoscope.errors import ModelError
from otoscope.sae.dictionary import Dictionary
from otoscope.sae.formats.files import fill, read_config, read_safetensors, taken
from otoscope.sae.registry import build

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"


def recognises(folder: Path) -> bool:
    """Whether the folder has both files."""
    return (folder / CONFIG).exists() and (folder / WEIGHTS).exists()


def read(folder: Path) -> Dictionary:
    """Read a sparse autoencoder of sparsify.

    Raises:
        ModelError: it is a transcoder, has a skip connection or groups, or a file is damaged.
    """
    config, path = read_config(folder / CONFIG), folder / WEIGHTS
    tensors = read_safetensors(path)
    for key, what in (("transcode", "a transcoder"), ("skip_connection", "one with a skip connection")):
        if config.get(key):
            raise ModelError(f"{folder} holds {what}, which reconstructs no activations: give a sparse autoencoder.")
    if config.get("activation", "topk") != "topk":
        raise ModelError(
            f"{folder} keeps features by '{config['activation']}', which is not known here: expected topk."
        )
    encoder = taken(tensors, "encoder.weight", path)
    dictionary = build(
        {"architecture": "topk", "d": encoder.shape[1], "n_features": encoder.shape[0], "k": config["k"]}
    )
    parts = {
        "encoder": encoder,
        "encoder_bias": taken(tensors, "encoder.bias", path),
        "decoder": taken(tensors, "W_dec", path),
        "decoder_bias": taken(tensors, "b_dec", path),
    }
    fill(dictionary, parts, path)
    dictionary.metadata = {"imported_from": "sparsify"}
    return dictionary
