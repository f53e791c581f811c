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
    progress,
    stdout,
)


def command(
    paths: Annotated[list[Path], typer.Argument(help="Sound files, folders of them, or folders with a manifest.tsv.")],
    model: ModelOption = "whisper-tiny.en",
    language: Annotated[
        str | None, typer.Option(help="Language of a multilingual Whisper; detected by default.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Windows of 30 s decoded together.")] = 8,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    revision: RevisionOption = None,
    offline: OfflineOption = False,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:
    from otoscope.studies.transcribe import transcribe_study

    with progress("transcribing") as update:
        results, heard = transcribe_study(
            paths, model, language=language, batch_size=batch_size, device=device, dtype=dtype, revision=revision,
            offline=offline, out=out, progress=update,
        )  # fmt: skip
    for item in heard:
        for remark in item["notices"]:
            notice(f"{item['path']}: {remark}")
    if json:
        print_json({**results, "items": heard})
        return
    for item in heard:
        stdout.print(f"[bold]{item['path']}[/bold]  {item['text']}", soft_wrap=True)
    _summary(results["metrics"], results["intervals"])


def _summary(metrics: dict[str, Any], intervals: dict[str, Any]) -> None:
    sound, factor = metrics["seconds_of_sound"], metrics["real_time_factor"]
    stdout.print(f"\n{sound:.1f} s of sound at {factor:.3f} seconds of computing per second of sound")
    if metrics.get("wer") is not None:
        low, high = intervals.get("wer", (float("nan"), float("nan")))
        counts = (
            f"{metrics['substitutions']} substituted, {metrics['deletions']} deleted, {metrics['insertions']} inserted"
        )
        stdout.print(
            f"WER {100 * metrics['wer']:.2f}% \\[{100 * low:.2f}, {100 * high:.2f}] over {metrics['words']} words: {counts}"
        )
