"""Find where inside the model two sounds are told apart: patch time windows, layers, components and heads.

Both sounds are transcribed, the first token where the transcripts part becomes answer and foil, and every place is
asked how far it moves the model from one to the other. With --out a report is written that plays the sounds.

Example: otoscope patch --clean clean.wav --corrupt noisy.wav --out runs/first
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

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
    print_done,
    progress,
)


def command(
    clean: Annotated[Path, typer.Option(help="The sound whose answer is to be explained.")],
    corrupt: Annotated[Path, typer.Option(help="A sound of equal length that differs in one thing.")],
    model: ModelOption = "whisper-tiny.en",
    answer: Annotated[
        str | None, typer.Option(help="Word to look for after the clean sound, instead of what is written.")
    ] = None,
    foil: Annotated[str | None, typer.Option(help="Word to compare it with, instead of what is written.")] = None,
    mode: Annotated[
        Literal["denoise", "noise"], typer.Option(help="Put clean values into the corrupt run, or the reverse.")
    ] = "denoise",
    width: Annotated[float, typer.Option(min=0.02, help="Width of a time window in seconds.")] = 0.1,
    controls: Annotated[
        bool, typer.Option(help="Also compute the nulls: random donor, random direction, untrained.")
    ] = True,
    neurons: Annotated[bool, typer.Option(help="Also patch the strongest decoder MLP's neurons one by one.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random choice.")] = 0,
    pad: Annotated[
        bool, typer.Option(help="Pad the shorter sound with silence instead of refusing unequal lengths.")
    ] = False,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    revision: RevisionOption = None,
    offline: OfflineOption = False,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:
    from otoscope.studies.patch import PatchConfig
    from otoscope.studies.patch_run import pair_from_files, patch_study

    pair = pair_from_files(clean, corrupt, pad=pad)
    for remark in dict.fromkeys([*pair.clean.notices, *pair.corrupt.notices]):
        notice(remark)
    config = PatchConfig(mode, width, controls, neurons, seed=seed)
    with progress(f"loading {model}") as bar:
        done = patch_study(
            [pair], model, config, answer=answer, foil=foil, out=out, progress=bar, announce=bar.announce,
            notify=bar.say, device=device, dtype=dtype, revision=revision, offline=offline,
        )  # fmt: skip
    print_done(done, json)
