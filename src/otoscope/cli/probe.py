"""Read a label from every layer by probes: accuracy on unheard speakers, selectivity, code length, and their nulls.

Labels are sex, speaker, phone, word and noise, from LibriSpeech and Speech Commands below --data; any other label is a
column of the manifest.tsv in that folder (path, the label, speaker). Untrained weights, the mel spectrogram, shuffled labels
and a control task show how much of it the model made, and how much the probe.

Example: otoscope probe --label phone --data ../shared/data --out runs/probe
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
    label: Annotated[
        str, typer.Option(help="sex, speaker, phone, word, noise, or a column of the folder's manifest.tsv.")
    ] = "sex",
    data: Annotated[
        Path, typer.Option(help="Folder with librispeech and speech_commands, or with a manifest.tsv of your own.")
    ] = Path("../shared/data"),
    layers: Annotated[str | None, typer.Option(help="Encoder layers, such as 0,2-3; all by default.")] = None,
    n: Annotated[int, typer.Option(min=8, help="Recordings at most.")] = 136,
    seeds: Annotated[int, typer.Option(min=1, help="So many splits, control labels and initial weights.")] = 3,
    snr: Annotated[float, typer.Option(help="Signal-to-noise ratio of the label noise, dB.")] = 10.0,
    against: Annotated[
        str | None, typer.Option(help="Another model, whose layers are compared with this one's.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="No MLP probes and no similarity of layers.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every other random choice.")] = 0,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    revision: RevisionOption = None,
    offline: OfflineOption = False,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:
    from otoscope.studies.probe import ProbeConfig
    from otoscope.studies.probe_run import layer_numbers, probe

    config = ProbeConfig(n=n, seeds=tuple(range(seeds)), mlp=not quick, similarity=not quick, seed=seed)
    with progress(f"loading {model}") as bar:
        done = probe(
            model, label, data=data, layers=layer_numbers(layers), config=config, snr_db=snr, against=against,
            out=out, progress=bar, notify=bar.say, device=device, dtype=dtype, revision=revision, offline=offline,
        )  # fmt: skip
    print_done(done, json)
