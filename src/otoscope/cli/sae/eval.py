"""AudioSAEBench: measure a dictionary, beside a random one, the activations themselves, PCA and ICA.

Reconstruction, sparsity, sparse probing, temporal consistency, phone purity, absorption, spurious co-activation, geometry,
stability over trainings, and what the model still writes with the frames rebuilt; each with an interval over recordings, and
each tried on planted features first: what does not rank a perfect dictionary over a half-right over a random one is marked
unreliable. With --measure or --full the model is asked as well: what the ablation of a feature does to the words said while it is
active, what erasing and turning up features does and costs, whether features tell phonological distinctions apart, and whether
digits are still told.

Example: otoscope sae eval runs/sae activations --also runs/sae-1 --also runs/sae-2 --out runs/bench
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
    OutOption,
    RevisionOption,
    print_done,
    progress,
)


def command(
    dictionary: Annotated[
        Path, typer.Argument(help="Folder of the dictionary, in any known format, or the name of one in the package.")
    ],
    store: Annotated[Path, typer.Argument(help="Activations that `otoscope sae harvest` wrote, best with --align.")],
    also: Annotated[
        list[Path] | None, typer.Option(help="The same training with another seed; may be given again.")
    ] = None,
    learned_from: Annotated[
        Path | None, typer.Option(help="Store that the rivals learn from; default the one that is measured on.")
    ] = None,
    site: Annotated[str | None, typer.Option(help="Site, where the store holds several.")] = None,
    frames: Annotated[int, typer.Option(min=100, help="Frames at most, of whole recordings.")] = 20_000,
    clips: Annotated[int, typer.Option(min=0, help="Recordings that the model writes down again; 0 for none.")] = 16,
    measure: Annotated[
        list[str] | None,
        typer.Option(
            help="Also ask the model: selectivity, steering, pairs or answers; minutes each; may be given again."
        ),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Ask the model everything.")] = False,
    across: Annotated[Path | None, typer.Option(help="Dictionary of another model to match features with.")] = None,
    across_store: Annotated[
        Path | None, typer.Option(help="Activations of that model for the same recordings.")
    ] = None,
    sounds: Annotated[
        list[Path] | None, typer.Option(help="Sounds in which nobody speaks, for steering; may be given again.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Recordings of spoken digits, for answers.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few frames, recordings and planted worlds.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every draw.")] = 0,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    revision: RevisionOption = None,
    offline: OfflineOption = False,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:
    from dataclasses import replace

    from otoscope.errors import RunError
    from otoscope.sae.measures.planted import PlantedConfig
    from otoscope.studies.sae_eval import EvalConfig
    from otoscope.studies.sae_eval_model import ASKED
    from otoscope.studies.sae_eval_run import evaluate

    if (across is None) != (across_store is None):
        raise RunError("another model's features need its dictionary and its store: give --across and --across-store.")
    asked = tuple(ASKED) if full else tuple(dict.fromkeys(measure or ()))
    config = EvalConfig(frames=frames, clips=clips, seed=seed, measures=asked)
    if quick:
        config = replace(
            config, frames=min(frames, 4000), clips=min(clips, 4), worlds=1, random_steps=100, n_resamples=200,
            probe_rows=1500, features=3, pairs=8, answers=3, planted=PlantedConfig(n_speakers=6, per_speaker=3, tokens=10),
        )  # fmt: skip
    with progress("reading") as bar:
        done = evaluate(
            dictionary, store, site=site, also=also or (), learned_from=learned_from, config=config, out=out,
            across=None if across is None or across_store is None else (across, across_store), sounds=sounds or (), data=data,
            progress=bar, notify=bar.say, device=device, dtype=dtype, revision=revision, offline=offline,
        )  # fmt: skip
    print_done(done, json)
