"""JumpReLU: a feature is active above a threshold of its own, which is learned (Rajamanoharan et al. 2024, arXiv 2407.14435).

``f = z 1[z > theta]``. The jump has no useful derivative, so one is made up from a rectangle of width ``bandwidth`` around
the threshold, ``K(u) = 1[|u| < 1/2]``: ``df/dtheta = -(theta / w) K((z - theta) / w)`` and, for the count of active
features, ``d 1[z > theta] / dtheta = -(1 / w) K((z - theta) / w)``. No gradient of the count reaches ``z``.

``L = E|x - x^|^2 + l0 * (L0 / L0* - 1)^2`` (``penalty="target"``, dictionary_learning), or ``+ l0 * L0`` (``"linear"``, the
paper and SAELens).

Differences: the bandwidth is .001 in the paper and dictionary_learning, .05 in SAELens (whose inputs are sqrt(d) times as
long); theta begins at .001 there, at .01 in SAELens; the paper learns ``log theta``, both codes and this one ``theta``,
kept at 0 or above. dictionary_learning counts with the derivative at the *jumped* value, which loses the rectangle's lower
half; here it is taken at ``z``, as in the paper. The square is of the batch's mean L0, in SAELens's quadratic mode of each
frame's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from otoscope.errors import ModelError
from otoscope.sae.batch import Batch
from otoscope.sae.dictionary import Context, Defaults, Dictionary, DictionaryConfig, Pass
from otoscope.sae.sparse_kernels import pre_activations


@dataclass(frozen=True)
class JumpReLUConfig(DictionaryConfig):
    """Config of :class:`JumpReLU`."""

    target_l0: float = 32.0
    """Active features per frame that the penalty "target" asks for."""

    l0: float = 1.0
    """Weight of the penalty."""

    penalty: Literal["target", "linear"] = "target"
    """The squared distance to a target, or the plain count."""

    bandwidth: float = 0.001
    """Width of the rectangle, in units of the normalised activations."""

    threshold: float = 0.001
    """Where every threshold begins, in the same units."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bandwidth <= 0 or self.threshold < 0 or self.target_l0 <= 0:
            raise ModelError(
                "JumpReLU needs bandwidth and target_l0 above 0 and a threshold of at least 0, not "
                f"{self.bandwidth}, {self.target_l0} and {self.threshold}."
            )
        if self.penalty not in ("target", "linear"):
            raise ModelError(f"there is no penalty '{self.penalty}': penalties are target, linear.")


class _Jump(torch.autograd.Function):
    """``z 1[z > theta]``."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, theta: Tensor, width: float) -> Tensor:
        ctx.save_for_backward(z, theta)
        ctx.width = width
        return z * (z > theta)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        z, theta = ctx.saved_tensors
        near = ((z - theta).abs() < ctx.width / 2) * grads[0]
        return (z > theta) * grads[0], -(theta / ctx.width) * near.sum(0), None


class _Count(torch.autograd.Function):
    """``1[z > theta]``, without a gradient to z."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, theta: Tensor, width: float) -> Tensor:
        ctx.save_for_backward(z, theta)
        ctx.width = width
        return (z > theta).to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        z, theta = ctx.saved_tensors
        near = ((z - theta).abs() < ctx.width / 2) * grads[0]
        return None, -near.sum(0) / ctx.width, None


def jump(
    z: Float[Tensor, "frame feature"], theta: Float[Tensor, " feature"], width: float
) -> Float[Tensor, "frame feature"]:
    """JumpReLU with the rectangle's derivative for ``theta``."""
    return _Jump.apply(z, theta, width)  # type: ignore[return-value]


def count(
    z: Float[Tensor, "frame feature"], theta: Float[Tensor, " feature"], width: float
) -> Float[Tensor, "frame feature"]:
    """1 where a feature is active, with the rectangle's derivative for ``theta``."""
    return _Count.apply(z, theta, width)  # type: ignore[return-value]


class JumpReLU(Dictionary):
    """A learned threshold per feature."""

    architecture = "jumprelu"
    config_class = JumpReLUConfig
    defaults = Defaults(lr=7e-5, betas=(0.0, 0.999), sparsity_warmup=2000)
    config: JumpReLUConfig

    def __init__(self, config: JumpReLUConfig, generator: torch.Generator | None = None) -> None:
        super().__init__(config, generator)
        self.threshold = nn.Parameter(torch.full((config.n_features,), config.threshold))

    def keep(self, pre: Tensor) -> Tensor:
        return pre * (pre > self.cut())

    def cut(self) -> Tensor:
        return self.threshold.detach().clamp(min=0)

    def training_pass(self, batch: Batch, context: Context) -> Pass:
        config = self.config
        pre = pre_activations(self.centred(batch.x), self.encoder, self.encoder_bias, context.product)
        codes = jump(pre, self.threshold, config.bandwidth)
        l0 = count(pre, self.threshold, config.bandwidth).sum(1).mean()
        squared = (batch.x - self.decode(codes)).square().sum()
        penalty = (l0 / config.target_l0 - 1).square() if config.penalty == "target" else l0
        loss = squared / len(batch.x) + config.l0 * context.warmth * penalty
        active = codes > 0
        terms = {"mse": squared.detach() / len(batch.x), "penalty": penalty.detach()}
        return Pass(loss, terms, squared.detach(), active.sum().to(torch.float32), active.any(0))

    @torch.no_grad()
    def constrain(self) -> None:
        self.threshold.clamp_(min=0)

    @torch.no_grad()
    def rescale(self, mean: Tensor, scale: float) -> None:
        super().rescale(mean, scale)
        self.threshold.div_(scale)
