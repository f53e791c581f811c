"""The report of a task: its card, and examples that play, with the spectrograms of both sounds and the span marked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from otoscope.audio.clip import Clip
from otoscope.report.blocks import Block, Figure, Note, Reproduce, Section, Sound, Sounds, Table
from otoscope.report.page import Report
from otoscope.report.timeline import time_map
from otoscope.runs import Run
from otoscope.tasks.task import Task, TaskItem

#: items that are played and drawn: the page holds the sounds themselves
_SHOWN = 20


def write_report(run: Run, task: Task) -> Path:
    """Write ``report.html`` with its figures; returns the path of the page.

    Args:
        run: the run it belongs to.
        task: with the items that are shown.
    """
    units = len({item.unit for item in task})
    report = Report(
        f"The task {task.name}",
        headline=task.card.summary,
        subtitle=f"{task.id}, seed {task.seed}: {len(task)} items from {units} speakers or recordings, {task.card.source}",
    )
    card = task.card
    report.add(
        Section("Data card"),
        Table(
            {
                "what": ["factor", "source", "licence", "how pairs are made", "limits", "can be asked of", "citation"],
                "": [card.factor, card.source, card.licence, card.made_by, card.limits, ", ".join(card.families), card.citation],
            }
        ),
    )  # fmt: skip
    if task.options:
        report.add(Note(f"Answers are one of: {', '.join(task.options)}."))
    for number, item in enumerate(task.items[:_SHOWN], start=1):
        report.add(*_example(number, item))
    if len(task) > _SHOWN:
        report.add(Note(f"The first {_SHOWN} of {len(task)} items are shown; tables/items.csv lists all."))
    notes = [f"Digest of the task: {task.digest()}.", "tables/items.csv has the digest of every item."]
    report.add(Section("Reproduce"), Reproduce(run.info, notes))
    report.save(run)
    return run.path / "report.html"


def _example(number: int, item: TaskItem) -> list[Block]:
    pair = item.pair
    ids = f"clean-{number}", f"corrupt-{number}"
    about = f"Question to an audio-LLM: “{item.question}” Speaker or recording: {item.unit or 'unknown'}."
    if item.labels:
        about += f" {', '.join(f'{key} {value}' for key, value in item.labels.items())}."
    blocks: list[Block] = [
        Section(f"{number}. {item.answer} → {item.foil}", about),
        Sounds(
            [
                Sound(ids[0], f"clean: the answer is “{item.answer}”", pair.clean, span=pair.span),
                Sound(ids[1], f"corrupt: the foil is “{item.foil}”", pair.corrupt, span=pair.span),
            ]
        ),
    ]
    for name, which, text, clip in zip(ids, ("Clean", "Corrupt"), (item.answer, item.foil), (pair.clean, pair.corrupt)):
        drawing = replace(
            time_map(f"item-{name}", clip, span=pair.span, span_label="span"), table=_times(clip, pair.span)
        )
        blocks.append(
            Figure(drawing, f"{which}: {text}", f"Spectrogram; the span of the pair is marked. {pair.change}.", name)
        )
    return blocks


def _times(clip: Clip, span: tuple[float, float]) -> dict[str, list[Any]]:
    """What the drawing marks, for its CSV: the span and the words."""
    rows = [("span", *span), *((word.text, word.start, word.end) for word in clip.words)]
    return {"what": [row[0] for row in rows], "start_s": [row[1] for row in rows], "end_s": [row[2] for row in rows]}
