"""What every sparse dictionary is: an encoder, a rule that keeps few features, a decoder.

``f = rule(E (x - b) + c)``, ``x^ = D' f + b``. ``E`` and ``D`` hold one feature per row, so that a feature's reading and
writing directions are rows. An architecture is one file: its config, its rule and its training loss.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from otoscope.errors import ModelError
from otoscope.sae.batch import Batch
from otoscope.sae.codes import Codes
from otoscope.sae.partners import Links
from otoscope.sae.sparse_kernels import above, weighted_rows


@dataclass(frozen=True)
class DictionaryConfig:
    """What all architectures share."""

    d: int
    """Width of the activations."""

    n_features: int
    """Number of features."""

    subtract_bias: bool = True
    """Whether the decoder's bias is subtracted before encoding, as all do but the JumpReLU of dictionary_learning."""

    def __post_init__(self) -> None:
        if self.d < 1 or self.n_features < 1:
            raise ModelError(f"a dictionary needs d and n_features of at least 1, not {self.d} and {self.n_features}.")


@dataclass(frozen=True)
class SparsityConfig(DictionaryConfig):
    """What the kinds that keep a fixed number of features share."""

    k: int = 32
    """Features kept per frame (BatchTopK and its descendants: on average over a batch)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.k <= self.n_features:
            raise ModelError(
                f"k = {self.k} features of {self.n_features} cannot be kept: give a k from 1 to {self.n_features}."
            )


@dataclass(frozen=True)
class Defaults:
    """How an architecture was trained where it was published; a training config that leaves these open gets them."""

    lr: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.999)
    sparsity_warmup: int = 0


class Context(NamedTuple):
    """What a training pass is told beside its batch."""

    dead: Bool[Tensor, " feature"] | None = None
    """Features that have not been active for long; None while none is."""

    warmth: float = 1.0
    """How far the sparsity loss is warmed up, 0 to 1."""

    aux_k: int = 0
    """Dead features that may try to explain a frame's error; 0 for no such loss."""

    aux_coefficient: float = 0.0
    """Weight of that loss."""

    generator: torch.Generator | None = None
    """Source of every random choice."""

    product: torch.dtype = torch.float32
    """Type of the encoder's dense product."""

    links: Links | None = None
    """Which frames of the batch belong together in time, where its source says so."""


class Pass(NamedTuple):
    """What a training pass gives back."""

    loss: Float[Tensor, ""]
    """What is minimised; carries the graph."""

    terms: dict[str, Float[Tensor, ""]]
    """Its parts, before their weights, without a graph."""

    squared_error: Float[Tensor, ""]
    """Sum over frames of ``|x - x^|^2``."""

    n_active: Float[Tensor, ""]
    """Active entries over all frames."""

    fired: Bool[Tensor, " feature"]
    """Features active in at least one frame."""


class Dictionary(nn.Module, ABC):
    """A sparse dictionary.

    Attributes:
        encoder, decoder: ``[feature, d]``.
        encoder_bias: ``[feature]``.
        decoder_bias: ``[d]``.
        metadata: where the activations came from and how they were normalised; plain data, stored with the weights.
    """

    architecture: ClassVar[str]
    config_class: ClassVar[type[DictionaryConfig]]
    defaults: ClassVar[Defaults] = Defaults()

    def __init__(self, config: DictionaryConfig, generator: torch.Generator | None = None) -> None:
        """Random unit decoder rows; the encoder begins as their copy, biases as 0."""
        super().__init__()
        self.config = config
        rows = torch.randn(config.n_features, config.d, generator=generator)
        rows /= rows.norm(dim=1, keepdim=True)
        self.encoder = nn.Parameter(rows.clone())
        self.encoder_bias = nn.Parameter(torch.zeros(config.n_features))
        self.decoder = nn.Parameter(rows)
        self.decoder_bias = nn.Parameter(torch.zeros(config.d))
        self.metadata: dict[str, Any] = {}

    # -- using ------------------------------------------------------------------------------------------------------

    def encode(self, x: Float[Tensor, "frame d"]) -> Float[Tensor, "frame feature"]:
        """Codes as a matrix, differentiable.

        Raises:
            ModelError: ``x`` is not ``[frame, d]``.
        """
        self._check(x)
        return self.keep(torch.addmm(self.encoder_bias, self.centred(x), self.encoder.T))

    @torch.no_grad()
    def encode_sparse(self, x: Float[Tensor, "frame d"]) -> Codes:
        """The same codes without the zeros, without a graph and never more than 16 MB of pre-activations at a time."""
        self._check(x)
        return above(self.centred(x), self.encoder, self.encoder_bias, self.cut())

    def decode(self, codes: Float[Tensor, "frame feature"] | Codes) -> Float[Tensor, "frame d"]:
        """Frames from codes."""
        if isinstance(codes, Codes):
            return weighted_rows(self.decoder, codes.features, codes.offsets, codes.values) + self.decoder_bias
        return codes @ self.decoder + self.decoder_bias

    def forward(self, x: Float[Tensor, "frame d"]) -> Float[Tensor, "frame d"]:
        """Frames through the dictionary."""
        return self.decode(self.encode(x) if torch.is_grad_enabled() else self.encode_sparse(x))

    @abstractmethod
    def keep(self, pre: Float[Tensor, "frame feature"]) -> Float[Tensor, "frame feature"]:
        """Codes from pre-activations, as at inference."""

    def cut(self) -> Float[Tensor, " feature"] | float:
        """Above which pre-activation a feature is active, for the kinds whose rule is a threshold."""
        return 0.0

    def centred(self, x: Float[Tensor, "frame d"]) -> Float[Tensor, "frame d"]:
        """What the encoder reads."""
        return x - self.decoder_bias if self.config.subtract_bias else x

    def _check(self, x: Tensor) -> None:
        if x.ndim != 2 or x.shape[1] != self.config.d:
            raise ModelError(
                f"this dictionary reads activations of shape [frame, {self.config.d}], not {list(x.shape)}: "
                "use the site and model that it was trained on, one row per frame."
            )

    # -- training ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def training_pass(self, batch: Batch, context: Context) -> Pass:
        """The loss on a batch whose ``x`` is normalised."""

    def lag(self) -> float | None:
        """Seconds between the frames of the pairs that a batch should be made of; None where any frames will do."""
        return None

    def blocks(self) -> int:
        """Of how many frames such a pair consists: itself and the one before, and another of its utterance."""
        return 2

    @torch.no_grad()
    def project_gradient(self) -> None:
        """Take from the decoder's gradient what points along its rows: it would only change their norm, which is fixed."""
        grad = self.decoder.grad
        if grad is not None:
            grad.addcmul_(self.decoder, (grad * self.decoder).sum(1, keepdim=True), value=-1)

    @torch.no_grad()
    def unit_decoder(self) -> None:
        """Give the decoder's rows unit norm."""
        self.decoder.div_(self.decoder.norm(dim=1, keepdim=True).clamp_min(torch.finfo(self.decoder.dtype).tiny))

    def constrain(self) -> None:
        """What must hold after every step, beside the decoder's norm."""
        return

    @torch.no_grad()
    def rescale(self, mean: Float[Tensor, " d"], scale: float) -> None:
        """Make a dictionary of ``(x - mean) * scale`` one of ``x``, with codes in the units of ``x``.

        The rows of encoder and decoder stay as they are; biases and thresholds change, so that what was active is.
        """
        if self.config.subtract_bias:
            self.decoder_bias.div_(scale).add_(mean)
            self.encoder_bias.div_(scale)
        else:
            self.encoder_bias.div_(scale).sub_(self.encoder @ mean)
            self.decoder_bias.div_(scale).add_(mean)

    def describe(self) -> dict[str, Any]:
        """Architecture and config as plain data, for :func:`otoscope.sae.registry.build`."""
        return {"architecture": self.architecture, **asdict(self.config)}
