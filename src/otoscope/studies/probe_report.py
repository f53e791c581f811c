"""The report of a probing study: the curve over layers with its nulls, selectivity, code length, labels, claims."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from otoscope.methods.frames import MEL
from otoscope.methods.probes import HeldOut
from otoscope.report.blocks import Block, Claims, Figure, Note, Reproduce, Section, Table
from otoscope.report.grid import grid
from otoscope.report.lens import Line, lens
from otoscope.report.page import Report
from otoscope.runs import Claim, Run
from otoscope.stats import Interval
from otoscope.studies.probe import Found, Reading, layer_number

_Role = Literal["answer", "foil", "other"]


def write_report(run: Run, found: Found, claims: Sequence[Claim], headline: str) -> Path:
    """Write ``report.html`` and every figure as SVG, PDF and CSV; returns the path of the page."""
    data = found.data
    what = "frames" if data.of_frames else "recordings"
    report = Report(
        f"From which layers of {found.model} can {found.label} be read?",
        headline=headline,
        subtitle=f"{len(found.rows)} {what} of {len(set(data.speakers))} speakers, {len(np.unique(found.rows.labels))} labels",
        lead=_curve(found),
    )
    report.add(*(Note(note) for note in data.notes))
    report.add(Section("Claims", "Thresholds stand in the code and were set before the run."), Claims(claims))
    report.add(*_selectivity(found))
    report.add(*_code(found))
    report.add(Section("All numbers", "Accuracies with 95% intervals over " + _units(found) + "."), _numbers(found))
    report.add(*_by_label(found))
    report.add(*_alike(found))
    report.add(Section("Reproduce"))
    report.add(
        Reproduce(run.info, ["This folder also holds results.json, tables/ (CSV) and figures/ (PDF, SVG, CSV)."])
    )
    report.save(run)
    return run.path / "report.html"


def short(site: str) -> str:
    """A site's name on an axis."""
    return MEL if site == MEL else "input" if layer_number(site) < 0 else str(layer_number(site))


def _units(found: Found) -> str:
    return "recordings" if found.label == "speaker" else "speakers"


def _line(label: str, intervals: Sequence[Interval | None], role: _Role, *, band: bool = True) -> Line:
    def ends(of: Callable[[Interval], float]) -> np.ndarray:
        return np.array([np.nan if i is None else of(i) for i in intervals])

    if not band:
        return Line(label, ends(lambda i: i.value), role)
    return Line(label, ends(lambda i: i.value), role, ends(lambda i: i.low), ends(lambda i: i.high))


def _accuracies(found: Found, of: Callable[[Reading], HeldOut | None]) -> list[Interval | None]:
    held = [of(reading) for reading in found.readings.values()]
    return [None if h is None else h.accuracy() for h in held]


def _curve(found: Found) -> Figure:
    names = [short(site) for site in found.readings]
    blank = [found.untrained[site].linear.accuracy() if site in found.untrained else None for site in found.readings]
    lines = [
        _line("linear probe", _accuracies(found, lambda r: r.linear), "answer"),
        _line("control: untrained weights", blank, "foil"),
        _line("control: shuffled labels", _accuracies(found, lambda r: r.shuffled), "other"),
    ]
    drawing = lens(
        "accuracy", lines, names, label="accuracy", title=f"{found.label}, held out by {_units(found)[:-1]}",
        layer_label="encoder layer (mel: the spectrogram)",
    )  # fmt: skip
    caption = (
        f"Share of held-out {'frames' if found.data.of_frames else 'recordings'} whose label is right, mean of "
        f"{len(next(iter(found.readings.values())).linear.right)} seeds. Bands are 95% intervals over {_units(found)}. Always "
        f"saying the most frequent label gives {found.rows.chance:.0%}."
    )
    return Figure(drawing, f"How well {found.label} can be read", caption)


def _selectivity(found: Found) -> list[Block]:
    names = [short(site) for site in found.readings]
    lines = [
        _line("the task", _accuracies(found, lambda r: r.task), "answer"),
        _line("the control task", _accuracies(found, lambda r: r.control), "foil"),
    ]
    drawing = lens(
        "selectivity", lines, names, label="accuracy", title="task and control task, on known types",
        layer_label="encoder layer (mel: the spectrogram)",
    )  # fmt: skip
    kind = "word" if found.data.of_frames else "speaker"
    text = (
        f"In the control task every {kind} has one random label, which can only be memorised. The gap between the lines is the "
        "probe's selectivity (Hewitt & Liang 2019)."
    )
    if found.rows.types_are_groups:
        text += " Both lines are of held-out recordings of known speakers, so the task's may lie above that of the first figure."
    return [Section("Is the probe selective?", text), Figure(drawing, "Task against control task")]


def _code(found: Found) -> list[Block]:
    values = np.array([reading.compression for reading in found.readings.values()])
    if np.isnan(values).all():
        return []
    drawing = lens(
        "compression", [Line("on-line code", values, "answer"), Line("no information", np.ones(len(values)), "other")],
        [short(site) for site in found.readings], label="compression", title="minimum description length",
        layer_label="encoder layer (mel: the spectrogram)",
    )  # fmt: skip
    text = (
        "Bits of the labels sent by the uniform code, over bits of the on-line code (Voita & Titov 2020): from a high value, few "
        "recordings suffice to learn to read the label."
    )
    return [Section("How easily is it read?", text), Figure(drawing, "Compression by layer")]


def shown(value: Interval | None) -> str:
    """A value with its interval, for reading."""
    if value is None or np.isnan(value.value):
        return "–"
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"


def _numbers(found: Found) -> Table:
    readings = list(found.readings.values())
    columns: dict[str, list[Any]] = {"site": list(found.readings)}
    for title, held in (
        ("linear", [r.linear for r in readings]), ("MLP", [r.mlp for r in readings]),
        ("shuffled labels", [r.shuffled for r in readings]), ("control task", [r.control for r in readings]),
    ):  # fmt: skip
        if any(h is not None for h in held):
            columns[title] = [shown(None if h is None else h.accuracy()) for h in held]
    columns["selectivity"] = [shown(r.selectivity) for r in readings]
    columns["untrained weights"] = [
        shown(found.untrained[s].linear.accuracy() if s in found.untrained else None) for s in found.readings
    ]
    return Table(columns)


def _by_label(found: Found) -> list[Block]:
    labels, counts = np.unique(found.rows.labels, return_counts=True)
    right = found.readings[found.best].linear.per_row
    shares = [float(np.nanmean(right[found.rows.labels == label])) for label in labels]
    table = Table({"label": list(labels), "rows": [int(c) for c in counts], "right": shares})
    return [
        Section("By label", f"Share of rows of each label that the linear probe at {found.best} gets right."),
        table,
    ]


def _alike(found: Found) -> list[Block]:
    if not found.similarity:
        return []
    text = (
        "Unbiased centred kernel alignment of the states at the same frames: 1 where two layers hold the same up to rotation and "
        "scale. Hatched cells are not above the null, in which blocks of half a second change places."
    )
    made: list[Block] = [Section("How alike are the layers?", text)]
    for name, alike in found.similarity.items():
        title = f"Layers of {found.model} and of {alike.other}" if name != "layers" else f"Layers of {found.model}"
        drawing = grid(
            f"similarity-{name}", alike.value, [short(s) for s in alike.rows], [short(s) for s in alike.columns],
            label="unbiased CKA", row_label=f"layer of {found.model}", column_label=f"layer of {alike.other}",
            significant=alike.p_value <= 0.05, limit=1.0,
        )  # fmt: skip
        caption = f"One set of frames per recording. The largest mean of the null is {np.nanmax(alike.null):.3f}."
        made.append(Figure(drawing, title, caption))
    return made
