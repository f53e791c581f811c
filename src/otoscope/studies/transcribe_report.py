"""The report of a transcription: the recordings with their players, and every transcript with its errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from otoscope.audio.clip import Clip
from otoscope.report.blocks import Note, Reproduce, Section, Sound, Sounds, Table
from otoscope.report.page import Report
from otoscope.runs import Run

#: recordings with a player, and the longest that gets one (seconds): the page holds the sound itself
_SHOWN, _LONGEST = 20, 60.0


def write_report(
    run: Run, model: str, clips: Sequence[Clip], items: Sequence[dict[str, Any]], results: dict[str, Any]
) -> Path:
    """Write ``report.html`` of a transcription; returns its path.

    Args:
        run: the run it belongs to.
        model: name of the model.
        clips: the recordings.
        items: what was heard in each.
        results: the results object.
    """
    metrics = results["metrics"]
    report = Report(
        f"What does {model} hear?",
        headline=_headline(metrics, results["intervals"]),
        subtitle=f"{len(clips)} recording{'s' if len(clips) > 1 else ''}, {metrics['seconds_of_sound']:.1f} s",
    )
    # the worst come first: they are what one wants to listen to
    order = sorted(range(len(clips)), key=lambda i: -(items[i]["wer"] or 0.0))
    shown = [i for i in order if clips[i].duration <= _LONGEST][:_SHOWN]
    report.add(Section("Recordings"))
    if len(shown) < len(clips):
        players = f"{len(shown)} of {len(clips)} recordings have a player here"
        report.add(Note(f"{players}: the worst ones of at most {_LONGEST:.0f} s."))
    if shown:
        report.add(Sounds([Sound(f"clip-{i + 1}", items[i]["path"], clips[i], items[i]["text"]) for i in shown]))
    names = {"path": "recording", "text": "heard", "reference": "said", "wer": "WER", "seconds_of_sound": "seconds"}
    if metrics["wer"] is None:
        del names["reference"], names["wer"]
    report.add(Section("Transcripts"), Table({title: [item[key] for item in items] for key, title in names.items()}))
    remarks = [f"{item['path']}: {remark}" for item in items for remark in item["notices"]]
    report.add(*(Note(remark, "warning") for remark in remarks[:_SHOWN]))
    report.add(Section("Reproduce"), Reproduce(run.info, ["This folder also holds results.json and tables/ (CSV)."]))
    report.save(run)
    return run.path / "report.html"


def _headline(metrics: dict[str, Any], intervals: dict[str, Any]) -> str:
    speed = f"{metrics['real_time_factor']:.3f} seconds of computing per second of sound"
    if metrics["wer"] is None:
        return f"No reference was given, so nothing is scored; {speed}."
    ends = [f"{100 * end:.1f}%" for end in intervals["wer"] if end is not None]
    between = f" ({ends[0]} to {ends[1]})" if len(ends) == 2 else ""
    return f"WER {100 * metrics['wer']:.1f}%{between} over {metrics['words']} words; {speed}."
