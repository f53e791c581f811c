"""Matryoshka-BatchTopK: every prefix of the features must reconstruct on its own, so that general features come first.

``L = sum_m w_m E|x - x^(f_0:m)|^2 + L_aux / 32`` over the prefixes that end at each group (Bussmann et al. 2025, arXiv
2503.17547), groups d/16, d/16, d/8, d/4, d/2 of the features and ``w_m = 1 / groups``. SAELens sums over prefixes
(``w_m = 1``); dictionary_learning divides by their number twice. The entries are those of BatchTopK, decoded group by
group in one pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from otoscope.errors import ModelError
from otoscope.sae.batch import Batch
from otoscope.sae.batchtopk import BatchTopK, BatchTopKConfig
from otoscope.sae.codes import Codes
from otoscope.sae.dictionary import Context, Pass
from otoscope.sae.sparse_kernels import by_feature, decode_entries


@dataclass(frozen=True)
class MatryoshkaConfig(BatchTopKConfig):
    """Config of :class:`Matryoshka`."""

    groups: tuple[float, ...] = (1 / 16, 1 / 16, 1 / 8, 1 / 4, 1 / 2)
    """Share of the features in each group, general ones first; they sum to 1."""

    weights: tuple[float, ...] | None = None
    """Weight of each prefix's reconstruction loss; None: the mean over prefixes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "groups", tuple(self.groups))  # a file gives a list
        if self.weights is not None:
            object.__setattr__(self, "weights", tuple(self.weights))
        if not self.groups or abs(sum(self.groups) - 1) > 1e-6 or 0 in (sizes := self.sizes) or min(sizes) < 0:
            raise ModelError(
                f"groups {list(self.groups)} do not split {self.n_features} features: give shares that sum to 1 and hold "
                "at least one feature each."
            )
        if self.weights is not None and len(self.weights) != len(self.groups):
            raise ModelError(f"{len(self.groups)} groups need as many weights, not {len(self.weights)}.")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Features in each group."""
        ends, done = [], 0.0
        for share in self.groups:
            done += share
            ends.append(round(done * self.n_features))
        return tuple(b - a for a, b in zip([0, *ends[:-1]], ends))


class Matryoshka(BatchTopK):
    """BatchTopK whose prefixes reconstruct on their own."""

    architecture = "matryoshka"
    config_class = MatryoshkaConfig
    config: MatryoshkaConfig

    def training_pass(self, batch: Batch, context: Context) -> Pass:
        with torch.no_grad():
            centred = self.centred(batch.x)
        codes = self.choose(centred, context)
        values, _ = self.entries(codes, centred)
        errors = batch.x[:, None] - self.prefixes(values, codes)
        squared = errors.square().sum(2).sum(0)
        n_groups = len(self.config.groups)
        weights = squared.new_tensor(self.config.weights or [1 / n_groups] * n_groups)
        loss, terms = self.with_revival((weights * squared).sum() / len(batch.x), batch.x, errors[:, -1], context)
        extra, named = self.beside(values, codes, batch, context)
        terms |= {"mse": squared[-1].detach() / len(batch.x), "mse_first": squared[0].detach() / len(batch.x)} | named
        return Pass(loss + extra, terms, squared[-1].detach(), *self.activity(values, codes))

    def beside(self, values: Tensor, codes: Codes, batch: Batch, context: Context) -> tuple[Any, dict[str, Tensor]]:
        """A loss beside reconstruction, and its value under its name; none here."""
        return 0.0, {}

    def prefixes(self, values: Float[Tensor, " active"], codes: Codes) -> Float[Tensor, "frame group d"]:
        """Reconstruction from each prefix of the groups. ``codes`` must be sorted by frame and feature."""
        n_groups, device = len(self.config.groups), values.device
        starts = torch.tensor(self.config.sizes, device=device).cumsum(0)
        group = torch.searchsorted(starts, codes.features, right=True)
        counts = torch.bincount(codes.frames * n_groups + group, minlength=codes.n_frames * n_groups)
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        entries = by_feature(codes.features, offsets, self.config.n_features)
        parts = decode_entries(values, codes.features, offsets, self.decoder, entries)
        return parts.view(codes.n_frames, n_groups, -1).cumsum(1) + self.decoder_bias
