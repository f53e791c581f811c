"""What a task file declares: its name, its card, and how its items are made from each source of sound.

A task of your own is one file with a ``TaskSource`` (imitate ``spoken_digits.py``) and one line in ``registry.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args

from otoscope.errors import TaskError
from otoscope.tasks.task import Card, Task, TaskItem

Source = Literal["local", "hub", "synthetic"]

SOURCES: tuple[Source, ...] = get_args(Source)
#: sampling rate of all items, Hz
RATE = 16000
#: items of a task where the caller asks for no number
DEFAULT_ITEMS = 40


@dataclass(frozen=True)
class Request:
    """What a caller wants of a task.

    Attributes:
        n: so many items.
        seed: of every draw.
        source: where the sounds come from.
        data: folder of the corpus; None unless the source is ``local``.
        options: the task's own options, all of them known to it.
    """

    n: int
    seed: int
    source: Source
    data: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The folder of the corpus.

        Raises:
            TaskError: none was given.
        """
        if self.data is None:
            raise TaskError("the source 'local' needs data=FOLDER (--data DIR): give the folder of the corpus.")
        return self.data


@dataclass(frozen=True)
class Made:
    """What a task file gives back: items, the labels that answers come from, and what the card says of this source."""

    items: Sequence[TaskItem]
    labels: tuple[str, ...] = ()
    source: str = ""
    licence: str = ""


@dataclass(frozen=True)
class TaskSource:
    """A task that can be made.

    Attributes:
        name: how it is called.
        version: raised whenever the same arguments give other items.
        card: its data card; ``source`` and ``licence`` of a made task are those of the sounds it was made from.
        build: makes the items.
        sources: where its sounds may come from.
        options: its own options -> what each is.
    """

    name: str
    version: int
    card: Card
    build: Callable[[Request], Made]
    sources: tuple[Source, ...] = SOURCES
    options: Mapping[str, str] = field(default_factory=dict)

    def make(self, request: Request) -> Task:
        """The task.

        Raises:
            TaskError: an option is unknown, the source is not one of its own, or its sounds cannot be had.
        """
        for option in request.options:
            if option not in self.options:
                raise TaskError(
                    f"the task '{self.name}' has no option '{option}'{near(option, self.options)}: "
                    f"it has {', '.join(self.options) or 'none'}."
                )
        if request.source not in self.sources:
            raise TaskError(
                f"the task '{self.name}' has no source '{request.source}': choose one of {', '.join(self.sources)}."
            )
        made = self.build(request)
        card = replace(self.card, source=made.source or self.card.source, licence=made.licence or self.card.licence)
        return Task(self.name, self.version, request.seed, tuple(made.items[: request.n]), card, made.labels)


def number_of(request: Request, option: str, default: float) -> float:
    """A positive number that the caller may give as an option.

    Raises:
        TaskError: it is none.
    """
    given = request.options.get(option, default)
    try:
        value = float(given)
    except (TypeError, ValueError):
        value = math.nan
    if not 0 < value < math.inf:
        raise TaskError(f"{option} is '{given}': give a positive number, such as {default:g}.")
    return value


def near(name: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    """``" (did you mean 'digits'?)"`` where something known is near, else nothing."""
    match = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean '{match[0]}'?)" if match else ""
