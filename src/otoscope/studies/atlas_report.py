"""The report of an atlas: every label with its best unit, the moments to hear, where heads look, and all units to search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from otoscope.models.site import Site
from otoscope.report.blocks import Block, Claims, Figure, Note, Reproduce, Section, Sound, Sounds, Table
from otoscope.report.effects import Bar, effects
from otoscope.report.index import Index
from otoscope.report.page import Report
from otoscope.runs import Claim, Run
from otoscope.stats import bootstrap
from otoscope.studies.atlas import Found, Responses, shares
from otoscope.studies.atlas_heads import WORD
from otoscope.studies.atlas_run import label_rows, unit_rows

#: labels whose best units can be heard, and seconds around a moment
_HEARD, _AROUND = 10, 0.35
#: rows in the page, which its search then finds; all are in the table
_UNITS = 50_000


def write_report(run: Run, found: Found, claims: Sequence[Claim], headline: str) -> Path:
    """Write ``report.html`` and every figure as SVG, PDF and CSV; returns the path of the page."""
    kinds = [piece.kind for piece in found.pieces]
    report = Report(
        f"What does every neuron and head of {found.model} respond to?",
        headline=headline,
        subtitle=f"{kinds.count('speech')} sentences, {kinds.count('noisy')} of them again in noise, {kinds.count('sound')} sounds",
        lead=_labels(found),
    )
    report.add(Section("Claims", "Thresholds stand in the code and were set before the run."), Claims(claims))
    report.add(*_units(found))
    report.add(*_moments(found))
    report.add(*_heads(found))
    report.add(*_nulls(found))
    report.add(
        Section("Reproduce"),
        Reproduce(run.info, ["This folder also holds results.json, tables/ (CSV) and figures/ (PDF, SVG, CSV)."]),
    )
    report.save(run)
    return run.path / "report.html"


def _labels(found: Found) -> Figure:
    rows = [row for row in label_rows(found) if row["learned"]] or label_rows(found)
    rows = sorted(rows, key=lambda row: -abs(row["effect on the other half"]))[:24]
    bars = []
    for row in rows:
        value = row["effect on the other half"]
        control = row["effect"] and abs(row["effect"]) - row["selectivity"]
        plain = {"labels that say nothing": bootstrap([control])} if np.isfinite(control) else {}
        label = f"{row['label']} ({row['stack']})"
        bars.append(Bar(label, bootstrap([value]), plain))
    drawing = effects(
        "labels", bars, label="effect |2 AUC − 1| of the unit that the other speakers chose", title="one unit per label"
    )
    caption = (
        "For each label, one half of the speakers chooses the unit that responds most, and the other half is measured: "
        "0 is nothing, 1 is a unit that knows the label. Pitch is a rank correlation. Drawn are the labels with the largest "
        "effects, 24 at most; all are in the table of labels below."
    )
    return Figure(drawing, "How well single units know each label", caption)


def _units(found: Found) -> list[Block]:
    rows = unit_rows(found)
    shown = rows[:_UNITS]
    text = (
        "A unit responds if it follows a label more than any unit does with labels that say nothing (family-wise, 5%); it "
        "learned to if it also does so more than the strongest unit of fresh weights. Type words to search: a label, a stack, "
        "a layer, a unit."
    )
    made: list[Block] = [Section("All units that respond", text)]
    if not rows:
        return [*made, Note("No unit responds to any label.", "warning")]
    columns = {
        "unit": [row["unit"] for row in shown], "responds to": [row["responds to"] for row in shown],
        "is": [row["how"] for row in shown], "AUC": [row["AUC"] for row in shown], "r": [row["r"] for row in shown],
        "selectivity": [row["selectivity"] for row in shown], "p": [row["p"] for row in shown],
        "null": ["learned" if row["learned"] else "fresh weights too" for row in shown],
    }  # fmt: skip
    made.append(Index(columns, name="units", hint="vowel encoder.2 learned"))
    if len(rows) > len(shown):
        made.append(
            Note(
                f"The {len(shown)} most selective of {len(rows)} pairs of a unit and a label; tables/units.csv has all."
            )
        )
    return made


def _moments(found: Found) -> list[Block]:
    best = sorted(
        (
            (r, j)
            for r in found.responses
            if r.stack == "encoder"
            for j in range(len(r.labels))
            if r.learned[:, j].any()
        ),
        key=lambda pair: -abs(pair[0].held_out(pair[1])[1]),
    )
    made: list[Block] = []
    seen: set[str] = set()
    for r, j in best:
        sounds = _sounds(found, r, j)
        unit = r.units[int(np.nanargmax(np.abs(r.r[:, j])))]
        if not sounds or unit in seen or len(seen) == _HEARD:
            continue
        seen.add(unit)
        how = "highest" if r.r[r.units.index(unit), j] > 0 else "lowest"
        made += [Note(f"{unit}, {r.labels[j]}: the moments at which it is {how}."), Sounds(sounds)]
    if not made:
        return []
    text = f"The strongest moments of the best units in different recordings, {_AROUND:g} s on either side."
    return [Section("Hear them", text), *made]


def _sounds(found: Found, r: Responses, label: int) -> list[Sound]:
    made = []
    for k, row in enumerate(r.top[label]):
        if row < 0 or found.frames.padding[row]:
            continue
        clip = found.pieces[int(found.frames.piece[row])].clip
        time = float(found.frames.time[row])
        start, end = max(0.0, time - _AROUND), min(clip.duration, time + _AROUND)
        if end - start < 0.05:
            continue
        part = clip.slice(start, end).replace(notices=())
        phone = found.frames.phone[row] or clip.labels.get("sound", "") or "no phone"
        name = f"moment-{r.family.replace(' ', '-')}-{label}-{k}"
        span = (max(0.0, time - start - 0.05), min(end - start, time - start + 0.05))
        made.append(Sound(name, f"{phone}, at {time:.2f} s", part, span=span, span_name="the moment"))
    return made


def _heads(found: Found) -> list[Block]:
    looks = found.looks
    mean = looks.mean()
    kinds = [looks.kind(i) for i in range(len(looks.heads))]
    columns: dict[str, list[Any]] = {
        "head": list(looks.heads),
        "looks at": [kind for kind, _ in kinds],
        "beyond chance": [value for _, value in kinds],
    }
    for j, place in enumerate(looks.places):
        columns[place] = [float(value) for value in mean[:, j]]
    column = looks.places.index(WORD)
    cross = [i for i, head in enumerate(looks.heads) if Site.parse(head).point == "cross_z"]
    strongest = sorted(cross, key=lambda i: -np.nan_to_num(mean[i, column], nan=-1.0))[:16]
    fresh = found.fresh_looks
    bars = [
        Bar(
            looks.heads[i], bootstrap(looks.values[:, i, column]),
            {"fresh weights": bootstrap(fresh.values[:, i, fresh.places.index(WORD)])},
        )
        for i in strongest
    ]  # fmt: skip
    text = (
        "The share of a head's attention that goes to a place, minus the share that equal attention would give, over what is "
        "left: 0 is chance, 1 is nowhere else. A head is named after the place that it looks at most. monotonic: rank correlation "
        "of the token's place with the mean frame it looks at."
    )
    drawing = effects(
        "alignment", bars, label="attention to the word being written, beyond chance", title="cross-attention"
    )
    caption = f"Means over {len(looks.values)} sentences with 95% intervals."
    return [
        Section("Where heads look", text),
        Figure(drawing, "Heads that follow the words", caption),
        Index(columns, name="heads", hint="cross_z padding"),
    ]


def _nulls(found: Found) -> list[Block]:
    columns: dict[str, list[Any]] = {"stack": [], "units": [], "respond": [], "learned": [], "other fresh weights": []}
    for stack in ("encoder", "decoder"):
        responds, learned, passed = shares(found, stack)
        units = next((len(r.units) for r in found.responses if r.stack == stack), 0)
        for name, value in zip(columns, (stack, units, responds, learned, passed)):
            columns[name].append(value)
    table = {key: [row[key] for row in label_rows(found)] for key in (label_rows(found) or [{}])[0]}
    text = (
        "Shares of units that respond to at least one label, that learned to, and, of a second set of fresh weights, that would "
        "have passed for having learned to."
    )
    return [Section("Labels and nulls", text), Table(columns), Index(table, name="labels", hint="phone encoder")]
