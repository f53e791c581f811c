"""What a sweep will cost, before it starts: multiply-adds of the replay and of the naive way, and minutes on this machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch

from otoscope.engine.row import Row
from otoscope.models.adapter import Adapter
from otoscope.models.site import StackSpec


@dataclass(frozen=True)
class Cost:
    """An estimate.

    Attributes:
        patches: patches asked for.
        replayed: patches whose answer no plain run has, and which will be computed.
        tflop: floating-point operations of the replay, in 10^12.
        naive_tflop: the same for one whole forward per patch.
        seconds: rough duration on this machine.
    """

    patches: int
    replayed: int
    tflop: float
    naive_tflop: float
    seconds: float

    def __str__(self) -> str:
        less = f"{self.naive_tflop / self.tflop:.0f}x less than naive hooks" if self.tflop else "nothing to compute"
        return (
            f"{self.patches} patches ({self.replayed} replayed), {self.tflop:.2f} TFLOP ({less}), "
            f"about {self.seconds:.0f} s on {torch.get_num_threads()} threads"
        )


def layer_flop(spec: StackSpec, queries: int, keys: int) -> float:
    """Operations of one layer: projections, MLP (gated in language models), attention."""
    gated = spec.causal and "cross_z" not in spec.points
    d, inner = spec.d_model, spec.n_heads * spec.d_head
    kv = (spec.n_kv_heads or spec.n_heads) * spec.d_head
    mlp = (3 if gated else 2) * d * spec.d_mlp
    return 2.0 * (queries * (2 * d * inner + 2 * d * kv + mlp) + 2 * queries * keys * inner)


def estimate(adapter: Adapter, rows: Sequence[Row], n_patches: int, lengths: dict[str, int]) -> Cost:
    """Cost of replaying ``rows``; ``lengths`` gives positions per stack that is computed."""
    full: dict[str, float] = {
        s.name: s.n_layers * layer_flop(s, lengths[s.name], lengths[s.name])
        for s in adapter.stacks.values()
        if s.n_heads and s.name in lengths
    }
    flop = 0.0
    for row in rows:
        spec, n = adapter.stacks[row.stack], lengths[row.stack]
        flop += (spec.n_layers - row.layer) * layer_flop(spec, n - row.first, n)
        if row.stack != "decoder" and "decoder" in full:
            flop += full["decoder"]
    naive = sum(full.values()) * n_patches
    return Cost(n_patches, len(rows), flop / 1e12, naive / 1e12, flop / _speed(adapter.device.type))


@cache
def _speed(device: str) -> float:
    """Operations per second of a matrix product of typical size, measured once."""
    a = torch.randn(1024, 512, device=device)
    b = torch.randn(512, 1024, device=device)
    _ = a @ b
    start = time.perf_counter()
    for _ in range(8):
        c = a @ b
    _ = c.sum().item()  # waits for the device
    return 0.7 * 8 * 2 * 1024 * 512 * 1024 / (time.perf_counter() - start)
