"""Is this folder a model that can be loaded? Asked before torch is imported, so that the answer is quick and clear."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np

from otoscope.errors import ModelError

#: a safetensors header is far smaller than this; the number is read from the file, which may be damaged
_MAX_HEADER_BYTES = 100_000_000


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``.

    Raises:
        ModelError: it cannot be read, or is something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"'{path}' cannot be read as JSON: {error}.") from None
    if not isinstance(value, dict):
        raise ModelError(f"'{path}' is not a JSON object.")
    return value


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write ``value`` to ``path``, readable by people."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")


def check_folder(folder: Path, cure: str) -> None:
    """Refuse a folder that is not a complete Hugging Face model.

    Args:
        folder: with ``config.json`` and its weights (``model.safetensors``, shards with their index, or
            ``pytorch_model.bin``).
        cure: how the user gets a whole one, the end of each message.

    Raises:
        ModelError: the config or weights are missing, or a safetensors file is truncated or damaged.
    """
    config = folder / "config.json"
    if not config.is_file():
        raise ModelError(f"'{folder}' has no config.json, so it is not a model folder: {cure}.")
    if "model_type" not in read_json(config):
        raise ModelError(f"'{config}' names no model_type, so it is not a Hugging Face model: {cure}.")
    if not has_weights(folder):
        raise ModelError(f"'{folder}' has no model.safetensors (or lacks one of its shards): {cure}.")
    for shard in _shards(folder):
        check_safetensors(shard, cure)


def has_weights(folder: Path) -> bool:
    """Whether ``folder`` has all files of its weights: ``model.safetensors``, every shard of the index,
    ``pytorch_model.bin`` or CTranslate2's ``model.bin``."""
    if shards := _shards(folder):
        return all(shard.is_file() for shard in shards)
    # older formats, whose only honest check is to load them
    return any(next(folder.glob(pattern), None) for pattern in ("pytorch_model*.bin", "model.bin"))


def _shards(folder: Path) -> list[Path]:
    """The safetensors files that make up the weights; empty where they are in another format."""
    index, whole = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if index.is_file():
        return sorted({folder / str(name) for name in read_json(index).get("weight_map", {}).values()})
    return [whole] if whole.is_file() else []


def check_safetensors(path: Path, cure: str) -> None:
    """Compare a safetensors file's length with what its own header promises; reads the header only.

    Raises:
        ModelError: it is truncated or damaged.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        n_header = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= n_header <= _MAX_HEADER_BYTES:
            raise ModelError(f"'{path}' is not a safetensors file: {cure}.")
        try:
            header = json.loads(file.read(n_header))
            end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            raise ModelError(f"'{path}' has a damaged header: {cure}.") from None
    if size != 8 + n_header + end:
        raise ModelError(f"'{path}' has {size} bytes where {8 + n_header + end} were expected: {cure}.")


def save_tensors(tensors: dict[str, np.ndarray], path: Path) -> None:
    """Write ``tensors`` to the safetensors file ``path``.

    Raises:
        OSError: the disk is full or cannot be written (safetensors' own error hides which).
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:
        full = "No space left" in str(error) or "os error 28" in str(error)
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error), str(path)) from error
