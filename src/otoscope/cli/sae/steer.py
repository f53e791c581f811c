"""Turn a feature up while a model transcribes, and see what it writes: target effect against word error rate, over strengths.

Strengths are in units of the activations' spread at the dictionary's site. Random directions of the same length are steered with as
well: what they do is no work of the feature. WER needs recordings with a text (a manifest.tsv, or a .txt beside the file).

Example: otoscope sae steer runs/sae 1204 recordings/ --strength 0.1 --strength 0.25 --target thank --out runs/steer
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
    print_json,
    print_lines,
    print_table,
    progress,
    stdout,
)


def command(
    sae: Annotated[Path, typer.Argument(help="Folder of the dictionary, or the name of one in the package.")],
    feature: Annotated[int, typer.Argument(help="Number of the feature.")],
    sounds: Annotated[list[Path], typer.Argument(help="Files, folders or manifests of recordings.")],
    strength: Annotated[list[float] | None, typer.Option(help="In units of the spread; may be repeated.")] = None,
    target: Annotated[list[str] | None, typer.Option(help="Word whose presence is the wanted effect.")] = None,
    controls: Annotated[int, typer.Option(help="Random directions at each strength.")] = 2,
    max_new_tokens: Annotated[int, typer.Option(help="Most tokens of a transcript.")] = 128,
    seed: Annotated[int, typer.Option(help="Seed of the random directions.")] = 0,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Model, where the dictionary does not say.")
    ] = None,
    site: Annotated[str | None, typer.Option(help="Site, where the dictionary does not say.")] = None,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    revision: RevisionOption = None,
    offline: OfflineOption = False,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:
    from otoscope.studies.sae_steer import SteerConfig, steer_study

    config = SteerConfig(
        strengths=tuple(strength or SteerConfig.strengths), target=tuple(target or ()), controls=controls,
        max_new_tokens=max_new_tokens, seed=seed,
    )  # fmt: skip
    with progress("reading the recordings") as bar:
        done = steer_study(
            sae, feature, sounds, config, model=model, site=site, out=out, progress=bar, notify=bar.say, device=device,
            dtype=dtype, revision=revision, offline=offline,
        )  # fmt: skip
    if json:
        print_json({**done.results, "transcripts": done.transcripts, "curve": done.curve})
        return
    for row in done.transcripts:
        print_lines([f"{row['recording']}\t{row['strength']:g}\t{row['text'] or '(nothing)'}"])
    stdout.print()
    shown = ("strength", "effect", "random_effect", "wer", "random_wer")
    names = ("strength", "target" if target else "words changed", "random", "WER", "WER, random")
    print_table(names, [[row[key] for key in shown] for row in done.curve])
