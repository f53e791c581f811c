"""Train a dictionary in one call: ``train(Store("activations"), "topk", "8x", k=32)``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from otoscope.errors import ModelError
from otoscope.sae.loggers import Logger
from otoscope.sae.registry import architecture as find
from otoscope.sae.registry import config_from
from otoscope.sae.trainer import Row, Source, Trained, Trainer
from otoscope.sae.training_config import TrainingConfig


def n_features(width: str | int, d: int) -> int:
    """Number of features for a width: ``8x`` times the activations', or a number.

    Raises:
        ModelError: it is neither.
    """
    text = str(width).strip().lower()
    try:
        found = round(float(text[:-1]) * d) if text.endswith("x") else int(text)
    except ValueError:
        found = 0
    if found < 1:
        raise ModelError(f"a width is a number of features or a multiple such as 8x, not '{width}'.")
    return found


def train(
    source: Source,
    architecture: str = "topk",
    width: str | int = "8x",
    config: TrainingConfig | None = None,
    *,
    d: int | None = None,
    folder: Path | None = None,
    loggers: Sequence[Logger] = (),
    progress: Callable[[int, int], None] | None = None,
    report: Callable[[Row], None] | None = None,
    **settings: Any,
) -> Trained:
    """Train a dictionary.

    Args:
        source: a store of activations, or anything with its ``batches``.
        architecture: standard, topk, batchtopk, jumprelu, matryoshka or temporal.
        width: features, as a number or a multiple of the activations' width.
        config: how to train.
        d: width of the activations, where the source does not know it.
        folder: where checkpoints are kept, and found again.
        loggers, progress, report: see :class:`otoscope.sae.trainer.Trainer`.
        settings: the architecture's own, such as ``k``.

    Raises:
        ModelError: an unknown architecture or setting.
        RunError: see :meth:`otoscope.sae.trainer.Trainer.fit`.
    """
    config = config or TrainingConfig()
    d = getattr(source, "d", None) if d is None else d
    if d is None:
        raise ModelError("the source does not say how wide its activations are: give d.")
    kind = find(architecture)
    described = config_from(architecture, {"d": d, "n_features": n_features(width, d), **settings})
    dictionary = kind(described, torch.Generator().manual_seed(config.seed))
    trained = Trainer(dictionary, config, folder, loggers).fit(source, progress, report)
    dictionary.metadata = origin(source) | {
        "normalisation": {
            "kind": config.normalise, "scale": trained.normaliser.scale, "mean": trained.normaliser.mean.tolist(),
        },
        "training": {name: trained.log[-1][name] for name in ("step", "fvu", "l0", "dead")} if trained.log else {},
    }  # fmt: skip
    return trained


def origin(source: Any) -> dict[str, Any]:
    """Where a store's activations come from, under SAELens's names; nothing for what a source does not say."""
    names = {
        "model_name": "model", "hook_name": "site", "sampling_rate": "rate", "frame_rate": "frame_rate",
        "model_weights": "weights",
    }  # fmt: skip
    return {theirs: getattr(source, ours) for theirs, ours in names.items() if hasattr(source, ours)}
