"""Sweep: thousands of patches of one pair of runs, answered exactly with as little work as possible.

``sweep(model, base, donor, patches, metrics)`` asks, for each patch, what the base run's logits become when the donor's
value stands at one place. Results equal one full hooked forward per patch (``method="naive"``) to rounding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from otoscope.engine.base_run import BaseRun
from otoscope.engine.cost import Cost, estimate
from otoscope.engine.metrics import Metric, Reading
from otoscope.engine.naive import naive_logits
from otoscope.engine.patch import Patch
from otoscope.engine.plain import PlainRuns
from otoscope.engine.replay import Replay
from otoscope.engine.row import Row, plan
from otoscope.errors import SiteError
from otoscope.models.adapter import Adapter
from otoscope.models.inputs import Inputs
from otoscope.models.site import Site

#: logits within this of each other are the same number: 10 times the exactness a sweep promises in float32
NOISE = 1e-3


#: ``step(key, compute)`` returns what an earlier, killed run stored under ``key``, or computes and stores it
Step = Callable[[str, Callable[[], Any]], Any]

#: ``observe(patch, states)`` gets ``[pos, d_model]``: all frames of an encoder, the read positions of a decoder
Observe = Callable[[Patch, Tensor], float]


@dataclass
class SweepResult:
    """Answers, in the order of the patches.

    Attributes:
        patches: what was asked.
        values: metric -> value per patch; NaN where an interrupted sweep did not get.
        base: metric -> value of the base run.
        donors: metric -> value per donor.
        logits: ``[patch, P, V]`` at the read positions and tokens, kept where the metrics read at most 16 tokens.
        cost: what it was estimated to cost.
        interrupted: whether Ctrl-C ended it early.
        observed: what ``observe`` returned per patch; NaN for patches that change nothing.
    """

    patches: list[Patch]
    values: dict[str, np.ndarray]
    base: dict[str, float]
    donors: dict[str, np.ndarray]
    logits: np.ndarray | None
    cost: Cost
    interrupted: bool = field(default=False)
    observed: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def effects(self, metric: str | None = None, noise: float = NOISE) -> np.ndarray:
        """Normalised effect per patch: ``(m_patched - m_base) / (m_donor - m_base)``.

        0 leaves the base run as it is, 1 makes it the donor's. With the corrupt run as base it is the denoising effect
        (sufficiency), with the clean run as base the noising effect (necessity). NaN where base and donor differ by no
        more than ``noise``.
        """
        name = metric or next(iter(self.values))
        donor = self.donors[name][[p.donor for p in self.patches]]
        span = donor - self.base[name]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(np.abs(span) > noise, (self.values[name] - self.base[name]) / span, np.nan)


@torch.no_grad()
def sweep(
    model: Any,
    base: Inputs,
    donor: Inputs | Sequence[Inputs],
    patches: Sequence[Patch],
    metrics: Metric | Sequence[Metric],
    *,
    method: Literal["replay", "naive"] = "replay",
    memory_gb: float = 0.5,
    announce: Callable[[Cost], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    step: Step | None = None,
    observe: Observe | None = None,
    plain: PlainRuns | None = None,
) -> SweepResult:
    """Answer every patch.

    Args:
        model: a Model or its adapter.
        base: the run to be patched, one item.
        donor: the run(s) that values come from, one item each, of the same lengths.
        patches: what to patch.
        metrics: what to read from the logits.
        method: ``replay`` (fast) or ``naive`` (one hooked forward each, the oracle).
        memory_gb: budget for the activations of one batch.
        announce: called once with the estimated cost, before anything long starts.
        progress: called with (done, total) after every chunk.
        step: keeps finished chunks, such as ``Run.step``; a sweep that was killed and is called again resumes.
        observe: shown every replayed row's states at the end of the stack that was patched; what it returns is kept in
            :attr:`SweepResult.observed` (replay only). A patch that makes the run the donor's shows the donor's.
        plain: keeps the plain runs for further sweeps of the same inputs.

    Raises:
        SiteError, TaskError: a patch or metric names what is not there, or lengths differ.
    """
    adapter: Adapter = getattr(model, "adapter", model)
    donors = [donor] if isinstance(donor, Inputs) else list(donor)
    patches = list(patches)
    for patch in patches:
        if not 0 <= patch.donor < len(donors):
            raise SiteError(f"patch of '{patch.site}' names donor {patch.donor}, but {len(donors)} were given.")
        patch.checked(adapter.stacks, 10**9, adapter.name)
        if adapter.listens_and_reads and base.features is None and Site.parse(patch.site).stack != adapter.order[-1]:
            raise SiteError(
                f"'{patch.site}' cannot be patched without a sound: give one, or patch a site of the decoder."
            )
    reading = Reading.of(metrics, _n_outputs(adapter, base), adapter.n_outputs)
    run = BaseRun.of(adapter, base, donors, patches, reading, plain)
    for patch in patches:
        patch.checked(adapter.stacks, run.n_positions(Site.parse(patch.site)), adapter.name)

    n_outputs = _n_outputs(adapter, base)
    replay = Replay(run)
    planned = [plan(run, p) for p in patches]
    rows = {i: row for i, row in enumerate(planned) if isinstance(row, Row)}
    lengths = _lengths(run)
    cost = estimate(adapter, list(rows.values()), len(patches), lengths)
    if announce:
        announce(cost)

    base_logits = run.logits[:1]
    unpatched = reading.values(run.logits, base_logits, n_outputs)
    result = SweepResult(
        patches,
        {name: np.full(len(patches), np.nan) for name in unpatched},
        {name: float(v[0]) for name, v in unpatched.items()},
        {name: v[1:].double().cpu().numpy() for name, v in unpatched.items()},
        np.full((len(patches), *base_logits.shape[1:]), np.nan) if base_logits.shape[-1] <= 16 else None,
        cost,
        observed=np.full(len(patches), np.nan),
    )

    def found(index: Sequence[int], logits: Tensor, states: Sequence[Tensor] | Tensor | None) -> dict[str, np.ndarray]:
        """What is kept of the patches at ``index``."""
        values = reading.values(logits, base_logits, n_outputs)
        kept = {f"value {name}": v.double().cpu().numpy() for name, v in values.items()}
        if result.logits is not None:
            kept["logits"] = logits.double().cpu().numpy()
        if observe and states is not None:
            kept["observed"] = np.array([observe(patches[i], x) for i, x in zip(index, states)], dtype=float)
        return kept

    # the oracle trusts no plan: there, every patch is a whole forward of its own
    naive = method == "naive"
    for item in range(0 if naive else len(run.logits)):
        index = [i for i, row in enumerate(planned) if row == item]
        end = replay.end_of(item).expand(len(index), -1, -1) if item and observe else None
        if index:
            _write(result, index, found(index, run.logits[item : item + 1].expand(len(index), -1, -1), end))
    chunks = [[i] for i in range(len(patches))] if naive else _chunks(adapter, rows, lengths, memory_gb)
    done = len(patches) - sum(map(len, chunks))
    replay.prepare([] if naive else list(rows.values()))
    prefix = _fingerprint(run) if step else ""
    try:
        for chunk in chunks:

            def answer(chunk: list[int] = chunk) -> dict[str, np.ndarray]:
                if naive:
                    return found(chunk, naive_logits(run, [patches[i] for i in chunk]), None)
                states: list[Tensor] = []
                logits = replay.logits([rows[i] for i in chunk], states.append if observe else None)
                return found(chunk, logits, states[0] if states else None)

            key = prefix + ("o" if observe else "") + _key([patches[i] for i in chunk])
            _write(result, chunk, answer() if step is None else step(key, answer))
            done += len(chunk)
            if progress:
                progress(done, len(patches))
    except KeyboardInterrupt:
        result.interrupted = True
    return result


def _n_outputs(adapter: Adapter, base: Inputs) -> int:
    """Output positions of the model for these inputs."""
    if adapter.order[-1] == "decoder":
        return base.tokens.shape[1] if base.tokens is not None else 1
    return adapter.clock("encoder", base.n_samples[0]).n_frames


def _lengths(run: BaseRun) -> dict[str, int]:
    """Positions of every stack that a plain run computes, also of those that nothing was captured of."""
    lengths = {}
    for name, spec in run.adapter.stacks.items():
        end = Site(name, spec.n_layers - 1, "resid_post")
        if end in run.cache:
            lengths[name] = run.n_positions(end)
        elif spec.frame_rate and run.inputs.features is not None:
            lengths[name] = run.adapter.clock(name, run.inputs.n_samples[0]).n_frames
    return lengths


def _chunks(adapter: Adapter, rows: dict[int, Row], lengths: dict[str, int], memory_gb: float) -> list[list[int]]:
    """Split rows into batches: one stack, one first computed position and one source each, within the memory budget."""
    groups: dict[tuple[str, int, int], list[int]] = {}
    for i, row in rows.items():
        groups.setdefault((row.stack, row.first, row.source), []).append(i)
    size = torch.finfo(adapter.dtype).bits // 8
    chunks = []
    for (stack, first, _), members in groups.items():
        spec, n = adapter.stacks[stack], lengths[stack]
        scores = size * spec.n_heads * n * n if not spec.causal and adapter.family == "wavlm" else 0
        per_row = size * (n - first) * (8 * spec.d_model + 3 * spec.d_mlp) + scores
        if stack != adapter.order[-1] and adapter.listens_and_reads:
            reader = adapter.stacks[adapter.order[-1]]
            per_row += size * lengths[reader.name] * (8 * reader.d_model + 3 * reader.d_mlp)
        most = max(1, int(memory_gb * 1e9 / max(per_row, 1)))
        members.sort(key=lambda i: rows[i].layer)
        chunks += [members[a : a + most] for a in range(0, len(members), most)]
    return chunks


def _write(result: SweepResult, index: Sequence[int], found: Mapping[str, np.ndarray]) -> None:
    """Put what was found into the result."""
    for name, values in result.values.items():
        values[list(index)] = found[f"value {name}"]
    if result.logits is not None:
        result.logits[list(index)] = found["logits"]
    if "observed" in found:
        result.observed[list(index)] = found["observed"]


def _fingerprint(run: BaseRun) -> str:
    """Key of a sweep in a store: its metrics, its inputs' and the plain runs' exact numbers, so that no other resumes it."""
    h = hashlib.sha256()
    for tensor in (run.inputs.features, run.inputs.tokens, run.logits):
        if tensor is not None:
            h.update(tensor.double().cpu().numpy().tobytes())
    metrics = [repr(metric) for metric in run.reading.metrics]
    h.update(json.dumps([run.adapter.name, run.reading.positions, run.reading.vocab, metrics]).encode())
    return h.hexdigest()[:16] + "-"


def _key(patches: list[Patch]) -> str:
    """Key of a chunk: what its patches are, explicit values included."""
    h = hashlib.sha256()
    for patch in patches:
        h.update(json.dumps(patch.describe(), sort_keys=True).encode())
        if patch.value is not None:
            h.update(patch.value.double().cpu().numpy().tobytes())
    return h.hexdigest()[:24]
