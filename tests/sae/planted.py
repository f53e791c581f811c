"""Activations with known features: sparse sums of a random dictionary, with utterances in which some features last."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from otoscope.sae.batch import Batch


class Planted:
    """A source of frames ``x = sum of k features of a known dictionary + noise + offset``.

    Attributes:
        features: ``[feature, d]`` unit rows, the truth.
        d: width.
    """

    def __init__(self, d: int = 32, n_features: int = 64, k: int = 3, noise: float = 0.01, seed: int = 0) -> None:
        # far from the seeds of dictionaries, which begin as the same kind of random rows
        generator = torch.Generator().manual_seed(10_000_019 + seed)
        rows = torch.randn(n_features, d, generator=generator)
        self.features = rows / rows.norm(dim=1, keepdim=True)
        self.d, self.k, self.noise = d, k, noise

    def frames(self, n: int, seed: int) -> Tensor:
        """``n`` frames."""
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.rand(n, len(self.features), generator=generator).topk(self.k).indices
        codes = torch.zeros(n, len(self.features)).scatter(1, chosen, 0.5 + torch.rand(n, self.k, generator=generator))
        return codes @ self.features + self.noise * torch.randn(n, self.d, generator=generator) + 1

    def batches(self, batch_size: int, *, seed: int = 0, start: int = 0) -> Iterator[Batch]:
        """For ever; utterances of 16 frames of 20 ms."""
        place = torch.arange(batch_size)
        while True:
            x = self.frames(batch_size, 100_003 * seed + start)
            yield Batch(x, place // 16, (place % 16) * 0.02)
            start += 1

    def found(self, decoder: Tensor) -> float:
        """Share of the true features that a row of the decoder matches with a cosine above .9."""
        rows = decoder.detach() / decoder.detach().norm(dim=1, keepdim=True)
        return float(((self.features @ rows.T).amax(1) > 0.9).float().mean())
