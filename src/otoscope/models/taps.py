"""Taps: how to read and write the value at a site while the Hugging Face model itself runs.

A tap knows one module of the model and attaches a function to it. The function gets the value and returns None (only
reading) or a new value (writing). Modules that return a tuple and modules that return a tensor are handled here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from otoscope.models import attention

#: gets the value at the site, returns None to leave it or a new value of the same shape
Visit = Callable[[Tensor], Tensor | None]


#: hooks that must run after the others of their module
_last: WeakSet[Callable] = WeakSet()


def _after(module: nn.Module, hook: Callable) -> RemovableHandle:
    """Run ``hook`` after the module's forward."""
    handle = module.register_forward_hook(hook)
    _reorder(module._forward_hooks)
    return handle


def _before(module: nn.Module, hook: Callable) -> RemovableHandle:
    """Run ``hook`` before the module's forward."""
    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    _reorder(module._forward_pre_hooks)
    return handle


def _reorder(hooks: dict[int, Callable]) -> None:
    for key in [key for key, hook in hooks.items() if hook in _last]:
        hooks[key] = hooks.pop(key)


class Tap(ABC):
    """One readable and writable place."""

    @abstractmethod
    def attach(self, visit: Visit) -> list[RemovableHandle]:
        """Call ``visit`` whenever the value is computed, until the handles are removed."""


class OutputTap(Tap):
    """The output of a module, or the first element of the tuple it returns."""

    def __init__(self, module: nn.Module, channels_first: bool = False):
        self.module, self.channels_first = module, channels_first

    def attach(self, visit: Visit) -> list[RemovableHandle]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
            value = output[0] if isinstance(output, tuple) else output
            new = visit(value.transpose(1, 2) if self.channels_first else value)
            if new is None:
                return None
            new = new.transpose(1, 2) if self.channels_first else new
            return (new, *output[1:]) if isinstance(output, tuple) else new

        return [_after(self.module, hook)]


class InputTap(Tap):
    """The first input of a module, positional or named ``hidden_states``; split into heads where ``n_heads`` says so."""

    def __init__(self, module: nn.Module, n_heads: int = 0):
        self.module, self.n_heads = module, n_heads

    def attach(self, visit: Visit) -> list[RemovableHandle]:
        def hook(_module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
            value = args[0] if args else kwargs["hidden_states"]
            new = visit(value.unflatten(-1, (self.n_heads, -1)) if self.n_heads else value)
            if new is None:
                return None
            new = new.flatten(-2) if self.n_heads else new
            return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

        return [_before(self.module, hook)]


class SumTap(Tap):
    """The residual stream between two parts of a pre-LN layer: the layer's input plus what its parts have added.

    No module returns this value, so writing it changes the last part that was added by the difference; a value written
    back unchanged therefore changes nothing at all. Its hooks run after all others of the same modules, whenever those
    were attached: a part is read and changed as itself, before the sum is made of it. ``factor`` is what the layer
    multiplies its last part by.
    """

    def __init__(self, layer: nn.Module, parts: list[nn.Module], factor: float = 1.0):
        self.layer, self.parts, self.factor = layer, parts, factor

    def attach(self, visit: Visit) -> list[RemovableHandle]:
        total: list[Tensor] = []

        def start(_module: nn.Module, args: tuple, kwargs: dict) -> None:
            total[:] = [args[0] if args else kwargs["hidden_states"]]

        def add(_module: nn.Module, _args: Any, output: Any) -> None:
            total[0] = total[0] + (output[0] if isinstance(output, tuple) else output)

        def finish(_module: nn.Module, _args: Any, output: Any) -> Any:
            part = output[0] if isinstance(output, tuple) else output
            value = total[0] + (part if self.factor == 1.0 else part * self.factor)
            new = visit(value)
            if new is None:
                return None
            part = part + (new - value) / self.factor
            return (part, *output[1:]) if isinstance(output, tuple) else part

        _last.update((start, add, finish))
        earlier = [_after(part, add) for part in self.parts[:-1]]
        return [_before(self.layer, start), *earlier, _after(self.parts[-1], finish)]


class Batched(Tap):
    """A tap of a module that knows no batch, because its items lie one after the other along the first dimension.

    Args:
        inner: the tap of the module.
        batch: number of items from the length of the first dimension.
        leading: dimensions that make up items and positions: 1 (``[batch * pos, ...]``), or 2 where positions are cut into
            chunks (``[batch * chunk, pos, ...]``).
    """

    def __init__(self, inner: Tap, batch: Callable[[int], int], leading: int = 1):
        self.inner, self.batch, self.leading = inner, batch, leading

    def attach(self, visit: Visit) -> list[RemovableHandle]:
        def folded(value: Tensor) -> Tensor | None:
            new = visit(value.reshape(self.batch(value.shape[0]), -1, *value.shape[self.leading :]))
            # in the memory layout that it had, or the next module may compute it in another order
            return None if new is None else torch.empty_like(value).copy_(new.reshape(value.shape))

        return self.inner.attach(folded)


class PatternTap(Tap):
    """Attention weights ``[batch, head, query, key]`` after the softmax; the attention is computed eagerly while tapped."""

    def __init__(self, module: nn.Module):
        self.module = module

    def attach(self, visit: Visit) -> list[RemovableHandle]:
        return [attention.visit_pattern(self.module, visit)]
