"""Does a temporal loss help dictionaries of sound? Harvest, train every kind with its controls, and compare them.

TopK, BatchTopK, Matryoshka and temporal dictionaries with as many active features, three trainings each, at two layers of a
Whisper's encoder; the temporal loss without weight, with shuffled time and at further lags; and dictionaries whose codes are
averaged over neighbouring frames, which is what the overlap of frames gives for nothing. Held-out speakers and sounds.

Example: otoscope sae paper --data ../shared/data --out runs/sae-paper
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
    RevisionOption,
    print_done,
    progress,
)


def command(
    out: Annotated[Path, typer.Option(help="Directory to write the run to (resumes if it exists).")],
    data: Annotated[Path, typer.Option(help="Folder with librispeech, esc10 and the like.")] = Path("../shared/data"),
    model: ModelOption = "whisper-tiny.en",
    site: Annotated[list[str] | None, typer.Option(help="Layers; may be repeated.")] = None,
    k: Annotated[int, typer.Option(min=1, help="Active features per frame.")] = 16,
    steps: Annotated[int, typer.Option(min=10, help="Steps of every training.")] = 300,
    seeds: Annotated[int, typer.Option(min=2, help="Trainings of each kind.")] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="Few recordings and steps: minutes, and no answer.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every draw.")] = 0,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    revision: RevisionOption = None,
    offline: OfflineOption = False,
    json: JsonOption = False,
) -> None:
    from dataclasses import replace

    from otoscope.studies.sae_paper import PaperConfig
    from otoscope.studies.sae_paper_run import paper

    config = PaperConfig(k=k, steps=steps, seeds=seeds, seed=seed)
    if site:
        config = replace(config, layers=tuple(site))
    if quick:
        config = replace(
            config, width=192, steps=min(steps, 40), seeds=2, batch_size=512, recordings=30, held_out=8, fresh=8,
            lags_ms=(60.0,), n_resamples=200, rows=1000,
        )  # fmt: skip
    with progress("reading") as bar:
        done = paper(
            model, out=out, data=data, config=config, progress=bar, notify=bar.say, device=device, dtype=dtype,
            revision=revision, offline=offline,
        )  # fmt: skip
    print_done(done, json)
