"""What every command gives back, written as a run or not: one object with the same keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from otoscope.runs import Claim, Run
from otoscope.stats import Interval

Metrics = Mapping[str, Interval | float | int | None]
Rows = Sequence[Mapping[str, Any]]

#: ``step(key, compute)``: what an earlier, stopped run stored under ``key``, else computed (and stored where there is a run)
Step = Callable[[str, Callable[[], Any]], Any]


def without_run(command: str, metrics: Metrics, claims: Sequence[Claim] = ()) -> dict[str, Any]:
    """The results object of a command that writes no run: the keys of ``results.json``, with ``run`` None."""
    from otoscope import __version__

    return {
        "command": command, "version": __version__, "run": None,
        "metrics": {k: v.value if isinstance(v, Interval) else v for k, v in metrics.items()},
        "intervals": {k: [v.low, v.high] for k, v in metrics.items() if isinstance(v, Interval)},
        "claims": [claim.to_json() for claim in claims],
    }  # fmt: skip


def compute_now(key: str, compute: Callable[[], Any]) -> Any:
    """The step of a command that writes no run."""
    return compute()


def claim_line(claim: Claim, value: str = ".3g", ends: str = ".2f", *, count: bool = False) -> str:
    """A claim as a person reads it in the terminal: verdict, statement, value with interval, bar.

    Args:
        claim: it.
        value, ends: formats of its value and of the ends of its interval.
        count: also how many units it is over.
    """
    told = "none" if claim.value is None or np.isnan(claim.value) else format(claim.value, value)
    if claim.interval is not None and not np.isnan(claim.interval[0]):
        told += f" [{claim.interval[0]:{ends}}, {claim.interval[1]:{ends}}]"
    over = f", n={claim.n}" if count else ""
    return f"{claim.verdict.upper()}: {claim.statement} ({told}, bar {claim.threshold}{over})"


def write_tables(run: Run, tables: Mapping[str, Rows]) -> None:
    """Write rows as ``tables/NAME.csv``; the first row names the columns."""
    for name, rows in tables.items():
        run.table(name, {key: [row[key] for row in rows] for key in (rows[0] if rows else ())})


def outcome(
    command: str,
    metrics: Metrics,
    config: Mapping[str, Any],
    out: Path | None,
    tables: Mapping[str, Rows] | None = None,
) -> dict[str, Any]:
    """The results object of a command that computes at once; with ``out``, written there with its tables.

    Args:
        command: its name.
        metrics: flat, name -> number or Interval.
        config: what it was asked.
        out: directory for the run.
        tables: name -> rows of plain values.

    Raises:
        RunError: the directory cannot be written, or holds something else.
    """
    if out is None:
        return without_run(command, metrics)
    with Run(out, command, config) as run:
        write_tables(run, tables or {})
        return run.finish(metrics)
