"""A workbench of a tiny random model: posed items whose answers are what the model itself prefers."""

from __future__ import annotations

import torch

from otoscope.engine.metrics import LogitDiff
from otoscope.engine.model import Model
from otoscope.methods.localise.planting import Workbench, scratch_copy
from otoscope.methods.pose import Posed
from otoscope.tasks.pair import Pair
from otoscope.tasks.task import TaskItem
from tests.tiny import build, pair, sound


def posed(model: Model, seed: int) -> Posed:
    """Two inputs, with the tokens that the model prefers most and least after the clean one as answer and foil."""
    clean, corrupt = pair(model, seed)
    logits = model.run(clean).logits[0, -1]
    metric = LogitDiff(int(logits.argmax()), int(logits.argmin()), clean.tokens.shape[1] - 1)
    item = TaskItem(Pair(sound(10 * seed), sound(10 * seed + 1), (0.0, 0.25), "other noise"), "yes", "no")
    return Posed(item, clean, corrupt, metric)


def workbench(
    family: str = "whisper", n: int = 2, tuning: int = 2, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Workbench:
    """A healthy tiny model, its scratch copy, and items."""
    model = build(family, dtype, seed)
    items = [posed(model, i + 1) for i in range(n + tuning)]
    return Workbench(model, scratch_copy(model), items[:n], items[n:], seed)
