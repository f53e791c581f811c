"""Time the grounding study on mini-qwen2-audio, replayed against naive hooks, on the same items with the same answers.

Every decoder layer, both sides (sound and context), both directions. Naive hooks are one whole forward of the model per
exchange, sound tower included. Sounds are seeded noise: what they say does not change what is computed.
"""

from __future__ import annotations

import json
import os
import sys
import time

import numpy as np
import torch

import otoscope
from otoscope.audio.clip import Clip
from otoscope.engine.model import Model
from otoscope.methods.grounding import Corners, grounding
from otoscope.tasks.conflict import ConflictTask

LABELS = ("yes", "no", "up", "down")


def items(model: Model, n: int) -> list[Corners]:
    """``n`` conflict items of one second."""
    rng = np.random.default_rng(0)
    clips = [
        Clip(0.1 * rng.standard_normal(16000).astype(np.float32), 16000, labels={"label": label}, speaker=f"s{i}")
        for i in range(n)
        for label in LABELS
    ]
    task = ConflictTask.from_clips(clips, "What word was said?", labels=LABELS, n=n, topic="the word", licence="noise")
    return [Corners.of(model, item) for item in task]


def main() -> None:
    n, repeats, threads = (int(a) for a in sys.argv[1:4])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(threads)
    model = otoscope.load("mini-qwen2-audio")
    asked = items(model, n)
    grounding(model, asked[:1], after=False)  # warms up
    seconds: dict[str, list[float]] = {"ours": [], "naive": []}
    margins = {}
    for repeat in range(repeats):
        for tool, options in (("ours", {}), ("naive", {"method": "naive"})):
            start = time.perf_counter()
            margins[tool] = grounding(model, asked, after=False, **options).margin
            seconds[tool].append(time.perf_counter() - start)
            print(f"  gc {repeat + 1}/{repeats} {tool}: {seconds[tool][-1]:.2f} s", file=sys.stderr)
    difference = max(float(np.abs(margins["ours"][arm] - margins["naive"][arm]).max()) for arm in margins["ours"])
    layers = model.stacks["decoder"].n_layers
    print(
        json.dumps({"seconds": seconds, "max_abs_diff": difference, "items": n, "exchanges": 4 * layers * n}),
        file=answers,
    )


if __name__ == "__main__":
    main()
