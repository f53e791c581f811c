"""Transcribe recordings and time it; a folder with a manifest.tsv (path, text) is scored as well.

Example: otoscope transcribe recording.wav folder/ --model whisper-base
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from otoscope.cli.common import (
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelOption,
    OfflineOption,
    OutOption,
    RevisionOption,
    notice,
    print_json,
    print_lines,
    progress,
)


def command(
    paths: Annotated[list[Path], typer.Argument(help="Sound files, folders of them, or folders with a manifest.tsv.")],
    model: ModelOption = "whisper-tiny.en",
    language: Annotated[
        str | None, typer.Option(help="Language of a multilingual Whisper; detected by default.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Recordings decoded together.")] = 8,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    revision: RevisionOption = None,
    offline: OfflineOption = False,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:
    from otoscope.studies.transcribe import transcribe_study

    with progress("reading") as bar:
        results, heard = transcribe_study(
            paths, model, language=language, batch_size=batch_size, out=out, progress=bar, notify=bar.say, device=device,
            dtype=dtype, revision=revision, offline=offline,
        )  # fmt: skip
    for item in heard:
        for remark in item["notices"]:
            notice(f"{item['path']}: {remark}")
    if json:
        print_json({**results, "items": heard})
        return
    print_lines(f"{item['path']}  {item['text']}" for item in heard)
    print_lines(["", *_summary(results["metrics"], results["intervals"])])
    if out is not None:
        print_lines([f"\nreport: {out / 'report.html'}"])


def _summary(metrics: dict[str, Any], intervals: dict[str, Any]) -> list[str]:
    sound, factor = metrics["seconds_of_sound"], metrics["real_time_factor"]
    lines = [f"{sound:.1f} s of sound at {factor:.3f} seconds of computing per second of sound"]
    if metrics["wer"] is not None:
        low, high = (float("nan") if end is None else 100 * end for end in intervals["wer"])
        kinds = ("substitutions", "deletions", "insertions")
        counts = ", ".join(f"{metrics[kind]} {kind}" for kind in kinds)
        lines.append(f"WER {100 * metrics['wer']:.2f}% [{low:.2f}, {high:.2f}] over {metrics['words']} words: {counts}")
    return lines
