"""Nulls for patching: what the same measure gives when nothing should be found.

* random donor: another sound's values instead of the clean one's;
* random direction: the difference to the donor turned by one random rotation, so that rank, norms and inner products
  of the patched difference are kept and only its direction is random;
* untrained weights: the same architecture, freshly initialised.
"""

from __future__ import annotations

import copy
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from otoscope.engine.model import Model


@cache
def rotation(d: int, seed: int) -> Float[Tensor, "d d"]:
    """A rotation drawn uniformly (QR of a Gaussian matrix with the signs of R's diagonal made positive)."""
    gaussian = torch.randn(d, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    q, r = torch.linalg.qr(gaussian)
    return q * r.diagonal().sign()


def randomly_turned(base: Float[Tensor, "... d"], donor: Float[Tensor, "... d"], seed: int) -> Float[Tensor, "... d"]:
    """``base`` plus the difference to ``donor``, turned by one random rotation of the last dimension."""
    difference = (donor - base).double()
    return (base.double() + difference @ rotation(base.shape[-1], seed).to(base.device)).to(base.dtype)


def untrained(model: Model, seed: int = 0) -> Model:
    """The same architecture with freshly initialised weights; tokenizer and feature extractor are shared."""
    adapter = model.adapter
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        hf = type(adapter.hf)(copy.deepcopy(adapter.hf.config)).to(adapter.device, adapter.dtype)
    if hasattr(adapter.hf, "generation_config"):
        hf.generation_config = adapter.hf.generation_config
    return Model(type(adapter)(hf, f"untrained {adapter.name}", adapter.tokenizer, adapter.feature_extractor))
