"""Sparse codes: which features are active in which frame, and how strongly."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Codes(NamedTuple):
    """The active features of frames, frame after frame (compressed sparse rows).

    ``values`` ``[active]`` strengths, in the units of the activations (or of the training's normalisation);
    ``features`` ``[active]`` their numbers; ``offsets`` ``[frame + 1]``: frame ``i`` owns ``offsets[i]:offsets[i + 1]``.
    """

    values: Float[Tensor, " active"]
    features: Int[Tensor, " active"]
    offsets: Int[Tensor, " edge"]

    @property
    def n_frames(self) -> int:
        return self.offsets.shape[0] - 1

    @property
    def frames(self) -> Int[Tensor, " active"]:
        """The frame that each entry belongs to."""
        counts = self.offsets.diff()
        return torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)

    def dense(self, n_features: int) -> Float[Tensor, "frame feature"]:
        """The same as a matrix, zero where a feature is not active."""
        out = self.values.new_zeros(self.n_frames, n_features)
        out[self.frames, self.features] = self.values
        return out

    @classmethod
    def of_top_k(cls, values: Float[Tensor, "frame k"], features: Int[Tensor, "frame k"]) -> Codes:
        """Codes with the same number of entries in every frame; those of value 0 are entries as well."""
        n, k = values.shape
        return cls(values.reshape(-1), features.reshape(-1), torch.arange(0, n * k + 1, k, device=values.device))

    @classmethod
    def of_dense(cls, dense: Float[Tensor, "frame feature"]) -> Codes:
        """The entries of a matrix that are not 0."""
        frames, features = dense.nonzero(as_tuple=True)
        counts = torch.bincount(frames, minlength=dense.shape[0])
        return cls(dense[frames, features], features, _edges(counts))

    @classmethod
    def join(cls, parts: list[Codes]) -> Codes:
        """Codes of frames that follow one another."""
        counts = torch.cat([part.offsets.diff() for part in parts])
        return cls(torch.cat([p.values for p in parts]), torch.cat([p.features for p in parts]), _edges(counts))


def _edges(counts: Int[Tensor, " frame"]) -> Int[Tensor, " edge"]:
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])
