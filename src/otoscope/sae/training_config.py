"""How a dictionary is trained: steps, learning rate, what happens to dead features, what is kept."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Literal

from otoscope.errors import ModelError
from otoscope.sae.dictionary import Defaults

Normalisation = Literal["standard", "scale", "sqrt_d", "none"]


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of a training. What is None comes from the architecture, as published."""

    steps: int = 10_000
    """Batches."""

    batch_size: int = 4096
    """Frames per batch, over all processes together."""

    lr: float | None = None
    """Learning rate of Adam at its height."""

    betas: tuple[float, float] | None = None
    """Adam's decay rates."""

    warmup: int = 1000
    """Steps over which the learning rate rises, linearly."""

    decay: float = 0.2
    """Share of the steps, at the end, over which it falls to 0, linearly."""

    sparsity_warmup: int | None = None
    """Steps over which the sparsity loss of standard and jumprelu rises."""

    clip: float | None = 1.0
    """Largest norm of the whole gradient; None: not clipped."""

    unit_decoder: bool = True
    """Keep the decoder's rows at unit norm, and take the gradient along them away."""

    aux_coefficient: float = 1 / 32
    """Weight of the loss that revives dead features (kinds that keep k features); 0: none."""

    aux_k: int | None = None
    """Dead features that may be active per frame in that loss; None: half the width of the activations."""

    dead_after: int = 1_000_000
    """Frames without activity after which a feature counts as dead. Published: 10 million tokens of text; a million frames
    of 20 ms are five and a half hours of sound."""

    normalise: Normalisation = "standard"
    """Activations are shifted and scaled so that ``E|x - E x|^2 = 1`` ("standard"), only scaled so that ``E|x|^2 = 1``
    ("scale", dictionary_learning) or ``E|x| = sqrt(d)`` ("sqrt_d", SAELens), or left alone ("none")."""

    normalise_batches: int = 25
    """Batches from which that is fitted, once."""

    bias: Literal["median", "mean", "zero"] = "median"
    """What the decoder's bias begins as: the geometric median or the mean of the first batch, or 0."""

    seed: int = 0
    """Seed of the weights, of the order of the data and of every random choice."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of the encoder's dense product; weights, sums and optimiser stay in float32. bfloat16 is for GPUs."""

    device: str = "cpu"
    """cpu, cuda, cuda:0."""

    checkpoint_every: int = 1000
    """Steps between checkpoints."""

    log_every: int = 100
    """Steps between rows of the log."""

    def __post_init__(self) -> None:
        if self.betas is not None:
            object.__setattr__(self, "betas", tuple(self.betas))
        self._check_numbers()
        for name in ("steps", "batch_size", "dead_after", "normalise_batches", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise ModelError(f"{name} of a training must be at least 1, not {getattr(self, name)}.")
        if not 0 <= self.decay <= 1 or self.warmup < 0:
            raise ModelError(f"decay is a share from 0 to 1 and warmup at least 0, not {self.decay} and {self.warmup}.")
        if self.precision == "bfloat16" and self.device == "cpu":
            raise ModelError("bfloat16 is for GPUs: on a CPU train in float32, or give --device cuda.")
        choices = {
            "normalise": ("standard", "scale", "sqrt_d", "none"),
            "bias": ("median", "mean", "zero"),
            "precision": ("float32", "bfloat16"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ModelError(f"{name} of a training is one of {', '.join(known)}, not '{getattr(self, name)}'.")

    def _check_numbers(self) -> None:
        """What should be a number is one, and counts are whole."""
        for f in fields(self):
            value, kind = getattr(self, f.name), str(f.type).removesuffix(" | None")
            if kind not in ("int", "float") or (value is None and kind != f.type):
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise ModelError(f"{f.name} of a training is a number, not {value!r}.")
            if kind == "int":
                if value != int(value):
                    raise ModelError(f"{f.name} of a training is a whole number, not {value}.")
                object.__setattr__(self, f.name, int(value))  # 1e4 is a float

    def completed(self, defaults: Defaults) -> TrainingConfig:
        """The same with an architecture's published values where nothing was said."""
        return replace(
            self,
            lr=defaults.lr if self.lr is None else self.lr,
            betas=defaults.betas if self.betas is None else self.betas,
            sparsity_warmup=defaults.sparsity_warmup if self.sparsity_warmup is None else self.sparsity_warmup,
        )
