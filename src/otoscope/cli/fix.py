"""Keep a Whisper from writing words where nobody speaks: find an intervention, prove it on other sounds, take it with you.

Heads that are damped, a steering direction and one added neuron are searched on one part of your recordings, chosen on a
second and reported on a third, with WER beside. The fix is a small file: otoscope.apply(model, 'runs/fix') puts it onto a
plain transformers model or pipeline.

Example: otoscope fix recordings/speech --sounds recordings/noises --out runs/fix
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
    progress,
)


def command(
    speech: Annotated[
        list[Path],
        typer.Argument(help="Sound files and folders in which somebody speaks (manifest.tsv: path, text, speaker)."),
    ],
    sounds: Annotated[
        list[Path] | None,
        typer.Option(help="Files and folders in which nobody speaks; noise and silence are made in any case."),
    ] = None,
    model: ModelOption = "whisper-tiny.en",
    interventions: Annotated[
        str, typer.Option(help="Kinds that are searched: some of heads,direction,neuron.")
    ] = "heads,direction,neuron",
    language: Annotated[str, typer.Option(help="Of the speech, for a multilingual model.")] = "en",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the division and of made noise.")] = 0,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    revision: RevisionOption = None,
    offline: OfflineOption = False,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:
    from otoscope.studies.fix import FixConfig
    from otoscope.studies.fix_run import find_fix

    families = tuple(name.strip() for name in interventions.split(",") if name.strip())
    config = FixConfig(language, seed, families=families)
    with progress(f"loading {model}") as bar:
        done = find_fix(
            model, speech, sounds or (), config=config, out=out, progress=bar, notify=bar.say, device=device, dtype=dtype,
            revision=revision, offline=offline,
        )  # fmt: skip
    if json:
        print_json(done.results)
        return
    print_lines(done.lines + ([f"report: {done.report}"] if done.report else []))
