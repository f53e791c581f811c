"""The report of the verdicts on planted errors: the claims, every kind of plant, and the plants that were judged wrongly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from otoscope.report.blocks import Claims, Figure, Reproduce, Section, Table
from otoscope.report.effects import Bar, effects
from otoscope.report.page import Report
from otoscope.runs import Claim, Run
from otoscope.stats import bootstrap

#: plants that were judged wrongly and are listed
_MISSES = 40


def write_report(
    run: Run, model: str, rows: Sequence[dict[str, Any]], claims: Sequence[Claim], lines: Sequence[str]
) -> Path:
    """Write ``report.html``; returns its path."""
    made = [r for r in rows if r["changed"]]
    report = Report(
        f"Does it know why {model} erred?", headline=lines[0], subtitle=f"{len(made)} planted errors", lead=_bars(made)
    )
    report.add(Section("Claims", "Thresholds stand in the code and were set before the run."), Claims(claims))
    report.add(Section("Kinds of plants"), _kinds(rows))
    wrong = [r for r in made if not r["right"]][:_MISSES]
    if wrong:
        report.add(Section("Judged otherwise"), Table(
            {name: [r[name] for r in wrong] for name in ("name", "how", "said", "written", "verdict", "iou")}))  # fmt: skip
    report.add(Section("Reproduce"))
    report.add(Reproduce(run.info, ["This folder also holds results.json and tables/ (CSV), with every plant."]))
    report.save(run)
    return run.path / "report.html"


def _bars(made: Sequence[dict[str, Any]]) -> Figure:
    bars = []
    for how in dict.fromkeys(r["how"] for r in made):
        own = [r for r in made if r["how"] == how]
        rights = np.array([float(r["right"]) for r in own])
        bars.append(Bar(f"{how} ({len(own)})", bootstrap(rights, groups=[r["speaker"] for r in own])))
    drawing = effects(
        "verdicts", bars, label="share with the right verdict", title="Right verdicts by what was planted"
    )
    return Figure(drawing, "Right verdicts", "Intervals resample speakers.")


def _kinds(rows: Sequence[dict[str, Any]]) -> Table:
    table: dict[str, list[Any]] = {
        name: [] for name in ("plant", "tried", "made an error", "right verdict", "median IoU")
    }
    for how in dict.fromkeys(r["how"] for r in rows):
        own = [r for r in rows if r["how"] == how]
        made = [r for r in own if r["changed"]]
        placed = [r["iou"] for r in made if not np.isnan(r["iou"])]
        values = (how, len(own), len(made), float(np.mean([r["right"] for r in made])) if made else float("nan"),
                  float(np.median(placed)) if placed else float("nan"))  # fmt: skip
        for name, value in zip(table, values):
            table[name].append(value)
    return Table(table)
