"""Which method finds the place of a fault? The causal benchmark: every method on faults whose place is known.

A method is scored by how often it names the true place first, among every head, cross-attention head and MLP (or layer,
or moment of the sound). Exact repair patching must find nearly all of them and random guessing must stay at chance:
otherwise the benchmark itself is wrong, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from otoscope.engine.model import Model
from otoscope.errors import TaskError
from otoscope.methods.localise import registry
from otoscope.methods.localise.planting import scratch_copy
from otoscope.runs import Claim, Control, Threshold
from otoscope.stats import Interval
from otoscope.stats.ranking import mean_score, top_k
from otoscope.studies.causal_cells import Bench, Entrant, Progress, TaskCells, entrants
from otoscope.studies.causal_protocol import Protocol
from otoscope.studies.causal_scores import Standing, chance_test, of_cells, standings
from otoscope.studies.outcome import Step
from otoscope.tasks.task import Task

#: what must find nearly every fault of the model, and what must find them by chance alone
EXACT, RANDOM = "exact-repair", "random"


@dataclass(frozen=True, eq=False)
class Found:
    """What the benchmark gives.

    Attributes:
        model: the healthy model.
        protocol: what was asked.
        tasks: the cells, task by task.
        entrants: who was scored.
        standings: the leaderboard, best first.
        random_p: two-sided p-value of random guessing against chance; NaN where it was not asked.
    """

    model: Model
    protocol: Protocol
    tasks: list[TaskCells]
    entrants: list[Entrant]
    standings: list[Standing]
    random_p: float

    def standing(self, label: str) -> Standing | None:
        """An entrant's line."""
        return next((line for line in self.standings if line.entrant.label == label), None)


def study(
    model: Model,
    tasks: Sequence[Task],
    protocol: Protocol,
    step: Step,
    progress: Progress | None = None,
    notify: Callable[[str], None] = lambda line: None,
) -> Found:
    """Run the benchmark.

    Args:
        model: a Whisper or an audio-LLM.
        tasks: what it is asked; a task whose pairs it does not tell apart is left out with a notice.
        protocol: how.
        step: keeps finished cells.
        progress: called with (done, total) within a task.
        notify: told what is being computed.

    Raises:
        TaskError: an unknown method, or no task that the model can do.
    """
    known = registry.methods()
    names = protocol.methods or tuple(known)
    those = entrants([registry.get(name) for name in names])
    scratch = scratch_copy(model)
    benches: list[Bench] = []
    shares = _shares(protocol, len(tasks))
    for i, task in enumerate(tasks):
        notify(f"{task.name}: asking the healthy model")
        try:
            benches.append(Bench(model, scratch, task, protocol, shares[i], protocol.seed + i, step, not benches))
        except TaskError as error:
            notify(f"left out: {error}")
    if not benches:
        raise TaskError(
            f"{model.name} can do none of the tasks: {', '.join(task.name for task in tasks)}; name others."
        )
    found: list[TaskCells] = []
    for bench in benches:
        notify(
            f"{bench.task.name}: {bench.share[0]} faults of the model, {bench.share[1]} of the input, {len(those)} entrants"
        )
        found.append(bench.run(those, progress))
    lines = standings(found, those, protocol.thresholds.conformal_alpha)
    return Found(model, protocol, found, those, lines, _random_p(found, those))


def claims(found: Found) -> list[Claim]:
    """What the benchmark must show of itself, and each method's verdict on healthy models."""
    bars = found.protocol.thresholds
    exact, guess = found.standing(EXACT), found.standing(RANDOM)
    made = []
    if exact:
        controls = {}
        if guess:
            controls["random guessing is at chance (p)"] = Control.of(
                found.random_p, Threshold(">=", bars.random_alpha)
            )
        made.append(
            Claim.of(
                "exact_top1",
                "Exact repair patching names the faulty place first.",
                Threshold(">=", bars.exact_top1),
                exact.numbers["top1"],
                controls,
            )
        )
    for line in found.standings:
        made.append(
            Claim.of(
                f"no_fault_{line.entrant.label}",
                f"{line.entrant.label} calls a healthy model healthy.",
                Threshold(">=", bars.no_fault),
                line.no_fault_ok,
            )
        )
    return made


def metrics(found: Found) -> dict[str, Interval | float | int | None]:
    """Flat numbers of the results."""
    out: dict[str, Interval | float | int | None] = {
        "faults.model": sum(p.of_model for task in found.tasks for p in task.faults),
        "faults.inputs": sum(not p.of_model for task in found.tasks for p in task.faults),
        "random_p": found.random_p,
    }
    for line in found.standings:
        label = line.entrant.label
        out |= {f"{name}.{label}": value for name, value in line.numbers.items()}
        out[f"inputs_top1.{label}"] = line.on_inputs
        out[f"top1_single.{label}"] = line.single
        out[f"no_fault_ok.{label}"] = line.no_fault_ok
        out[f"no_fault_level.{label}"] = line.no_fault_level
        out[f"detected.{label}"] = line.detected
        out[f"stability.{label}"] = line.stability
        out[f"forwards.{label}"] = line.forwards
        for name, value in (("cpr", line.cpr), ("cmd", line.cmd)):
            if value.n:
                out[f"{name}.{line.entrant.method.name}"] = value
    return out


def leaderboard(found: Found) -> dict[str, Any]:
    """The leaderboard as data (``leaderboard.json``); its schema is ``causal_leaderboard.schema.json``. No times: the same
    seed gives the same bytes."""

    def interval(value: Interval) -> dict[str, Any]:
        return {"value": value.value, "low": value.low, "high": value.high, "n": value.n}

    return {
        "schema": 1,
        "model": found.model.name,
        "weights": found.model.weights_hash(),
        "protocol": found.protocol.describe(),
        "tasks": [
            {
                **task.task.describe(), "used": task.n_items,
                "faults": [
                    {**p.fault.to_json(), "name": p.fault.name, "kept": p.kept, "of": "model" if p.of_model else "input"}
                    for p in task.faults
                ],
            }
            for task in found.tasks
        ],
        "entrants": [
            {
                "method": line.entrant.method.name, "arm": line.entrant.arm, "label": line.entrant.label,
                "summary": line.entrant.method.summary,
                **{name: interval(value) for name, value in line.numbers.items()},
                "inputs_top1": interval(line.on_inputs),
                "top1_single": interval(line.single),
                "no_fault_ok": interval(line.no_fault_ok), "no_fault_level": line.no_fault_level,
                "detected": interval(line.detected),
                "stability": line.stability, "cpr": interval(line.cpr), "cmd": interval(line.cmd),
                "forwards": line.forwards,
                "by_task": {name: interval(value) for name, value in line.by_task.items()},
                "by_part": {name: interval(value) for name, value in line.by_part.items()},
            }
            for line in found.standings
        ],
    }  # fmt: skip


def _shares(protocol: Protocol, n_tasks: int) -> list[tuple[int, int]]:
    """Faults per task: as equal as can be."""

    def parts(total: int) -> list[int]:
        return [total // n_tasks + (i < total % n_tasks) for i in range(n_tasks)]

    return list(zip(parts(protocol.faults.model), parts(protocol.faults.inputs)))


def _random_p(found: Sequence[TaskCells], those: Sequence[Entrant]) -> float:
    if not any(one.label == RANDOM for one in those):
        return float("nan")
    cells = [(planted, cell) for _, planted, cell in of_cells(found, RANDOM) if planted.of_model]
    hits = sum(top_k(mean_score(cell.scores), planted.truth, 1) for planted, cell in cells)
    return (
        chance_test(hits, [len(planted.truth) / planted.n_places for planted, _ in cells]) if cells else float(np.nan)
    )
