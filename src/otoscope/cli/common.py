"""What every command shares: options, JSON on stdout, progress and notices on stderr, tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from rich.progress import Progress

#: progress and notices; stdout is for results
stderr = Console(stderr=True, highlight=False)
stdout = Console(highlight=False)


def _noted(ctx: typer.Context, value: Path | None) -> Path | None:
    """Remember --out, so that an interruption can say whether anything is kept."""
    if ctx.obj is not None:
        ctx.obj["out"] = value
    return value


JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout; progress goes to stderr.")]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", callback=_noted, help="Directory to write the run to (resumes if it exists)."),
]
ModelOption = Annotated[
    str, typer.Option("--model", "-m", help="Embedded name, Hugging Face id, or local folder (see `otoscope models`).")
]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, cuda:0 or mps.")]
DtypeOption = Annotated[str, typer.Option(help="float32, float16, bfloat16 or float64.")]
RevisionOption = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub model.")]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Never ask the network.")]


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on stdout; NaN becomes null."""
    from otoscope.runs.files import plain

    json.dump(plain(value), sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


def print_lines(lines: Iterable[str]) -> None:
    """Text on stdout as it is: names and transcripts may hold brackets, which are no markup."""
    for line in lines:
        stdout.print(line, soft_wrap=True, markup=False)


class Done(Protocol):
    """What a study gives back: the results object, lines for a person, and the report's path where one was written."""

    @property
    def results(self) -> dict[str, Any]: ...

    @property
    def lines(self) -> list[str]: ...

    @property
    def report(self) -> Path | None: ...


def print_done(done: Done, as_json: bool) -> None:
    """A study's results as JSON, or its lines and where its report is."""
    if as_json:
        print_json(done.results)
        return
    print_lines(done.lines + ([f"\nreport: {done.report}"] if done.report else []))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str | None = None) -> None:
    """A table on stdout; numbers with three digits, nothing for None. In a pipe every row is one line."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(_shown(value)) for value in row))
    (stdout if stdout.is_terminal else Console(highlight=False, width=10_000)).print(table)


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def notice(text: str) -> None:
    """A remark on stderr."""
    stderr.print(f"[dim]note:[/dim] {escape(text)}", soft_wrap=True)


class Bar:
    """A progress bar on stderr. Call it with (done, total); ``say`` what is being computed; ``announce`` its cost."""

    def __init__(self, bar: Progress, label: str):
        self._bar = bar
        self._task = bar.add_task(label, total=None)

    def __call__(self, done: int, total: int) -> None:
        self._bar.update(self._task, completed=done, total=total)

    def say(self, line: str) -> None:
        """What happens from now on: a line that stays, and the bar's label."""
        stderr.print(f"[dim]{escape(line)}[/dim]", soft_wrap=True)
        self._bar.reset(self._task, description=escape(line))

    def announce(self, cost: object) -> None:
        """What the next computation will cost, before it starts."""
        stderr.print(f"[dim]  {escape(str(cost))}[/dim]", soft_wrap=True)


@contextmanager
def progress(label: str) -> Iterator[Bar]:
    """A progress bar that is gone when its block ends; only its lines where stderr is no terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bar:
        yield Bar(bar, label)
