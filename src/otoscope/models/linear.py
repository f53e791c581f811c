"""Linear layers of the replay, through oneDNN where that is faster.

PyTorch multiplies float32 matrices on CPU with a library that is slow on AMD processors; oneDNN, which PyTorch brings
along, takes about two thirds of the time there. Both round differently in the last digits only (a test says so).
``OTOSCOPE_ONEDNN=0`` or ``1`` decides; by default it is used on AMD processors.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

#: below this many rows the call itself costs more than it saves
_FEW = 32


@cache
def use_onednn() -> bool:
    """Whether plain linear layers go through oneDNN on this machine."""
    wanted = os.environ.get("OTOSCOPE_ONEDNN", "auto")
    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    if wanted in ("0", "1"):
        return wanted == "1" and there
    cpuinfo = Path("/proc/cpuinfo")
    return there and cpuinfo.exists() and "AuthenticAMD" in cpuinfo.read_text(errors="ignore")[:400]


@contextmanager
def fast_linears(model: nn.Module) -> Iterator[None]:
    """Let every plain linear layer of ``model`` take the faster way for the forwards inside the block."""
    layers = [m for m in model.modules() if type(m) is nn.Linear] if use_onednn() else []
    try:
        for layer in layers:
            layer.forward = partial(linear, layer)  # type: ignore[method-assign]
        yield
    finally:
        for layer in layers:
            del layer.forward


def linear(module: nn.Module, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows d_out"]:
    """``module(x)``; a plain float32 linear layer on CPU without gradients may take the faster way."""
    if (
        type(module) is nn.Linear
        and use_onednn()
        and x.dtype == torch.float32
        and x.device.type == "cpu"
        and x.numel() >= _FEW * x.shape[-1]
        and not torch.is_grad_enabled()
    ):
        return torch.ops.mkldnn._linear_pointwise(x.contiguous(), module.weight, module.bias, "none", [], "")
    return nn.Linear.forward(module, x) if type(module) is nn.Linear else module(x)
