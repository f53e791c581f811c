"""What every command shares: options, the one clear sentence for bad input, JSON on stdout and progress on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

#: progress and notices; stdout is for results
stderr = Console(stderr=True, highlight=False)
stdout = Console(highlight=False)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout; progress goes to stderr.")]
OutOption = Annotated[Path | None, typer.Option("--out", help="Directory to write the run to (resumes if it exists).")]
ModelOption = Annotated[
    str, typer.Option("--model", "-m", help="Embedded name, Hugging Face id, or local folder (see `otoscope models`).")
]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, cuda:0 or mps.")]
DtypeOption = Annotated[str, typer.Option(help="float32, float16, bfloat16 or float64.")]
RevisionOption = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub model.")]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Never ask the network.")]


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on stdout; NaN becomes null."""
    from otoscope.runs.files import plain

    json.dump(plain(value), sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


def envelope(command: str, metrics: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """What a command that writes no run gives back: the same keys as a run's results."""
    from otoscope import __version__

    return {
        "command": command, "version": __version__, "run": None, "metrics": metrics or {}, "intervals": {}, "claims": [],
        **more,
    }  # fmt: skip


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr; yields a function that takes (done, total)."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, transient=True) as bar:
        task = bar.add_task(label, total=None)

        def update(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield update


def notice(text: str) -> None:
    """A remark on stderr."""
    stderr.print(f"[dim]note:[/dim] {text}", soft_wrap=True)
