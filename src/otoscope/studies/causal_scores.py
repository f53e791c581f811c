"""From cells to a leaderboard: how often each method names the true place, with intervals over faults."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from otoscope.methods.localise.verdict import calibrated_by_item
from otoscope.stats import Interval, bootstrap, clopper_pearson
from otoscope.stats.ranking import mean_rank, mean_score, roc_auc, top_k
from otoscope.studies.causal_cells import Cell, Entrant, Planted, TaskCells
from otoscope.tasks.faults import Fault

#: what is measured of one cell
MEASURES: dict[str, Callable[[np.ndarray, Sequence[int]], float]] = {
    "top1": lambda scores, truth: top_k(scores, truth, 1),
    "top3": lambda scores, truth: top_k(scores, truth, 3),
    "auc": roc_auc,
    "mean_rank": mean_rank,
}


@dataclass(frozen=True)
class Standing:
    """One line of the leaderboard.

    Attributes:
        entrant: the method in its arm.
        numbers: measure -> interval over faults of the model.
        on_inputs: top-1 over faults of the input.
        by_task, by_part: top-1 by task and by what is broken.
        single: top-1 over faults of the model that have one place (two heads that are swapped have two).
        no_fault_ok: share of cases of the healthy model that are called healthy.
        no_fault_level: probability, at least, that such a case is called healthy, by the number of items of the calibration.
        detected: share of faults that are called faults.
        stability: how alike the rankings by single items are (mean Spearman); NaN where a method pools them.
        cpr, cmd: areas of the faithfulness curve, means over tasks; NaN where the method cuts no circuit.
        forwards, seconds: of one fault, mean over stacks and tasks.
    """

    entrant: Entrant
    numbers: dict[str, Interval]
    on_inputs: Interval
    by_task: dict[str, Interval]
    by_part: dict[str, Interval]
    single: Interval
    no_fault_ok: Interval
    no_fault_level: float
    detected: Interval
    stability: float
    cpr: Interval
    cmd: Interval
    forwards: float
    seconds: float


def standings(found: Sequence[TaskCells], those: Sequence[Entrant], alpha: float) -> list[Standing]:
    """The leaderboard, best first (by top-1, then ROC-AUC)."""
    lines = [_standing(found, one, alpha) for one in those]
    return sorted(lines, key=lambda s: (-s.numbers["top1"].value, -s.numbers["auc"].value, s.entrant.label))


def of_cells(found: Sequence[TaskCells], label: str) -> Iterable[tuple[TaskCells, Planted, Cell]]:
    """An entrant's cells, each with its fault."""
    for task in found:
        mine = [cell for cell in task.cells if cell.entrant == label]
        yield from ((task, planted, cell) for planted, cell in zip(task.faults, mine))


def rows(found: Sequence[TaskCells], those: Sequence[Entrant]) -> list[dict[str, Any]]:
    """Every cell as a line of a table: what was broken, and where the method put it."""
    lines = []
    for one in those:
        for task, planted, cell in of_cells(found, one.label):
            scores = mean_score(cell.scores)
            lines.append(
                {
                    "task": task.task.name,
                    "fault": planted.fault.name,
                    "part": planted.part,
                    "severity": planted.fault.severity,
                    "kept": planted.kept,
                    "method": one.label,
                    "places": planted.n_places,
                    **{k: f(scores, planted.truth) for k, f in MEASURES.items()},
                }
            )
    return lines


def chance_test(hits: float, chances: Sequence[float]) -> float:
    """Two-sided p-value of so many hits where each trial has its own chance (Poisson binomial, exact)."""
    law = np.ones(1)
    for p in chances:
        law = np.convolve(law, [1 - p, p])
    count = round(hits)
    return float(min(1.0, 2 * min(law[: count + 1].sum(), law[count:].sum())))


def _standing(found: Sequence[TaskCells], one: Entrant, alpha: float) -> Standing:
    model: list[tuple[str, str, dict[str, float]]] = []
    inputs: list[float] = []
    single: list[float] = []
    for task, planted, cell in of_cells(found, one.label):
        scores = mean_score(cell.scores)
        values = {name: measure(scores, planted.truth) for name, measure in MEASURES.items()}
        if planted.of_model:
            model.append((task.task.name, planted.part, values))
            single += [values["top1"]] if len(planted.truth) == 1 else []
        else:
            inputs.append(values["top1"])
    numbers = {name: bootstrap([v[name] for _, _, v in model]) for name in MEASURES}
    numbers["top1"] = share([v["top1"] for _, _, v in model])
    kept, level, caught = _verdicts(found, one, alpha)
    circuits = [task.circuits[one.method.name] for task in found if one.method.name in task.circuits]
    costs = [row for task in found for row in task.costs if row["method"] == one.label]
    return Standing(
        one,
        numbers,
        share(inputs),
        {t.task.name: share([v["top1"] for name, _, v in model if name == t.task.name]) for t in found},
        {part: share([v["top1"] for _, p, v in model if p == part]) for part in dict.fromkeys(p for _, p, _ in model)},
        share(single),
        kept,
        level,
        caught,
        _stability(found, one),
        bootstrap([c["cpr"] for c in circuits]),
        bootstrap([c["cmd"] for c in circuits]),
        float(np.mean([row["forwards"] for row in costs])) if costs else float("nan"),
        float(np.mean([row["seconds"] for row in costs])) if costs else float("nan"),
    )


def share(values: Sequence[float]) -> Interval:
    """A mean of hits with its interval: exact where every value is 0 or 1, by bootstrap where ties were divided."""
    if values and all(v in (0.0, 1.0) for v in values):
        return clopper_pearson(int(sum(values)), len(values))
    return bootstrap(values)


def _verdicts(found: Sequence[TaskCells], one: Entrant, alpha: float) -> tuple[Interval, float, Interval]:
    """How often healthy cases are called healthy, the level that holds of it, and how often faults are called faults, by one
    threshold for all tasks."""
    healthy = [task.healthy[one.label] for task in found]
    size = max(h.size for h in healthy)
    verdict = calibrated_by_item(np.concatenate([h.calibration for h in healthy]), size, alpha=alpha)
    caught: list[float] = []
    for _, planted, cell in of_cells(found, one.label):
        # the threshold was set on components; steps of a chain and windows of sound have scores of another kind
        if isinstance(planted.fault, Fault) and planted.fault.universe == "components":
            caught.append(float(verdict.says_fault(cell.scores)))
    right = [float(not verdict.says_fault(case)) for h in healthy for case in h.cases()]
    return share(right), verdict.level, share(caught)


def _stability(found: Sequence[TaskCells], one: Entrant) -> float:
    """Mean rank correlation of the places' scores by one item and by another, over the faults."""
    from scipy.stats import spearmanr

    values = []
    for _, planted, cell in of_cells(found, one.label):
        said = cell.scores[~np.isnan(cell.scores).all(1)]
        if not planted.of_model or len(said) < 2:
            continue
        with np.errstate(invalid="ignore"):
            pairs = [
                float(spearmanr(said[i], said[j], nan_policy="omit").statistic)  # type: ignore[attr-defined]
                for i in range(len(said))
                for j in range(i)
                if np.ptp(said[i][~np.isnan(said[i])]) and np.ptp(said[j][~np.isnan(said[j])])
            ]
        values += [p for p in pairs if not np.isnan(p)]
    return float(np.mean(values)) if values else float("nan")
