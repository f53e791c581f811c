"""Find out whether an audio-LLM listens or guesses: the grounding coefficient gc, layer by layer, with a known truth.

The sound says one word and the text around it another. The embedded mini-qwen2-audio is compared with two twins of it, a
listener and a guesser, whose behaviour is known. Any audio-LLM that `otoscope models` knows can be asked the same.

Example: otoscope listen --out runs/listen
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
    model: ModelOption = "mini-qwen2-audio",
    task: Annotated[
        str,
        typer.Option(help="spoken-words (synthetic), recorded-words (needs --data), or a JSONL manifest of your own."),
    ] = "spoken-words",
    adapter: Annotated[
        str | None, typer.Option(help="LoRA adapter on top: a folder, or listener / guesser of mini-qwen2-audio.")
    ] = None,
    n: Annotated[int, typer.Option(min=2, help="Items at most.")] = 64,
    quick: Annotated[
        bool, typer.Option("--quick", help="Only the curve, the flips and the dial, on few items.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Also ask neutral questions about recordings of unheard people.")
    ] = False,
    data: Annotated[
        Path, typer.Option(help="Folder with speech_commands, fsdd, esc10 and librispeech, each with its manifest.tsv.")
    ] = Path("../shared/data"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random choice.")] = 0,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    revision: RevisionOption = None,
    offline: OfflineOption = False,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:
    from otoscope.studies.listen import ListenConfig
    from otoscope.studies.listen_run import listen

    config = ListenConfig.quick(min(n, 24), seed) if quick else ListenConfig(n=n, seed=seed)
    with progress(f"loading {model}") as bar:
        done = listen(
            model, task, adapter=adapter, config=config, data=data, checked=check, out=out, progress=bar, notify=bar.say,
            device=device, dtype=dtype, revision=revision, offline=offline,
        )  # fmt: skip
    print_done(done, json)
