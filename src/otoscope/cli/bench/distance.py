"""Do patched states that no sound produces mislead? How far they go, and how often the place they name is false.

One word of each sentence is changed in many ways, so the true place is known, and localised by many kinds of patch. The
first line recommends what to patch with. Without --data, the sentences are spoken by a synthetic voice.

Example: otoscope bench distance --quick --out runs/distance
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
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of recorded sentences with a manifest.tsv (path, text); else spoken ones."),
    ] = None,
    n: Annotated[
        int | None, typer.Option("--n", min=2, help="Sentences (24; with --quick 6).", show_default=False)
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer sentences, corruptions and kinds of patch.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random choice.")] = 0,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    revision: RevisionOption = None,
    offline: OfflineOption = False,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:
    from otoscope.studies.distance_grid import DistanceConfig
    from otoscope.studies.distance_run import distance_study

    config = DistanceConfig.small(n, seed) if quick else DistanceConfig(n=n or 24, seed=seed)
    with progress(f"loading {model}") as bar:
        done = distance_study(
            model, config, data, out=out, progress=bar, notify=bar.say, device=device, dtype=dtype, revision=revision,
            offline=offline,
        )  # fmt: skip
    print_done(done, json)
