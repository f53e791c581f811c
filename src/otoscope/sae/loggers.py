"""Where the numbers of a training go beside its own log: TensorBoard or Weights & Biases, where installed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from otoscope.errors import ModelError

#: told a step and its numbers
Logger = Callable[[int, Mapping[str, float]], None]


def tensorboard(folder: str | Path) -> Logger:
    """Writes event files to ``folder``.

    Raises:
        ModelError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as problem:
        raise ModelError("TensorBoard is not installed: pip install tensorboard, or train without it.") from problem
    writer = SummaryWriter(str(folder))

    def log(step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(f"sae/{name}", value, step)
        writer.flush()

    return log


def wandb(project: str, config: Mapping[str, Any] | None = None, name: str | None = None) -> Logger:
    """Sends to a project of Weights & Biases.

    Raises:
        ModelError: wandb is not installed.
    """
    try:
        import wandb as client  # type: ignore[import-not-found]
    except ImportError as problem:
        raise ModelError("Weights & Biases is not installed: pip install wandb, or train without it.") from problem
    run = client.init(project=project, config=dict(config or {}), name=name, resume="allow")

    def log(step: int, values: Mapping[str, float]) -> None:
        run.log(dict(values), step=step)

    return log
