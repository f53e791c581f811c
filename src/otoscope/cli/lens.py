"""Read a model's layers as they are being computed: logit lens, encoder lens, CTC lens, and the time of each word.

Whisper: what the decoder would write from every encoder layer, when each word was said, and from which decoder layer on
each token is settled. CTC models: the transcript of every layer.

Example: otoscope lens recording.wav --model whisper-base
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from otoscope.cli.common import (
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelOption,
    OfflineOption,
    OutOption,
    RevisionOption,
    print_json,
    print_lines,
    print_table,
    progress,
    stdout,
)


def command(
    audio: Annotated[Path, typer.Argument(help="A recording of at most 30 s.")],
    model: ModelOption = "whisper-tiny.en",
    reference: Annotated[str | None, typer.Option(help="What was said, to score every encoder layer.")] = None,
    language: Annotated[str, typer.Option(help="Language a multilingual Whisper is told.")] = "en",
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    revision: RevisionOption = None,
    offline: OfflineOption = False,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:
    from otoscope.audio.files import read
    from otoscope.studies.lens import lens_study

    clip = read(audio)
    with progress(f"loading {model}") as bar:
        results, tables = lens_study(
            clip, model, reference=reference, language=language, out=out, notify=bar.say, device=device, dtype=dtype,
            revision=revision, offline=offline,
        )  # fmt: skip
    if json:
        print_json({**results, **tables})
        return
    for name, rows in tables.items():
        columns = [key.replace("_", " ") for key in (rows[0] if rows else ())]
        print_table(columns, [list(row.values()) for row in rows], title=name.replace("_", " "))
        stdout.print()
    if out is not None:
        print_lines([f"report: {out / 'report.html'}"])
