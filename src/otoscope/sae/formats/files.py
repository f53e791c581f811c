"""Reading the files of dictionaries: JSON, safetensors, and weights that were saved by torch, without running code."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from otoscope.errors import ModelError


def read_config(path: Path) -> dict[str, Any]:
    """A JSON object. Raises ModelError where it is missing or is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise ModelError(
            f"{path} cannot be read: expected the JSON config of a dictionary; copy it again."
        ) from problem
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds no config: expected a JSON object; copy it again.")
    return found


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors by name, in float32. Raises ModelError where the file is missing or damaged."""
    try:
        return {name: tensor.to(torch.float32) for name, tensor in load_file(path).items()}
    except (SafetensorError, OSError, ValueError) as problem:
        raise ModelError(f"{path} is missing or damaged: copy the dictionary's weights again.") from problem


def read_weights_only(path: Path) -> dict[str, Tensor]:
    """Tensors of a file that ``torch.save`` wrote, with nothing but weights in it.

    Raises:
        ModelError: it is damaged, or holds objects that only running code could restore.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as problem:
        raise ModelError(
            f"{path} holds more than weights, which only running its code could restore: save its state_dict instead."
        ) from problem
    except (OSError, RuntimeError, ValueError, EOFError) as problem:
        raise ModelError(f"{path} is missing or damaged: copy the dictionary's weights again.") from problem
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ModelError(f"{path} holds no table of tensors: save the state_dict of the dictionary.")
    return {name: tensor.to(torch.float32) for name, tensor in found.items()}


def fill(dictionary: torch.nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Put tensors into a dictionary's parameters and buffers.

    Raises:
        ModelError: one is missing or has another shape.
    """
    own = dictionary.state_dict()
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise ModelError(
                f"{path} gives {name} the shape {list(tensor.shape)}, and {list(own[name].shape)} was expected: its config "
                "and its weights do not belong together."
            )
        own[name] = tensor.to(own[name].dtype)
    dictionary.load_state_dict(own)


def taken(tensors: Mapping[str, Tensor], name: str, path: Path) -> Tensor:
    """A tensor that must be there. Raises ModelError where it is not."""
    if name not in tensors:
        raise ModelError(f"{path} has no tensor '{name}': it holds {', '.join(sorted(tensors)) or 'nothing'}.")
    return tensors[name]
