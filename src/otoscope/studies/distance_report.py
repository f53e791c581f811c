"""The report of the out-of-distribution study: the recommendation, distance against false places, the grid, the sounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from otoscope.methods.false_localisation import ALARM, FAR, MARGIN, SPEAKS, TOLERANCE
from otoscope.report.blocks import Block, Claims, Figure, Note, Reproduce, Section, Sound, Sounds, Table
from otoscope.report.grid import grid
from otoscope.report.page import Report
from otoscope.report.scatter import Point, scatter
from otoscope.runs import Claim, Run
from otoscope.stats import Interval
from otoscope.studies.distance_choice import NATURAL
from otoscope.studies.distance_pairs import CORRUPTIONS
from otoscope.studies.distance_run import Found, headline
from otoscope.studies.distance_table import Cell, by, cell

#: points that are named in the figure: those with the most false maps
_NAMED = 3
#: corruptions of one sentence that are played
_PLAYED = 4


def write_report(run: Run, found: Found, claims: Sequence[Claim]) -> Path:
    """Write ``report.html`` and every figure as SVG, PDF and CSV; returns the path of the page."""
    title = f"Do unnatural states mislead {found.model}?"
    subtitle = f"{len(found.rows)} maps of {len(found.used)} sentences in which the place of the change is known"
    report = Report(title, headline=headline(found), subtitle=subtitle, lead=_scatter(found))
    report.add(Section("Claims", "Thresholds stand in the code and were set before the run."), Claims(claims))
    report.add(*(Note(notice, "warning") for notice in found.notices))
    report.add(
        Section(
            "The grid",
            f"A map is false when its largest effect lies outside the changed word (by more than {TOLERANCE:g} s), or when a "
            f"window at least {FAR:g} s away has an effect of {ALARM:g} or more. Maps whose largest effect is below "
            f"{SPEAKS:g}, or whose two runs differ by less than {MARGIN:g} nats, name nothing and count in no rate.",
        ),
        _grid(found),
    )
    report.add(*_margins(found), *_sounds(found), Section("Reproduce"))
    report.add(
        Reproduce(run.info, ["This folder also holds results.json, tables/ (CSV) and figures/ (PDF, SVG, CSV)."])
    )
    report.save(run)
    return run.path / "report.html"


def _scatter(found: Found) -> Figure | None:
    """Kinds of patch: how far the states they leave behind, and how often the place they name is false; None where none speaks."""
    cells = {name: cell(rows) for (name,), rows in by(found.rows, "kind").items()}
    speak = {name: c for name, c in cells.items() if not np.isnan(c.false.value)}
    most = sorted(speak, key=lambda name: -speak[name].false.value)[:_NAMED]
    ablations = {k.name for k in found.kinds if k.value not in ("donor", "half")}
    points = [
        Point(name, "ablation" if name in ablations else "other run's states", c.distance, c.false, name in most)
        for name, c in speak.items()
    ]
    if not points:
        return None
    drawing = scatter(
        "lead", points, x_label="mean distance of the states left behind", y_label="share of false maps",
        mark=1.0, mark_label="99% of natural windows",
    )  # fmt: skip
    caption = (
        "Each point is one kind of patch over all corruptions; crosses are 95% intervals over sentences. 1 is the distance "
        "that 99% of natural windows stay below."
    )
    return Figure(drawing, "Distance and false places", caption)


def _grid(found: Found) -> Figure:
    rows = [k.name for k in found.kinds][::-1]  # row 0 is at the bottom
    columns = [c for c in CORRUPTIONS if any(r["corruption"] == c for r in found.rows)]
    cells = {key: cell(group) for key, group in by(found.rows, "corruption", "kind").items()}

    def of(corruption: str, kind: str, what: str) -> float:
        one: Cell | None = cells.get((corruption, kind))
        return np.nan if one is None else getattr(one, what).value

    false = np.array([[of(c, k, "false") for c in columns] for k in rows])
    strange = np.array([[of(c, k, "flagged") > NATURAL for c in columns] for k in rows])
    drawing = grid(
        "false", false, rows, columns, label="share of false maps", row_label="patch", column_label="corruption",
        unnatural=strange, limit=1.0,
    )  # fmt: skip
    caption = (
        f"Crossed: more than {NATURAL:.0%} of the named windows leave the natural states. Empty: no map named a place. "
        "tables/cells.csv has the intervals and the number of maps of each cell."
    )
    return Figure(drawing, "False maps by corruption and kind of patch", caption)


def _margins(found: Found) -> list[Block]:
    blocks: list[Block] = []
    words = {k.name: k.words for k in found.kinds}
    for key, title in (("kind", "By kind of patch"), ("corruption", "By corruption")):
        groups = {name: cell(rows) for (name,), rows in by(found.rows, key).items()}
        said = [words[n] if key == "kind" else CORRUPTIONS[n][0] for n in groups]
        columns = {
            key: list(groups), "what": said, "maps": [c.maps for c in groups.values()],
            "silent": [c.silent.value for c in groups.values()],
            **{name: [_ends(getattr(c, of)) for c in groups.values()] for name, of in _SHOWN.items()},
        }  # fmt: skip
        blocks += [Section(title), Table(columns)]
    return blocks


_SHOWN = {
    "false": "false", "distance left behind": "distance", "distance put in": "put_in", "unnatural": "flagged",
    "largest effect": "effect",
}  # fmt: skip


def _ends(x: Interval) -> str:
    if np.isnan(x.value):
        return "–"
    return f"{x.value:.2f}" if np.isnan(x.low) else f"{x.value:.2f} [{x.low:.2f}, {x.high:.2f}]"


def _sounds(found: Found) -> list[Block]:
    """One sentence and some of what was made of it."""
    sentence = max(found.used, key=lambda s: len(s.sounds))
    span = (sentence.word.start, sentence.word.end)
    items = [Sound("clean", "clean", sentence.clip, sentence.clip.text, span)]
    chosen = {r["corruption"] for r in found.rows if r["sentence"] == sentence.name}
    for name in sorted(sentence.sounds, key=lambda n: n not in chosen)[:_PLAYED]:
        sound, where = sentence.sounds[name]
        items.append(Sound(f"changed-{name.replace('_', '-')}", CORRUPTIONS[name][0], sound, None, where))
    return [
        Section("One sentence", f"“{sentence.word.text}” is changed at {span[0]:.2f}-{span[1]:.2f} s."), Sounds(items),
    ]  # fmt: skip
