"""TopK: the k largest pre-activations of every frame are kept (Gao et al. 2024, arXiv 2406.04093).

``L = E|x - x^|^2 + L_aux / 32``. Training never forms a dense matrix of codes: see ``sparse_kernels``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from otoscope.sae.batch import Batch
from otoscope.sae.codes import Codes
from otoscope.sae.dictionary import Context, Defaults, Dictionary, Pass, SparsityConfig
from otoscope.sae.revival import auxiliary_loss
from otoscope.sae.sparse_kernels import by_feature, decode_entries, encode_entries, top_k


@dataclass(frozen=True)
class TopKConfig(SparsityConfig):
    """Config of :class:`TopK`."""


class TopK(Dictionary):
    """The k strongest features of every frame."""

    architecture = "topk"
    config_class = TopKConfig
    defaults = Defaults(lr=3e-4, betas=(0.9, 0.999))
    config: SparsityConfig

    def keep(self, pre: Tensor) -> Tensor:
        strongest = pre.topk(self.config.k, sorted=False)
        return torch.zeros_like(pre).scatter(1, strongest.indices, strongest.values.relu())

    @torch.no_grad()
    def encode_sparse(self, x: Float[Tensor, "frame d"]) -> Codes:
        """Exactly k entries per frame, in no order; some may be 0 where fewer pre-activations are positive."""
        self._check(x)
        codes = top_k(self.centred(x), self.encoder, self.encoder_bias, self.config.k)
        return codes._replace(values=codes.values.relu_())

    def choose(self, centred: Float[Tensor, "frame d"], context: Context) -> Codes:
        """The entries that a training batch keeps, with their pre-activations."""
        return top_k(centred, self.encoder, self.encoder_bias, self.config.k, context.product)

    def training_pass(self, batch: Batch, context: Context) -> Pass:
        with torch.no_grad():
            centred = self.centred(batch.x)
        codes = self.choose(centred, context)
        values, entries = self.entries(codes, centred)
        decoded = decode_entries(values, codes.features, codes.offsets, self.decoder, entries) + self.decoder_bias
        error = batch.x - decoded
        squared = error.square().sum()
        loss, terms = self.with_revival(squared / len(batch.x), batch.x, error, context)
        return Pass(loss, terms, squared.detach(), *self.activity(values, codes))

    def entries(self, codes: Codes, centred: Tensor):
        """Values of the chosen entries as functions of the parameters, and the entries sorted by feature."""
        entries = by_feature(codes.features, codes.offsets, self.config.n_features)
        bias = self.decoder_bias if self.config.subtract_bias else None
        return encode_entries(codes, centred, self.encoder, self.encoder_bias, bias, entries).relu(), entries

    def with_revival(self, mse: Tensor, x: Tensor, error: Tensor, context: Context) -> tuple[Tensor, dict[str, Tensor]]:
        """The reconstruction loss, and the dead features' where there are any; with their values."""
        terms = {"mse": mse.detach()}
        if context.dead is None or context.aux_k == 0 or context.aux_coefficient == 0:
            return mse, terms
        aux = auxiliary_loss(
            self.centred(x), error, self.encoder, self.encoder_bias, self.decoder, context.dead, context.aux_k
        )
        return mse + context.aux_coefficient * aux, terms | {"aux": aux.detach()}

    def activity(self, values: Tensor, codes: Codes) -> tuple[Tensor, Tensor]:
        """Number of active entries, and which features were active."""
        on = values.detach() > 0
        fired = torch.zeros(self.config.n_features, dtype=torch.bool, device=values.device)
        fired[codes.features[on]] = True
        return on.sum().to(torch.float32), fired
