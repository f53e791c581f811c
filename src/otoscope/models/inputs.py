"""What goes into a model: a batch of sounds, of tokens, or of both, as the tensors the model reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from otoscope.errors import TaskError


@dataclass(frozen=True)
class Inputs:
    """A batch, ready for the model.

    Attributes:
        features: log-mel ``[batch, mel, time]`` (Whisper) or samples ``[batch, time]`` (wav2vec2 kin); None for text.
        feature_mask: ``[batch, time]``, 1 where a sample is real; None where the model takes none.
        tokens: ``[batch, pos]`` decoder tokens; None for encoders.
        n_samples: true length of each sound at the model's rate, before padding.
        extra: what else a family's forward takes, by argument name, batch first.
    """

    features: Float[Tensor, "batch ..."] | None = None
    feature_mask: Int[Tensor, "batch time"] | None = None
    tokens: Int[Tensor, "batch pos"] | None = None
    n_samples: tuple[int, ...] = field(default=())
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def batch(self) -> int:
        """Number of items."""
        some = self.features if self.features is not None else self.tokens
        return 0 if some is None else some.shape[0]

    def with_tokens(self, tokens: list[int] | Tensor) -> Inputs:
        """The same sounds with other decoder tokens (one list for all items, or ``[batch, pos]``)."""
        tensor = torch.as_tensor(tokens, dtype=torch.long)
        if tensor.ndim == 1:
            tensor = tensor.expand(self.batch or 1, -1)
        device = self.features.device if self.features is not None else None
        return replace(self, tokens=tensor.to(device))

    def item(self, index: int) -> Inputs:
        """One item of the batch, still with a batch dimension."""

        def one(t: Tensor | None) -> Tensor | None:
            return None if t is None else t[index : index + 1]

        extra = {name: t[index : index + 1] for name, t in self.extra.items()}
        n_samples = self.n_samples[index : index + 1]
        return Inputs(one(self.features), one(self.feature_mask), one(self.tokens), n_samples, extra)

    @staticmethod
    def stack(items: list[Inputs]) -> Inputs:
        """Several inputs as one batch.

        Raises:
            TaskError: their shapes differ, so they cannot share a batch.
        """

        def cat(name: str) -> Tensor | None:
            tensors: list[Any] = [i.extra.get(name) if name in names else getattr(i, name) for i in items]
            if all(t is None for t in tensors):
                return None
            if any(t is None or t.shape[1:] != tensors[0].shape[1:] for t in tensors):
                shapes = ", ".join("none" if t is None else str(tuple(t.shape[1:])) for t in tensors)
                raise TaskError(f"inputs of unequal {name} ({shapes}) cannot be compared: make them of equal length.")
            return torch.cat(tensors)

        names = {name for i in items for name in i.extra}
        n_samples = tuple(n for i in items for n in i.n_samples)
        extra = {name: t for name in sorted(names) if (t := cat(name)) is not None}
        return Inputs(cat("features"), cat("feature_mask"), cat("tokens"), n_samples, extra)
