"""Learning rate and sparsity over the steps of a training."""

from __future__ import annotations


def rate_factor(step: int, steps: int, warmup: int, decay: float) -> float:
    """Share of the full learning rate at a step: a linear rise over ``warmup`` steps, a linear fall over the last share.

    Args:
        step: from 0.
        steps: of the whole training.
        warmup: steps of the rise; the first has ``1 / warmup``.
        decay: share of the steps over which it falls; the last has ``1 / (steps of the fall)``.
    """
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    falling = round(decay * steps)
    fall = min(1.0, (steps - step) / falling) if falling else 1.0
    return rise * fall


def warmth(step: int, warmup: int) -> float:
    """Share of the full sparsity loss at a step."""
    return min(1.0, (step + 1) / warmup) if warmup else 1.0
