"""One file per rival. Each has a class with ``__init__(folder)`` and ``run(workload, indices) -> Measured``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np


@dataclass
class Measured:
    """What one run of a tool gave.

    ``logits`` ``[len(indices), 2]`` (answer, foil); ``fixed_s`` the part of the time that is paid once per sweep
    (the clean and the corrupt run), ``patch_s`` the part that grows with the number of patches.
    """

    logits: np.ndarray = field(default_factory=lambda: np.empty((0, 2), np.float32))
    fixed_s: float = 0.0
    patch_s: float = 0.0

    @contextmanager
    def timing(self, part: str) -> Iterator[None]:
        """Add the wall-clock seconds of the block to ``part`` (``fixed_s`` or ``patch_s``)."""
        start = perf_counter()
        yield
        setattr(self, part, getattr(self, part) + perf_counter() - start)


def load(folder: str, family: str):
    """The plain transformers model, float32, as every peer uses it."""
    import torch
    from transformers import AutoModelForCausalLM, WhisperForConditionalGeneration

    kind = WhisperForConditionalGeneration if family == "whisper" else AutoModelForCausalLM
    return kind.from_pretrained(folder, dtype=torch.float32).eval()
