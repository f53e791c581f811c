"""The standard sparse autoencoder: ReLU, and a penalty on the sum of the codes.

``L = E|x - x^|^2 + l1 * E sum_j f_j`` (Bricken et al. 2023). The decoder's rows have unit norm, which makes it equal to
SAELens's penalty ``f_j |D_j|``. ``l1 = 0.1`` with activations scaled to ``E|x|^2 = 1``, and its warm-up, are those of
dictionary_learning; SAELens's 1.0 is for activations scaled to ``E|x| = sqrt(d)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from otoscope.sae.batch import Batch
from otoscope.sae.dictionary import Context, Defaults, Dictionary, DictionaryConfig, Pass
from otoscope.sae.sparse_kernels import pre_activations


@dataclass(frozen=True)
class StandardConfig(DictionaryConfig):
    """Config of :class:`Standard`."""

    l1: float = 0.1
    """Weight of the codes' sum."""


class Standard(Dictionary):
    """ReLU with an L1 penalty."""

    architecture = "standard"
    config_class = StandardConfig
    defaults = Defaults(sparsity_warmup=2000)
    config: StandardConfig

    def keep(self, pre: Tensor) -> Tensor:
        return pre.relu()

    def training_pass(self, batch: Batch, context: Context) -> Pass:
        codes = pre_activations(self.centred(batch.x), self.encoder, self.encoder_bias, context.product).relu()
        error = batch.x - self.decode(codes)
        squared = error.square().sum()
        l1 = codes.sum(1).mean()
        active = codes > 0
        loss = squared / len(batch.x) + self.config.l1 * context.warmth * l1
        terms = {"mse": squared.detach() / len(batch.x), "l1": l1.detach()}
        return Pass(loss, terms, squared.detach(), active.sum().to(torch.float32), active.any(0))
