"""Write pages that show what the features of a dictionary do: a list, and for some of them sounds, labels and steering.

The list sorts, searches and filters. Each page plays the feature's strongest moments and some at random, with its strength drawn
over the spectrogram; it shows phones and words, decoder neighbours, and how adding the feature changes a transcript. The pages
open from disk, without a server.

Example: otoscope sae view runs/sae recordings/ --out runs/features
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from otoscope.cli.common import (
    DeviceOption,
    DtypeOption,
    JsonOption,
    OfflineOption,
    RevisionOption,
    print_json,
    print_lines,
    progress,
)


def command(
    sae: Annotated[
        Path,
        typer.Argument(
            help="Folder of the dictionary (a training's --out, or one of the Hub), or the name of one in the package."
        ),
    ],
    sounds: Annotated[list[Path], typer.Argument(help="Files, folders or manifests of recordings.")],
    out: Annotated[Path, typer.Option(help="Directory to write the pages to (resumes if it exists).")],
    features: Annotated[int, typer.Option(help="Features that get a page, from the rarest to the most frequent.")] = 60,
    feature: Annotated[list[int] | None, typer.Option(help="A feature that gets a page; may be repeated.")] = None,
    top: Annotated[int, typer.Option(help="Strongest moments of each, at most one from each recording.")] = 8,
    random: Annotated[int, typer.Option(help="Moments at random of each.")] = 4,
    seconds: Annotated[float, typer.Option(help="Sound around each moment.")] = 4.0,
    steer: Annotated[int, typer.Option(help="Features to steer a transcript with; 0 for none.")] = 12,
    strength: Annotated[list[float] | None, typer.Option(help="Steering strength, in units of the spread.")] = None,
    steer_on: Annotated[int, typer.Option(help="Recordings whose transcripts are steered.")] = 1,
    max_mb: Annotated[float, typer.Option(help="Largest size of the pages with their sounds.")] = 100.0,
    align: Annotated[bool, typer.Option(help="Find times of phones where a recording has an English text.")] = True,
    seed: Annotated[int, typer.Option(help="Seed of every draw.")] = 0,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Model, where the dictionary does not say.")
    ] = None,
    site: Annotated[str | None, typer.Option(help="Site, where the dictionary does not say.")] = None,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    revision: RevisionOption = None,
    offline: OfflineOption = False,
    json: JsonOption = False,
) -> None:
    from otoscope.studies.sae_view import ViewConfig
    from otoscope.studies.sae_view_run import view_study

    config = ViewConfig(
        features=features, chosen=tuple(feature or ()), top=top, random=random, seconds=seconds, steer=steer,
        strengths=tuple(strength or ViewConfig.strengths), steer_on=steer_on, max_mb=max_mb, seed=seed,
    )  # fmt: skip
    with progress("reading the recordings") as bar:
        done = view_study(
            sae, sounds, out, config, model=model, site=site, align=align, progress=bar, notify=bar.say, device=device,
            dtype=dtype, revision=revision, offline=offline,
        )  # fmt: skip
    if json:
        print_json(done.results)
        return
    print_lines(done.lines)
