"""Otoscope itself, behind the same face as the peers. Every call into the package that the benchmark makes is here."""

from __future__ import annotations

from time import perf_counter

import numpy as np
import torch

import otoscope
from otoscope.engine.metrics import LogitDiff
from otoscope.engine.sweep import Patch, sweep
from otoscope.models.inputs import Inputs
from peers import Measured
from workloads import WHISPER, Workload


class Ours:
    """The sweep as a user calls it, with its defaults."""

    def __init__(self, folder: str, model: str) -> None:
        self.whisper = model == WHISPER
        self.model = otoscope.load(folder)

    def _inputs(self, workload: Workload, which: str) -> Inputs:
        array = torch.from_numpy(getattr(workload, which))
        if self.whisper:
            assert workload.tokens is not None
            return Inputs(features=array, tokens=torch.from_numpy(workload.tokens), n_samples=(workload.n_samples,))
        return Inputs(tokens=array)

    def run(self, workload: Workload, indices: list[int]) -> Measured:
        """Logits of (answer, foil) for the patches at ``indices``."""
        result = Measured()
        patches = [
            Patch(
                f"{p.stack}.{p.layer}.{p.point}",
                positions=tuple(range(p.start, p.stop)),
                heads=None if p.head is None else (p.head,),
            )
            for p in (workload.patches[i] for i in indices)
        ]
        begun = perf_counter()
        patching: list[float] = []  # the engine announces its cost between the plain runs and the first patch
        with result.timing("patch_s"):
            swept = sweep(
                self.model,
                base=self._inputs(workload, "corrupt"),
                donor=self._inputs(workload, "clean"),
                patches=patches,
                metrics=LogitDiff(workload.answer, workload.foil, position=-1),
                announce=lambda _: patching.append(perf_counter()),
            )
        result.fixed_s = patching[0] - begun
        result.patch_s -= result.fixed_s
        assert swept.logits is not None
        result.logits = swept.logits[:, 0].astype(np.float32)
        return result

    @torch.no_grad()
    def trace(self, workload: Workload, repeats: int) -> tuple[list[float], list[float]]:
        """Seconds of the plain forward and of one that keeps every residual of the encoder, taken in turn."""
        inputs, plain, traced = self._inputs(workload, "clean"), [], []
        for i in range(repeats + 1):
            start = perf_counter()
            self.model.hf(inputs.features, decoder_input_ids=inputs.tokens, use_cache=False)
            middle = perf_counter()
            kept = self.model.capture(inputs, "encoder.*.resid_*")
            end = perf_counter()
            assert len(kept) == 3 * self.model.stacks["encoder"].n_layers  # before, within and after each layer
            if i:  # the first round warms up
                plain.append(middle - start)
                traced.append(end - middle)
        return plain, traced
