"""The causal benchmark as a command runs it: load, make the tasks, compute, write the run."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from otoscope.engine.model import Model, load
from otoscope.errors import OtoscopeError, TaskError
from otoscope.runs import Run
from otoscope.runs.files import plain
from otoscope.studies.causal import Found, claims, leaderboard, metrics, study
from otoscope.studies.causal_protocol import Protocol
from otoscope.studies.causal_scores import rows
from otoscope.studies.outcome import compute_now, without_run, write_tables
from otoscope.tasks import registry
from otoscope.tasks.task import Task

#: where sounds come from
Wanted = Literal["auto", "local", "hub", "synthetic"]
#: items of a task that are made for each one that is needed, since a model does not hear all of them rightly
SPARE = 2.0


@dataclass(frozen=True)
class Benchmarked:
    """What the benchmark gives: the results object, lines to print, what was found, and the report's path."""

    results: dict[str, Any]
    lines: list[str]
    found: Found
    report: Path | None


def bench_causal(
    model: str,
    protocol: Protocol,
    *,
    data: Path | None = None,
    source: Wanted = "auto",
    plugins: Sequence[Path] = (),
    distance: Path | None = None,
    out: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    notify: Callable[[str], None] = lambda line: None,
    **loading: Any,
) -> Benchmarked:
    """Run the benchmark on a model; with ``out``, as a run that resumes cell by cell.

    Args:
        model: embedded name, Hugging Face id or folder.
        protocol: what is asked.
        data: folder of corpora; None for synthesised speech.
        source: where sounds come from (see :func:`otoscope.tasks.registry.make`).
        plugins: Python files that register methods of yours.
        distance: run of ``bench distance``, whose recommendation is printed with the protocol; None for the one that comes
            with the package.
        out: directory of the run.
        progress, notify: told what happens.
        loading: passed to :func:`otoscope.load`.

    Raises:
        OtoscopeError: the model, a task, a method or a plugin cannot be used.
    """
    command = "bench causal"
    for plugin in plugins:
        load_plugin(plugin)
    advice = advised(distance)
    loaded = load(model, **loading)
    tasks = tasks_for(loaded, protocol, data, source, notify)
    identity = {
        "model": loaded.name, "dtype": str(loaded.adapter.dtype), "revision": loading.get("revision"),
        "protocol": protocol.describe(), "tasks": {task.id: task.digest()[:16] for task in tasks},
    }  # fmt: skip
    with nullcontext() if out is None else Run(out, command, identity, seeds={"seed": protocol.seed}) as run:
        if run:
            run.record_weights(loaded.name, loaded.weights_hash())
        found = study(loaded, tasks, protocol, run.step if run else compute_now, progress, notify)
        numbers, made = metrics(found), claims(found)
        said = [*lines(found), "", f"how clean and corrupt are best made: {advice}"]
        if run is None:
            return Benchmarked(without_run(command, numbers, made), said, found, None)
        write_tables(run, tables(found))
        run.write("leaderboard.json", json.dumps(plain(leaderboard(found)), indent=2, ensure_ascii=False) + "\n")
        results = run.finish(numbers, claims=made)
        notify("writing the report")
        from otoscope.studies.causal_report import write_report

        return Benchmarked(results, said, found, write_report(run, found, made, advice))


def tasks_for(
    model: Model, protocol: Protocol, data: Path | None, source: Wanted, notify: Callable[[str], None]
) -> list[Task]:
    """The protocol's tasks, or all that the model can be asked.

    Raises:
        TaskError: an unknown task, or none can be made here.
    """
    asked, healthy = protocol.faults, protocol.healthy
    n = round(SPARE * (asked.items + asked.tuning + healthy.calibration + healthy.test))
    able = "audio-llm" if model.listens_and_reads else "recogniser"
    made = []
    for name in protocol.tasks or registry.TASKS:
        try:
            task = registry.make(name, n=n, seed=protocol.seed, source=source, data=data)
        except OtoscopeError as error:
            if protocol.tasks:
                raise
            notify(f"left out: {error}")
            continue
        if able in task.card.families:
            made.append(task)
        elif protocol.tasks:
            raise TaskError(
                f"the task '{name}' is for {' and '.join(task.card.families)} models, and {model.name} is another: leave it out."
            )
    if not made:
        raise TaskError(
            f"no task can be made here for {model.name}: name one with --tasks, and give its sounds with --data."
        )
    return made


def advised(run: Path | None) -> str:
    """How clean and corrupt are best made, as a run of the out-of-distribution study recommends, with its source.

    Args:
        run: its directory; None for the recommendation that comes with the package, which the ledger wrote.

    Raises:
        TaskError: there is no such run, or it recommends nothing.
    """
    from otoscope.studies.distance_run import packaged, recommendation

    if run is None:
        return packaged()
    try:
        results = json.loads((run / "results.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise TaskError(
            f"'{run}' holds no finished run: give the directory that `otoscope bench distance --out` wrote."
        ) from error
    return f"{recommendation(results)} Source: {run}."


def load_plugin(path: Path) -> None:
    """Run a Python file that registers methods.

    Raises:
        TaskError: it is not there, or fails.
    """
    spec = importlib.util.spec_from_file_location(f"otoscope_plugin_{path.stem}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise TaskError(f"the plugin '{path}' is no Python file: give one that registers a method with @method.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise TaskError(
            f"the plugin '{path}' fails ({type(error).__name__}: {error}): mend it, or leave it out."
        ) from error


def tables(found: Found) -> dict[str, list[dict[str, Any]]]:
    """Tables of the run: the leaderboard, every cell, the faults, what each method costs, and the circuits' curves."""
    board = []
    for line in found.standings:
        row: dict[str, Any] = {"method": line.entrant.label}
        named = {
            **line.numbers, "top1_single": line.single, "inputs_top1": line.on_inputs, "no_fault_ok": line.no_fault_ok,
            "detected": line.detected, "cpr": line.cpr, "cmd": line.cmd,
            **{f"top1 {k}": v for k, v in {**line.by_task, **line.by_part}.items()},
        }  # fmt: skip
        for name, value in named.items():
            row |= {name: value.value, f"{name} low": value.low, f"{name} high": value.high}
        board.append({**row, "stability": line.stability, "forwards": line.forwards})
    faults = [
        {"task": task.task.name, "of": "model" if p.of_model else "input", "name": p.fault.name, "kept": p.kept,
         "severity": p.fault.severity, "places": p.n_places}
        for task in found.tasks
        for p in task.faults
    ]  # fmt: skip
    curves = [
        {"task": task.task.name, "method": name, "fraction": x, "f": y}
        for task in found.tasks
        for name, curve in task.circuits.items()
        for x, y in zip(curve["fractions"], curve["f"])
    ]
    costs = [row for task in found.tasks for row in task.costs]
    return {
        "leaderboard": board,
        "cells": rows(found.tasks, found.entrants),
        "faults": faults,
        "cost": costs,
        "circuits": curves,
    }


def lines(found: Found) -> list[str]:
    """What is printed: the leaderboard, best first."""
    n = sum(p.of_model for task in found.tasks for p in task.faults)
    width = max(len(line.entrant.label) for line in found.standings)
    text = [
        f"{found.model.name}: {n} faults of the model over {len(found.tasks)} tasks "
        f"({', '.join(task.task.id for task in found.tasks)})",
        f"{'method':{width}}  top-1                top-3  AUC    no fault  stability  CPR    CMD    runs per fault",
    ]
    for line in found.standings:
        top = line.numbers["top1"]
        text.append(
            f"{line.entrant.label:{width}}  {top.value:.3f} [{top.low:.3f}, {top.high:.3f}]  {line.numbers['top3'].value:.3f}  "
            f"{line.numbers['auc'].value:.3f}  {line.no_fault_ok.value:<8.3f}  {line.stability:<9.3f}  {line.cpr.value:.3f}  "
            f"{line.cmd.value:.3f}  {line.forwards:.0f}"
        )
    text += ["", *(f"{claim.verdict}: {claim.statement} {claim.reason}" for claim in claims(found))]
    return text
