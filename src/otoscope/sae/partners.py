"""Which frames of a batch belong together in time: the pairs that a temporal loss compares."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

Pairs = tuple[Int[Tensor, " pair"], Int[Tensor, " pair"]]


class Links(NamedTuple):
    """Pairs of a batch that was made of them: at the lag (``short``), and of one utterance (``long``)."""

    short: Pairs
    long: Pairs | None

    @classmethod
    def of_blocks(cls, n: int, n_blocks: int, device: str | torch.device = "cpu") -> Links:
        """Those of a batch of ``n`` frames, followed by the frames before them and, as a third block, by others."""
        now = torch.arange(n, device=device)
        return cls((now, now + n), (now, now + 2 * n) if n_blocks > 2 else None)


def short_partners(
    utterance: Int[Tensor, " frame"], time: Float[Tensor, " frame"], lag: float, tolerance: float
) -> Pairs:
    """Every frame that has one ``lag`` seconds before it in the same utterance, and that one.

    Args:
        utterance: number of each frame's recording.
        time: seconds within it.
        lag: seconds, above 0.
        tolerance: seconds by which a partner may be off.
    """
    order, keys = _in_order(utterance, time, 2 * (lag + tolerance))
    wanted = keys - lag
    after = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
    before = (after - 1).clamp(min=0)
    nearer = torch.where((keys[after] - wanted).abs() < (wanted - keys[before]).abs(), after, before)
    places = torch.arange(len(keys), device=keys.device)
    found = ((keys[nearer] - wanted).abs() <= tolerance) & (nearer != places)
    return order[found], order[nearer[found]]


def long_partners(
    utterance: Int[Tensor, " frame"], time: Float[Tensor, " frame"], generator: torch.Generator | None = None
) -> Pairs:
    """Every frame that has company of its utterance in the batch, and one of these at random."""
    order, _ = _in_order(utterance, time, 1.0)
    ordered = utterance[order]
    _, counts = torch.unique_consecutive(ordered, return_counts=True)
    size = torch.repeat_interleave(counts, counts)
    start = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    place = torch.arange(len(ordered), device=ordered.device) - start
    drawn = torch.rand(len(ordered), generator=generator).to(ordered.device)
    steps = 1 + (drawn * (size - 1)).long().clamp(max=(size - 2).clamp(min=0))
    partner = start + (place + steps) % size
    found = size > 1
    return order[found], order[partner[found]]


def _in_order(utterance: Tensor, time: Tensor, gap: float) -> tuple[Tensor, Tensor]:
    """Frames by utterance and time, and a key that counts seconds within one and jumps by more than ``gap`` between."""
    seconds = time.to(torch.float64)
    seconds = seconds - seconds.min() if len(seconds) else seconds
    span = float(seconds.max()) + gap + 1.0 if len(seconds) else 1.0
    keys = utterance.to(torch.float64) * span + seconds
    order = keys.argsort(stable=True)
    return order, keys[order]
