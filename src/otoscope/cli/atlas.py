"""Map what every neuron and head of a Whisper responds to, and where every head looks.

Phones, pitch, silence, noise, padding and word onsets in the encoder; word onsets, timestamps, repetition, the end of speech and
sounds without words in the decoder. Each response stands beside labels that say nothing, and beside the strongest unit of fresh
weights. The report has a table to search and the moments to hear.

Example: otoscope atlas --model whisper-tiny.en --data ../shared/data --out runs/atlas
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
    data: Annotated[Path, typer.Option(help="Folder with librispeech and esc10.")] = Path("../shared/data"),
    n: Annotated[
        int, typer.Option(min=4, help="Sentences at most; two fifths of them again in noise, half as many sounds.")
    ] = 40,
    draws: Annotated[int, typer.Option(min=20, help="Draws of the null with labels that say nothing.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random choice.")] = 0,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    revision: RevisionOption = None,
    offline: OfflineOption = False,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:
    from otoscope.studies.atlas import AtlasConfig
    from otoscope.studies.atlas_run import atlas

    config = AtlasConfig(n_speech=n, n_noisy=2 * n // 5, n_sounds=n // 2, draws=draws, seed=seed)
    with progress(f"loading {model}") as bar:
        done = atlas(
            model, data=data, config=config, out=out, progress=bar, notify=bar.say, device=device, dtype=dtype,
            revision=revision, offline=offline,
        )  # fmt: skip
    print_done(done, json)
