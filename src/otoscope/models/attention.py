"""The attention function that otoscope gives to Hugging Face models, so that attention weights can be read and written.

Untapped, it is exactly the library's ``sdpa``. Where a pattern is tapped, the same attention is computed eagerly.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "otoscope"

_visitors: weakref.WeakKeyDictionary[nn.Module, OrderedDict[int, Callable]] = weakref.WeakKeyDictionary()


def visit_pattern(module: nn.Module, visit: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
    """Call ``visit`` with the attention weights of ``module`` on every forward, until the handle is removed."""
    visitors = _visitors.setdefault(module, OrderedDict())
    handle = RemovableHandle(visitors)
    visitors[handle.id] = visit
    return handle


def tapped(module: nn.Module) -> bool:
    """Whether somebody wants to see the attention weights of this module."""
    return bool(_visitors.get(module))


def show_pattern(module: nn.Module, pattern: Tensor) -> Tensor:
    """Pass the weights through every visitor of ``module``, in the order of their arrival."""
    for visit in list(_visitors.get(module, {}).values()):
        new = visit(pattern)
        pattern = pattern if new is None else new
    return pattern


def eager(
    module: nn.Module,
    query: Float[Tensor, "batch head query d_head"],
    key: Float[Tensor, "batch kv_head key d_head"],
    value: Float[Tensor, "batch kv_head key d_head"],
    mask: Tensor | None,
    scaling: float,
) -> Float[Tensor, "batch query head d_head"]:
    """Attention with its weights shown to the visitors of ``module``."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = query @ key.transpose(2, 3) * scaling
    if mask is None and query.shape[2] > 1 and getattr(module, "is_causal", False):
        n_query, n_key = scores.shape[-2:]
        mask = torch.ones(n_query, n_key, dtype=torch.bool, device=scores.device).tril(n_key - n_query)
    if mask is not None:
        mask = mask[..., : key.shape[2]]
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    pattern = show_pattern(module, scores.softmax(-1))
    return (pattern @ value).transpose(1, 2).contiguous()


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    if tapped(module):
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        return eager(module, query, key, value, attention_mask, scale), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
