"""Train a sparse dictionary on a store of activations (see `otoscope sae harvest`).

With --out the training can be stopped and goes on from its last checkpoint, to the same bits; the folder then holds the
dictionary in SAELens's layout, the log, and a complete config.yaml. Several GPUs: torchrun --nproc-per-node N -m
otoscope.cli.main sae train ...

Example: otoscope sae train activations --arch topk --width 8x --k 32 --out runs/sae
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from otoscope.cli.common import JsonOption, OutOption, print_json, print_lines, progress


def command(
    store: Annotated[Path, typer.Argument(help="Folder of activations that `otoscope sae harvest` wrote.")],
    arch: Annotated[
        str | None, typer.Option(help="standard, topk, batchtopk, jumprelu, matryoshka or temporal; default topk.")
    ] = None,
    width: Annotated[
        str | None, typer.Option(help="Number of features, or a multiple such as 8x (the default).")
    ] = None,
    k: Annotated[
        int | None, typer.Option(min=1, help="Active features per frame (kinds that keep k features).")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Batches to train on.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Frames per batch.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate; default the architecture's published one.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of weights, order and every random choice.")] = None,
    site: Annotated[str | None, typer.Option(help="Site, where the store holds several.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file with settings; options given here win.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Any other setting, NAME=VALUE, such as alpha=0.5.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:0.")] = None,
    tensorboard: Annotated[Path | None, typer.Option(help="Folder for TensorBoard's event files.")] = None,
    wandb: Annotated[str | None, typer.Option(help="Project of Weights & Biases to send the log to.")] = None,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:
    from dataclasses import replace

    from otoscope.sae import loggers
    from otoscope.studies.sae_train import TrainPlan, changed, read_plan, train_study
    from otoscope.studies.settings import parsed

    plan = read_plan(config) if config is not None else TrainPlan()
    plan = replace(plan, architecture=arch or plan.architecture, width=width or plan.width, site=site or plan.site)
    named = {"k": k, "steps": steps, "batch_size": batch_size, "lr": lr, "seed": seed, "device": device}
    plan = changed(plan, {key: value for key, value in named.items() if value is not None} | parsed(settings or []))
    found = [loggers.tensorboard(tensorboard)] if tensorboard else []
    found += [loggers.wandb(wandb, {"architecture": plan.architecture, **plan.settings})] if wandb else []
    with progress(f"training {plan.architecture}") as bar:
        done = train_study(store, plan, out=out, loggers=found, progress=bar, announce=bar.announce)
    if not done.leads:  # several processes, one answer
        return
    if json:
        print_json(done.results)
        return
    print_lines(done.lines)
