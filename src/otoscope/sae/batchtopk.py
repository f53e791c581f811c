"""BatchTopK: the k * n largest pre-activations of a batch of n frames are kept, so that frames may differ in their number.

``L = E|x - x^|^2 + L_aux / 32`` (Bussmann et al. 2024, arXiv 2412.06410). At inference a feature is active above one
threshold, an average over training of the batch's smallest kept value. Its decay is .999 as published, and shorter at
first, ``min(.999, (1 + t) / (10 + t))``, so that a short training has one that fits its end. SAELens decays by .99;
dictionary_learning begins at step 1000. AudioSAE keeps the top k * n of a whole recording at inference instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from otoscope.sae.codes import Codes
from otoscope.sae.dictionary import Context, Defaults, Dictionary, SparsityConfig
from otoscope.sae.sparse_kernels import batch_top_k
from otoscope.sae.topk import TopK


@dataclass(frozen=True)
class BatchTopKConfig(SparsityConfig):
    """Config of :class:`BatchTopK`."""

    threshold_decay: float = 0.999
    """Decay of the average that becomes the threshold of inference."""


class BatchTopK(TopK):
    """The k * n strongest features of a batch; a threshold at inference."""

    architecture = "batchtopk"
    config_class = BatchTopKConfig
    defaults = Defaults(lr=3e-4, betas=(0.9, 0.99))
    config: BatchTopKConfig

    def __init__(self, config: BatchTopKConfig, generator: torch.Generator | None = None) -> None:
        super().__init__(config, generator)
        #: features are active above it; before any training it is 0
        self.register_buffer("threshold", torch.zeros((), dtype=torch.float64))
        #: batches that the threshold has seen
        self.register_buffer("threshold_steps", torch.zeros((), dtype=torch.float64))
        self.threshold: Tensor
        self.threshold_steps: Tensor

    def keep(self, pre: Tensor) -> Tensor:
        return pre.relu() * (pre > self.cut())

    encode_sparse = Dictionary.encode_sparse

    def cut(self) -> float:
        return max(0.0, float(self.threshold))

    def choose(self, centred: Float[Tensor, "frame d"], context: Context) -> Codes:
        return batch_top_k(centred, self.encoder, self.encoder_bias, self.config.k, context.product)

    def entries(self, codes: Codes, centred: Tensor):
        self.follow(codes.values)
        return super().entries(codes, centred)

    @torch.no_grad()
    def follow(self, values: Float[Tensor, " active"]) -> None:
        """Move the threshold towards the smallest value that a batch kept."""
        positive = values[values > 0]
        if len(positive):
            decay = torch.clamp(
                (1 + self.threshold_steps) / (10 + self.threshold_steps), max=self.config.threshold_decay
            )
            decay = torch.where(self.threshold_steps == 0, torch.zeros_like(decay), decay)
            self.threshold.mul_(decay).add_((1 - decay) * positive.min().to(torch.float64))
            self.threshold_steps.add_(1)

    @torch.no_grad()
    def rescale(self, mean: Tensor, scale: float) -> None:
        super().rescale(mean, scale)
        self.threshold.div_(scale)
