"""Store what a model makes of recordings at one or several sites, frame by frame and without padding.

Beside each frame stand its time, recording, speaker, labels, and where they are known its phone and word. Each DATA is a
corpus: a folder of sound files, one with a manifest.tsv (path, text, speaker, any labels), a manifest, or a file. A harvest
that was stopped goes on when the same command is given again. Folder and config.yaml are for `otoscope sae train`.

Example: otoscope sae harvest recordings/ --model whisper-tiny.en --site encoder.2.resid_post --out activations
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from otoscope.cli.common import (
    DeviceOption,
    DtypeOption,
    JsonOption,
    OfflineOption,
    OutOption,
    RevisionOption,
    print_json,
    print_lines,
    progress,
)


def command(
    out: OutOption,
    data: Annotated[list[Path] | None, typer.Argument(help="Corpora: folders, manifests or sound files.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Model (see `otoscope models`); default whisper-tiny.en.")
    ] = None,
    site: Annotated[
        list[str] | None, typer.Option(help="Site or pattern, such as encoder.2.resid_post; may be given again.")
    ] = None,
    weight: Annotated[
        list[float] | None, typer.Option(help="Share of the sound's time, once per corpus; all there is by default.")
    ] = None,
    noise: Annotated[float | None, typer.Option(help="Probability that a recording gets noise.")] = None,
    noise_from: Annotated[
        list[Path] | None, typer.Option(help="File or folder of noises; white and pink noise by default.")
    ] = None,
    snr: Annotated[
        tuple[float, float] | None, typer.Option(help="Lowest and highest signal-to-noise ratio, dB; default 0 20.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Recordings at most, drawn at random.")] = None,
    align: Annotated[
        bool | None, typer.Option("--align", help="Find words and phones where there is an English transcript.")
    ] = None,
    store_as: Annotated[str | None, typer.Option(help="float32 (default), or float16 for half the space.")] = None,
    memory_gb: Annotated[float | None, typer.Option(help="Most memory beside the weights; default 2.")] = None,
    question: Annotated[str | None, typer.Option(help="What an audio-LLM is asked about each sound.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of order, draws and noise.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file with settings; options given here win.")] = None,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    revision: RevisionOption = None,
    offline: OfflineOption = False,
    json: JsonOption = False,
) -> None:
    from otoscope.errors import RunError
    from otoscope.studies.sae_harvest import HarvestPlan, harvest_study, read_settings

    if out is None:
        raise RunError("a harvest needs a folder for its activations: give --out DIR.")
    settings: dict[str, Any] = read_settings(config) if config is not None else {}
    if noise is not None:
        settings["noises"] = [{"probability": noise, "snr_db": snr or (0.0, 20.0), "sounds": _texts(noise_from)}]
    elif noise_from or snr:
        raise RunError("--noise-from and --snr say what noise there is, but not how often: give --noise, such as 0.1.")
    given = {
        "data": _texts(data), "model": model, "sites": site, "weights": weight, "limit": limit, "align": align,
        "store_as": store_as, "memory_gb": memory_gb, "question": question, "seed": seed,
    }  # fmt: skip
    plan = HarvestPlan(**(settings | {key: value for key, value in given.items() if value not in (None, [])}))
    with progress(f"loading {plan.model}") as bar:
        done = harvest_study(
            plan, out, progress=bar, notify=bar.announce, announce=lambda cost: bar.say(f"harvesting: {cost}"),
            device=device, dtype=dtype, revision=revision, offline=offline,
        )  # fmt: skip
    if json:
        print_json(done.results)
        return
    print_lines(done.lines)


def _texts(paths: list[Path] | None) -> list[str]:
    return [str(path) for path in paths or ()]
