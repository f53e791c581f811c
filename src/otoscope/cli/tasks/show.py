"""Print a task's data card and examples; with --out, write a report that plays and draws both sounds of each.

Example: otoscope tasks show minimal-pairs --feature voicing --out runs/voicing
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from otoscope.cli.common import JsonOption, OutOption, print_json, print_lines, print_table, progress


class _Source(StrEnum):
    auto = "auto"
    local = "local"
    hub = "hub"
    synthetic = "synthetic"


def command(
    name: Annotated[str, typer.Argument(help="A task; `otoscope tasks` lists them.")],
    n: Annotated[int, typer.Option("--n", min=1, help="So many items.")] = 4,
    data: Annotated[Path | None, typer.Option(help="Folder of the corpus, or of several.")] = None,
    source: Annotated[
        _Source, typer.Option(help="Where the sounds come from; auto: local with --data.")
    ] = _Source.auto,
    feature: Annotated[str | None, typer.Option(help="Of minimal-pairs: voicing, place, manner or height.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="An option of the task, NAME=VALUE, such as words=yes,no.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every draw.")] = 0,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:
    from otoscope.studies.tasks import card_lines, described, options_of, show_task

    with progress(f"making {name}") as bar:
        results, task = show_task(
            name, n=n, seed=seed, source=source.value, data=data, options=options_of(name, settings, feature), out=out,
            notify=bar.say,
        )  # fmt: skip
    if json:
        print_json({**results, **described(task)})
        return
    print_lines(card_lines(task))
    print_lines([f"    digest: {task.digest()}", ""])
    rows = [[i.pair.name, i.answer, i.foil, f"{i.pair.span[0]:.3f}-{i.pair.span[1]:.3f}", i.unit] for i in task]
    print_table(["item", "answer", "foil", "span (s)", "unit"], rows)
    if out is not None:
        print_lines([f"report: {out / 'report.html'}"])
