"""The report of the causal benchmark: the leaderboard, the grid of methods and tasks, and what was planted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from otoscope.report.blocks import Figure, Note, Reproduce, Section, Table
from otoscope.report.effects import Bar, effects
from otoscope.report.grid import grid
from otoscope.report.page import Report
from otoscope.runs import Claim, Run
from otoscope.stats import Interval
from otoscope.studies.causal import EXACT, Found
from otoscope.studies.causal_scores import Standing

_TOP1 = "share of faults named first"


def write_report(run: Run, found: Found, claims: Sequence[Claim], advice: str) -> Path:
    """Write ``report.html`` and every figure as SVG, PDF and CSV; returns the path of the page."""
    faults = [p for task in found.tasks for p in task.faults]
    n_model = sum(p.of_model for p in faults)
    report = Report(
        f"Which method finds the place of a fault in {found.model.name}?",
        headline=headline(found),
        subtitle=f"{n_model} faults of the model and {len(faults) - n_model} of the input, {len(found.tasks)} tasks",
        lead=_board(found),
    )
    report.add(Note(f"How clean and corrupt are best made: {advice}", "info"))
    report.add(Section("Leaderboard", _EXPLAINED), _table(found.standings))
    report.add(
        Section("Method by task"), _grid(found, "method-by-task", "by task", [s.by_task for s in found.standings])
    )
    report.add(
        Section("Method by what is broken"),
        _grid(found, "method-by-part", "by what is broken", [s.by_part for s in found.standings]),
    )
    report.add(*_circuits(found))
    report.add(Section("What was planted", _PLANTED), _planted(found))
    few = [name for name, n in Counter(p.part for p in faults if p.of_model).items() if n < 10]
    if few:
        report.add(
            Note(f"Fewer than 10 faults of these kinds kept the behaviour within range: {', '.join(few)}.", "info")
        )
    report.add(
        Section("What a method costs", "On its own, one fault; the healthy runs serve all faults and are not counted.")
    )
    report.add(_costs(found), Section("Reproduce"))
    notes = ["This folder also holds leaderboard.json, results.json, tables/ (CSV) and figures/ (PDF, SVG, CSV)."]
    report.add(Reproduce(run.info, notes))
    report.save(run)
    return run.path / "report.html"


def headline(found: Found) -> str:
    """The benchmark in one sentence."""
    exact = found.standing(EXACT)
    others = [s for s in found.standings if s.entrant.label != EXACT]
    if exact is None:
        best = found.standings[0]
        return f"{best.entrant.label} names the faulty place first in {best.numbers['top1'].value:.0%} of the faults."
    said = f"Exact repair patching names the faulty place first in {exact.numbers['top1'].value:.1%} of the faults"
    if not others:
        return f"{said}."
    best = others[0]
    return f"{said}; the next best, {best.entrant.label}, in {best.numbers['top1'].value:.1%}."


_EXPLAINED = (
    "Top-1 and top-3: the true place is ranked first, or among the first three (of two swapped heads, either; one place: "
    "without these swaps). AUC: a true place is ranked above a false one. No fault: a healthy model, its weights rounded, is "
    "called healthy; its level: the share that must be, as far as the number of calibration items goes. Detected: a fault is "
    "called a fault, by the same threshold. Stability: mean rank correlation of the rankings by single items. CPR (higher is "
    "better) and CMD (lower is better): how faithfully the places that are ranked first carry the behaviour of the healthy "
    "model. Intervals are over faults (no fault: over healthy cases; CPR and CMD: over tasks)."
)
_PLANTED = (
    "One fault at a time, as severe as needed to leave between a quarter and three quarters of the healthy logit difference "
    "(a tenth and nine tenths where there is no severity to choose)."
)


def _board(found: Found) -> Figure:
    chance = np.mean([len(p.truth) / p.n_places for task in found.tasks for p in task.faults if p.of_model])
    bars = [Bar(s.entrant.label, s.numbers["top1"]) for s in found.standings]
    caption = (
        f"Share of the faults of the model whose true place a method names first, with 95% intervals over faults. By chance "
        f"alone: {chance:.1%}."
    )
    return Figure(effects("leaderboard", bars, label=_TOP1), "Leaderboard", caption)


def _table(standings: Sequence[Standing]) -> Table:
    def shown(value: Interval) -> str:
        if np.isnan(value.value):
            return "–"
        bounds = "" if np.isnan(value.low) else f" [{value.low:.2f}, {value.high:.2f}]"
        return f"{value.value:.3f}{bounds}"

    return Table(
        {
            "method": [s.entrant.label for s in standings],
            "top-1": [shown(s.numbers["top1"]) for s in standings],
            "top-1, one place": [shown(s.single) for s in standings],
            "top-3": [shown(s.numbers["top3"]) for s in standings],
            "AUC": [shown(s.numbers["auc"]) for s in standings],
            "mean rank": [shown(s.numbers["mean_rank"]) for s in standings],
            "faults of the input, top-1": [shown(s.on_inputs) for s in standings],
            "no fault": [shown(s.no_fault_ok) for s in standings],
            "by its level": [s.no_fault_level for s in standings],
            "detected": [shown(s.detected) for s in standings],
            "stability": [s.stability for s in standings],
            "CPR": [shown(s.cpr) for s in standings],
            "CMD": [shown(s.cmd) for s in standings],
        }
    )


def _grid(found: Found, name: str, title: str, values: Sequence[Mapping[str, Interval]]) -> Figure:
    columns = list(dict.fromkeys(key for row in values for key in row))
    labels = [s.entrant.label for s in found.standings]
    cells = np.array([[row[c].value if c in row else np.nan for c in columns] for row in values])
    counts = {c: max((row[c].n for row in values if c in row), default=0) for c in columns}
    drawing = grid(name, cells[::-1], labels[::-1], columns, label=_TOP1, row_label="", column_label="", limit=1.0)
    sizes = ", ".join(f"{c} {n}" for c, n in counts.items())
    return Figure(
        drawing, f"Top-1 {title}", f"Faults: {sizes}. Every cell with its interval is in tables/leaderboard.csv."
    )


def _circuits(found: Found) -> list[Section | Figure]:
    names = list(dict.fromkeys(name for task in found.tasks for name in task.circuits))
    if not names:
        return []
    fractions = found.protocol.faithfulness.fractions
    curves = np.array(
        [np.mean([t.circuits[name]["f"] for t in found.tasks if name in t.circuits], axis=0) for name in names]
    )
    columns = [f"{x:.1%}" for x in fractions]
    drawing = grid(
        "faithfulness", np.clip(curves, -1.5, 1.5)[::-1], names[::-1], columns, label="faithfulness f", row_label="",
        column_label="places kept", limit=1.0,
    )  # fmt: skip
    caption = (
        "The healthy model with only the places that a method ranks first, all others taking the corrupt sound's values: 1 "
        "keeps the whole behaviour, 0 none of it. Mean over tasks; values beyond 1.5 are drawn as 1.5."
    )
    return [Section("Faithfulness of circuits"), Figure(drawing, "Faithfulness by number of places kept", caption)]


def _planted(found: Found) -> Table:
    faults = [(task.task.name, p) for task in found.tasks for p in task.faults]
    kinds = Counter((p.part, p.fault.kind, p.of_model) for _, p in faults)
    kept = {key: np.median([p.kept for _, p in faults if (p.part, p.fault.kind, p.of_model) == key]) for key in kinds}
    keys = sorted(kinds, key=lambda k: (not k[2], k[0], k[1]))
    return Table(
        {
            "what": [part for part, _, _ in keys],
            "how": [kind for _, kind, _ in keys],
            "faults": [kinds[key] for key in keys],
            "median share of the behaviour kept": [float(kept[key]) for key in keys],
        }
    )


def _costs(found: Found) -> Table:
    rows = [row for task in found.tasks for row in task.costs]
    labels = [s.entrant.label for s in found.standings]

    def mean(label: str, stack: str, what: str) -> float:
        values = [row[what] for row in rows if row["method"] == label and row["fault in"] == stack]
        return float(np.mean(values)) if values else float("nan")

    return Table(
        {
            "method": labels,
            "runs, fault in the encoder": [mean(x, "encoder", "forwards") for x in labels],
            "seconds": [mean(x, "encoder", "seconds") for x in labels],
            "runs, fault in the decoder": [mean(x, "decoder", "forwards") for x in labels],
            "seconds ": [mean(x, "decoder", "seconds") for x in labels],
        }
    )
