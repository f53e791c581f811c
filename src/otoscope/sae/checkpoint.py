"""The state of a training in one file: weights, optimiser, place in the data, log.

One safetensors file whose header holds the plain data as JSON, written whole or not at all, so that a killed process
leaves the one before. A training that goes on from it gives the same bits as one that was never stopped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from otoscope.errors import RunError
from otoscope.runs.files import write_bytes

NAME = "checkpoint.safetensors"


class Checkpoint(NamedTuple):
    """``tensors`` by name; ``info`` plain data."""

    tensors: dict[str, Tensor]
    info: dict[str, Any]


def write(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint of a folder.

    Raises:
        RunError: it cannot be written (a full disk, no permission); the one before is still there.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    write_bytes(folder / NAME, save(tensors, {"otoscope": json.dumps(checkpoint.info)}))


def read(folder: Path) -> Checkpoint | None:
    """The checkpoint of a folder; None where there is none.

    Raises:
        RunError: the file is damaged or not a checkpoint.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            info = json.loads((file.metadata() or {})["otoscope"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError) as problem:
        raise RunError(
            f"{path} is damaged or no checkpoint of a training: delete it to start that training afresh."
        ) from problem
    return Checkpoint(tensors, info)
