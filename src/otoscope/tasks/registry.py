"""All tasks of the causal benchmark by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from otoscope.errors import TaskError
from otoscope.tasks import (
    environmental_sounds,
    minimal_pairs,
    short_sentences,
    spoken_commands,
    spoken_digits,
    voices,
)
from otoscope.tasks.source import DEFAULT_ITEMS, SOURCES, Request, TaskSource, near
from otoscope.tasks.task import Task

#: name -> task; the order is that of the lists
TASKS: dict[str, TaskSource] = {
    task.name: task
    for task in (
        spoken_commands.TASK,
        spoken_digits.TASK,
        environmental_sounds.TASK,
        short_sentences.TASK,
        minimal_pairs.TASK,
        voices.TASK,
    )
}


def find(name: str) -> TaskSource:
    """A task by its name.

    Raises:
        TaskError: there is none; the sentence names the nearest.
    """
    if name not in TASKS:
        raise TaskError(f"there is no task '{name}'{near(name, TASKS)}: tasks are {', '.join(TASKS)}.")
    return TASKS[name]


def make(
    name: str,
    *,
    n: int | None = None,
    seed: int = 0,
    source: Literal["auto", "local", "hub", "synthetic"] = "auto",
    data: Path | str | None = None,
    **options: Any,
) -> Task:
    """Make a task. The same arguments give the same items, and fewer items are the first of more.

    Args:
        name: one of ``TASKS``.
        n: so many items; None for 40, or all where there are fewer.
        seed: of every draw.
        source: ``local`` reads the corpus in ``data``; ``hub`` gets it through the package ``datasets``; ``synthetic`` needs
            no data; ``auto`` is local where data is given and the task can be made from it, else synthetic.
        data: the corpus's folder as it is distributed, a folder with a ``manifest.tsv``, or a folder that holds such
            folders.
        options: the task's own, such as ``feature="voicing"`` of ``minimal-pairs``.

    Raises:
        TaskError: unknown task, source or option; a corpus that is missing, empty, mislabelled or too small.
        AudioError: no engine of speech is installed, or a recording cannot be read.
    """
    found = find(name)
    if source not in ("auto", *SOURCES):
        raise TaskError(f"there is no source '{source}'{near(source, SOURCES)}: choose auto, {', '.join(SOURCES)}.")
    if n is not None and n < 1:
        raise TaskError(f"n is {n}: give at least one item, or None.")
    if source == "auto":
        source = "local" if data is not None and "local" in found.sources else "synthetic"
    folder = None
    if source == "local":
        if data is None:
            raise TaskError(
                f"the task '{name}' from the source 'local' needs its corpus: give data=FOLDER (--data DIR)."
            )
        folder = Path(data)
        if not folder.is_dir():
            raise TaskError(f"there is no folder '{folder}': give the folder of the corpus.")
    task = found.make(Request(DEFAULT_ITEMS if n is None else n, seed, source, folder, options))
    if n is not None and len(task) < n:
        raise TaskError(
            f"the task '{name}' has only {len(task)} items there, and {n} were asked for: give more sounds, or ask for fewer."
        )
    return task
