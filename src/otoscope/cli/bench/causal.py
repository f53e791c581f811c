"""Score methods that look for the place of a fault, on faults that were planted in a real model.

Faults are planted one at a time (a head scaled, an MLP noised, a direction removed, a span of the sound spoilt, ...), and
every method is asked which place is at fault. With --out, a stopped benchmark goes on cell by cell, and a leaderboard is
written as JSON, CSV and a report.

Example: otoscope bench causal --model whisper-tiny.en --quick --out runs/causal
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
    print_done,
    progress,
)


def command(
    model: ModelOption = "whisper-tiny.en",
    tasks: Annotated[str | None, typer.Option(help="Tasks, separated by commas (see `otoscope tasks`).")] = None,
    methods: Annotated[str | None, typer.Option(help="Methods, separated by commas; all by default.")] = None,
    faults: Annotated[int | None, typer.Option(help="Faults of the model, over all tasks.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A small grid that takes minutes.")] = False,
    protocol: Annotated[
        Path | None, typer.Option(help="YAML file with another protocol than the package's own.")
    ] = None,
    plugin: Annotated[list[Path] | None, typer.Option(help="Python file that registers a method of yours.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of corpora with real recordings; synthesised speech without.")
    ] = None,
    distance: Annotated[
        Path | None,
        typer.Option(
            help="Run of `otoscope bench distance`, to print its recommendation of clean and corrupt; else the package's own."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of every random choice.")] = None,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    revision: RevisionOption = None,
    offline: OfflineOption = False,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:
    from otoscope.studies.causal_protocol import read_protocol
    from otoscope.studies.causal_run import bench_causal

    def named(text: str | None) -> list[str] | None:
        return [part.strip() for part in text.split(",") if part.strip()] if text else None

    asked = read_protocol(protocol, quick=quick).limited(named(tasks), named(methods), faults, seed)
    with progress(f"loading {model}") as bar:
        done = bench_causal(
            model, asked, data=data, plugins=plugin or (), distance=distance, out=out, progress=bar, notify=bar.say, device=device,
            dtype=dtype, revision=revision, offline=offline,
        )  # fmt: skip
    print_done(done, json)
