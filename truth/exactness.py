"""Largest difference between the sweep and naive hooks on real weights: prints one JSON object.

python truth/exactness.py
"""

from __future__ import annotations

import json
import sys

import numpy as np

from otoscope.engine.metrics import LogitDiff
from otoscope.engine.model import load
from otoscope.engine.patch import Patch
from otoscope.engine.sweep import sweep
from otoscope.models.site import HEAD_POINTS, PATTERN_POINTS
from otoscope.tasks.minimal import spoken_pair

PER_POINT = 2


def patches(model, cache, seed: int = 0) -> list[Patch]:  # type: ignore[no-untyped-def]
    """A few patches of every site kind: a window, one position, a head where there are heads."""
    rng = np.random.default_rng(seed)
    chosen: list[Patch] = []
    for stack in model.stacks.values():
        for point in stack.points:
            for layer in rng.permutation(stack.n_layers)[:PER_POINT]:
                site = f"{stack.name}.{layer}.{point}"
                n = cache[site].shape[2 if point in PATTERN_POINTS else 1]
                start = int(rng.integers(0, max(1, min(n, 100) - 5)))
                heads = (int(rng.integers(stack.n_heads)),) if point in HEAD_POINTS else None
                chosen.append(Patch(site, positions=tuple(range(start, min(n, start + 5))), heads=heads))
    return chosen


def main() -> None:
    metrics = {}
    pair = spoken_pair("I want to buy a cat today", "I want to buy a dog today", join=True)
    for dtype in ("float32", "float64"):
        worst = 0.0
        for name in ("whisper-tiny.en", "smollm2-135m-instruct"):
            model = load(name, dtype=dtype)
            if model.family == "whisper":
                text = "I want to buy a"
                clean, corrupt = model.inputs(pair.clean, text=text), model.inputs(pair.corrupt, text=text)
            else:
                clean, corrupt = (
                    model.inputs(text=f"The capital of {place} is the city of") for place in ("France", "Italy")
                )
            asked = patches(model, model.capture(clean, "*"))
            metric = LogitDiff(1000, 2000, -1)
            for base, donor in ((corrupt, clean), (clean, corrupt)):
                fast = sweep(model, base, donor, asked, metric)
                slow = sweep(model, base, donor, asked, metric, method="naive")
                assert fast.logits is not None
                assert slow.logits is not None
                worst = max(worst, float(np.abs(fast.logits - slow.logits).max()))
            print(f"{name} {dtype}: {worst:.2e}", file=sys.stderr)
        metrics[f"max_abs_diff.{dtype}"] = worst
    json.dump({"command": "exactness", "metrics": metrics, "intervals": {}}, sys.stdout, indent=2)


if __name__ == "__main__":
    main()
