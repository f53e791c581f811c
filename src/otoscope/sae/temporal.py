"""T-SAE: a Matryoshka whose first group is drawn to what stays the same over time (arXiv 2511.05541).

``L = L_matr + alpha L_contr``. ``L_matr = E|x - x^(f_0:h)|^2 + E|x - x^(f)|^2`` with ``h`` = 20% of the features, called
high-level. ``L_contr`` is symmetric InfoNCE on the high-level codes of two frames that belong together, with the other
frames of the batch as negatives and the plain dot product as similarity:
``S = A P'``, ``L_contr = (CE(S, diagonal) + CE(S', diagonal)) / 2``.

Partners are SHORT, the frame ``lag_ms`` earlier, or LONG, any other frame of the same utterance. A store hands out frames
together with their partners; in other batches partners are searched by utterance and time. Negatives may come from the
anchor's own utterance, as in the published code.

Differences between paper and code: ``alpha`` is 1.0 in the paper and .1 in the code (.1 here); the paper's partner is the
previous token, the code's default a random earlier one (SHORT and LONG here); the code weighs the two reconstruction
losses .2 and .8 where the paper sums them (summed here). No temperature in either.

Neighbouring frames of 20 ms overlap in what they hear, so part of any smoothness is free. The controls are settings:
``alpha = 0``; ``shuffle_time``, which pairs frames at random; and a sweep of ``lag_ms``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from otoscope.errors import ModelError
from otoscope.sae.batch import Batch
from otoscope.sae.codes import Codes
from otoscope.sae.dictionary import Context, Defaults
from otoscope.sae.matryoshka import Matryoshka, MatryoshkaConfig
from otoscope.sae.partners import Pairs, long_partners, short_partners


@dataclass(frozen=True)
class TemporalConfig(MatryoshkaConfig):
    """Config of :class:`Temporal`."""

    groups: tuple[float, ...] = (0.2, 0.8)
    """Share of high-level and low-level features."""

    weights: tuple[float, ...] | None = (1.0, 1.0)
    """Weights of the two reconstruction losses."""

    alpha: float = 0.1
    """Weight of the contrastive loss; 0 switches it off (a control)."""

    short: float = 1.0
    """Weight of the partner at a fixed lag."""

    long: float = 0.0
    """Weight of the partner anywhere in the same utterance."""

    lag_ms: float = 20.0
    """How much earlier the SHORT partner is, in milliseconds."""

    tolerance_ms: float = 9.0
    """By how much it may be off: less than half the distance of two frames."""

    max_pairs: int = 1024
    """Pairs that are compared with one another per batch; the cost grows with its square."""

    shuffle_time: bool = False
    """Pair every frame with the partner of another, drawn at random (a control)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha < 0 or self.short < 0 or self.long < 0 or self.lag_ms <= 0 or self.max_pairs < 2:
            raise ModelError(
                "the temporal loss needs alpha, short and long of at least 0, lag_ms above 0 and max_pairs of at least 2, "
                f"not {self.alpha}, {self.short}, {self.long}, {self.lag_ms} and {self.max_pairs}."
            )


def info_nce(anchors: Float[Tensor, "pair h"], partners: Float[Tensor, "pair h"]) -> Float[Tensor, ""]:
    """Symmetric InfoNCE with plain dot products, in nats: ``log pairs`` where codes tell nothing."""
    similar = anchors @ partners.T
    own = torch.arange(len(anchors), device=anchors.device)
    return (cross_entropy(similar, own) + cross_entropy(similar.T, own)) / 2


class Temporal(Matryoshka):
    """Matryoshka with a contrastive loss over time on its first group."""

    architecture = "temporal"
    config_class = TemporalConfig
    defaults = Defaults(lr=3e-4, betas=(0.9, 0.999))
    config: TemporalConfig

    def beside(self, values: Tensor, codes: Codes, batch: Batch, context: Context) -> tuple[Any, dict[str, Tensor]]:
        config = self.config
        if config.alpha == 0 or config.short + config.long == 0:
            return 0.0, {}
        high = self.high_level(values, codes)
        loss: Any = 0.0
        terms: dict[str, Tensor] = {}
        links = context.links
        if config.short > 0:
            pairs = links.short if links else self._search(batch)
            what = f"has another {config.lag_ms:g} ms before it"
            terms["contrast_short"] = part = self._contrast(high, pairs, what, context.generator)
            loss = loss + config.short * part
        if config.long > 0:
            linked = links.long if links else None
            pairs = linked or long_partners(batch.utterance, batch.time, context.generator)
            terms["contrast_long"] = part = self._contrast(high, pairs, "has company", context.generator)
            loss = loss + config.long * part
        return config.alpha * loss, {name: term.detach() for name, term in terms.items()}

    def lag(self) -> float | None:
        """The lag, and None where the contrastive loss is off."""
        on = self.config.alpha > 0 and self.config.short + self.config.long > 0
        return self.config.lag_ms / 1000 if on else None

    def blocks(self) -> int:
        """Blocks of a batch of pairs: frames and those before them, and others where LONG partners are asked for."""
        return 3 if self.config.long > 0 else 2

    def _search(self, batch: Batch) -> Pairs:
        """SHORT partners in a batch whose source did not say which they are."""
        return short_partners(batch.utterance, batch.time, self.config.lag_ms / 1000, self.config.tolerance_ms / 1000)

    def high_level(self, values: Float[Tensor, " active"], codes: Codes) -> Float[Tensor, "frame h"]:
        """Codes of the first group as a matrix, as a function of the values."""
        h = self.config.sizes[0]
        high = codes.features < h
        where = (codes.frames[high], codes.features[high])
        return values.new_zeros(codes.n_frames, h).index_put(where, values[high])

    def _contrast(self, high: Tensor, pairs: Pairs, what: str, generator: torch.Generator | None) -> Tensor:
        anchors, partners = pairs
        if len(anchors) < 2:
            raise ModelError(
                f"in a batch of {len(high)} frames fewer than two {what} in its utterance, so a temporal loss has nothing "
                "to compare: feed batches that hold runs of frames, or set alpha to 0."
            )
        if len(anchors) > self.config.max_pairs:
            chosen = torch.randperm(len(anchors), generator=generator)[: self.config.max_pairs].to(anchors.device)
            anchors, partners = anchors[chosen], partners[chosen]
        if self.config.shuffle_time:
            partners = partners[torch.randperm(len(partners), generator=generator).to(partners.device)]
        return info_nce(high[anchors], high[partners])
