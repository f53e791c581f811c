"""Which tasks are there, and what do their items sound like?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from otoscope.audio.synth import flite
from otoscope.errors import TaskError
from otoscope.runs import Run
from otoscope.studies.outcome import outcome, without_run, write_tables
from otoscope.tasks.registry import TASKS, find, make
from otoscope.tasks.source import Source, TaskSource
from otoscope.tasks.task import Task, TaskItem

Rows = list[dict[str, Any]]

#: of a task, what the list shows
COLUMNS = ("name", "version", "factor", "asked_of", "sources", "summary")


def list_tasks(out: Path | None = None) -> tuple[dict[str, Any], Rows]:
    """The results object, and a row per task: name, version, factor, whom it can ask, sources that work here, summary."""
    here = sources_here()
    rows = [
        {
            "name": task.name, "version": task.version, "factor": task.card.factor,
            "asked_of": ", ".join(task.card.families),
            "sources": ", ".join(_named(task, source) for source in task.sources if source in here),
            "summary": task.card.summary,
        }
        for task in TASKS.values()
    ]  # fmt: skip
    config = {"tasks": [f"{row['name']}@{row['version']}" for row in rows]}
    return outcome("tasks", {"tasks": len(rows)}, config, out, {"tasks": rows}), rows


def sources_here() -> set[Source]:
    """The sources that this installation can use: ``local`` always, the others where their package or program is there."""
    here: set[Source] = {"local"}
    if flite.available() or find_spec("espeakng_loader"):
        here.add("synthetic")
    if find_spec("datasets"):
        here.add("hub")
    return here


def _named(task: TaskSource, source: Source) -> str:
    return "local (--data)" if source == "local" and "synthetic" in task.sources else source


def options_of(name: str, settings: list[str] | None, feature: str | None) -> dict[str, str]:
    """A task's own options as a person writes them, ``NAME=VALUE``; ``feature`` is one of them with a flag of its own.

    Raises:
        TaskError: a setting has no ``=``.
    """
    options: dict[str, str] = {}
    for setting in settings or []:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            known = ", ".join(find(name).options)
            raise TaskError(f"'{setting}' is no setting of '{name}': expected NAME=VALUE with one of {known}.")
        options[key] = value
    return {**options, "feature": feature} if feature is not None else options


def show_task(
    name: str,
    *,
    n: int = 4,
    seed: int = 0,
    source: Literal["auto", "local", "hub", "synthetic"] = "auto",
    data: Path | None = None,
    options: Mapping[str, Any] | None = None,
    out: Path | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> tuple[dict[str, Any], Task]:
    """The first items of a task, with a report that plays and draws them.

    Args:
        name, n, seed, source, data, options: as for :func:`otoscope.tasks.registry.make`.
        out: directory for the run: the report and ``tables/items.csv``, which has the digest of every item.
        notify: told what is being done.

    Returns:
        the results object, and the task.

    Raises:
        TaskError, AudioError: as for :func:`otoscope.tasks.registry.make`.
    """
    notify(f"making {n} item{'s' if n != 1 else ''} of {name}")
    task = make(name, n=n, seed=seed, source=source, data=data, **(options or {}))
    metrics = _metrics(task)
    asked = {
        "task": task.id, "n": n, "seed": seed, "source": task.card.source, "digest": task.digest(),
        "options": {key: str(value) for key, value in sorted((options or {}).items())},
    }  # fmt: skip
    with nullcontext() if out is None else Run(out, "tasks", asked) as run:
        if run is None:
            return without_run("tasks", metrics), task
        write_tables(run, {"items": [item_row(item) for item in task]})
        results = run.finish(metrics)
        notify("writing the report")
        from otoscope.studies.tasks_report import write_report

        write_report(run, task)
        return results, task


def item_row(item: TaskItem) -> dict[str, Any]:
    """What a table shows of an item."""
    pair = item.pair
    return {
        "item": pair.name, "answer": item.answer, "foil": item.foil, "unit": item.unit,
        "start_s": round(pair.span[0], 6), "end_s": round(pair.span[1], 6), "seconds": round(pair.duration, 6),
        "change": pair.change, "question": item.question,
        "labels": "; ".join(f"{key}={value}" for key, value in item.labels.items()), "digest": item.digest(),
    }  # fmt: skip


def described(task: Task) -> dict[str, Any]:
    """JSON-ready: the card, the digest, and a row per item."""
    return {"task": task.describe(), "items": [item_row(item) for item in task]}


def card_lines(task: Task) -> list[str]:
    """The card as text."""
    card = asdict(task.card)
    card["families"] = ", ".join(task.card.families)
    return [
        f"{task.id}: {card.pop('summary')}",
        *(f"    {key.replace('_', ' ')}: {value}" for key, value in card.items()),
    ]


def _metrics(task: Task) -> dict[str, float | int]:
    return {
        "n": len(task),
        "n_units": len({item.unit for item in task}),
        "n_answers": len({item.answer for item in task}),
        "seconds_of_sound": sum(item.pair.duration for item in task),
        "version": task.version,
    }
