"""Train a dictionary on a store of activations, as a run: config file, checkpoints, log, weights in SAELens's layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from otoscope.errors import ModelError, RunError
from otoscope.runs import Run
from otoscope.runs.run import config_hash
from otoscope.sae.distributed import Group
from otoscope.sae.formats import saelens
from otoscope.sae.loggers import Logger
from otoscope.sae.registry import architecture, config_from
from otoscope.sae.store import Store
from otoscope.sae.train import n_features, train
from otoscope.sae.trainer import Row, Trained
from otoscope.sae.training_config import TrainingConfig
from otoscope.studies.outcome import Metrics, without_run

#: settings of a training that change no number
NO_MATTER = ("device", "checkpoint_every")


@dataclass(frozen=True)
class TrainPlan:
    """What to train on a store."""

    architecture: str = "topk"
    """Kind of dictionary."""

    width: str | int = "8x"
    """Features, as a number or a multiple of the activations' width."""

    site: str | None = None
    """Site, where the store holds several."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    """The architecture's own settings."""

    training: TrainingConfig = field(default_factory=TrainingConfig)
    """How to train."""


@dataclass(frozen=True)
class TrainDone:
    """What a training gives back: the results object, lines for a person, the dictionary, where it lies, and whether this
    process is the one of several (torchrun) that says so."""

    results: dict[str, Any]
    lines: list[str]
    trained: Trained
    folder: Path | None
    leads: bool = True


def read_plan(path: Path) -> TrainPlan:
    """A plan from a YAML file: ``architecture``, ``width``, ``site``, ``settings`` and ``training``, all optional.

    Raises:
        RunError: the file cannot be read or is no such file.
        ModelError: an unknown setting, or one out of range.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as problem:
        raise RunError(
            f"{path} cannot be read as YAML: give a config file such as a training writes back."
        ) from problem
    known = [f.name for f in fields(TrainPlan)]
    if not isinstance(found, dict) or (odd := [key for key in found if key not in known]):
        what = f"'{odd[0]}'" if isinstance(found, dict) else "no settings"
        raise RunError(f"{path} holds {what}: a training's config has {', '.join(known)}.")
    training = changed(TrainPlan(), found.pop("training", None) or {}).training
    return TrainPlan(**{**found, "settings": found.get("settings") or {}, "training": training})


def changed(plan: TrainPlan, settings: Mapping[str, Any]) -> TrainPlan:
    """A plan with some settings changed, each by its name: the training's, else the architecture's.

    Raises:
        ModelError: a name that neither has, or a value out of range.
    """
    training = {f.name for f in fields(TrainingConfig)}
    own = {f.name for f in fields(architecture(plan.architecture).config_class)} - {"d", "n_features"}
    for name in settings:
        if name not in training | own:
            raise ModelError(
                f"a training of {plan.architecture} has no setting '{name}': settings are {', '.join(sorted(own | training))}."
            )
    try:
        new = replace(plan.training, **{k: v for k, v in settings.items() if k in training})
    except TypeError as problem:  # text where a number belongs
        raise ModelError(f"the settings of the training cannot be used: {problem}.") from problem
    return replace(plan, training=new, settings={**plan.settings, **{k: v for k, v in settings.items() if k in own}})


def train_study(
    store: str | Path | Store,
    plan: TrainPlan,
    *,
    out: Path | None = None,
    loggers: Sequence[Logger] = (),
    progress: Callable[[int, int], None] | None = None,
    announce: Callable[[str], None] | None = None,
) -> TrainDone:
    """Train, and keep what came of it.

    Args:
        store: activations, or their folder.
        plan: what to train.
        out: directory of the run, which also becomes the dictionary's folder; a stopped training goes on from there.
        loggers: told every row of the log.
        progress: called with steps done and their number.
        announce: told every row of the log in words.

    Raises:
        RunError, SiteError: the store or the run cannot be used.
        ModelError: the plan cannot be carried out.
    """
    source = store if isinstance(store, Store) else Store(store, plan.site)
    training = plan.training.completed(architecture(plan.architecture).defaults)
    width = n_features(plan.width, source.d)
    described = asdict(config_from(plan.architecture, {"d": source.d, "n_features": width, **plan.settings}))
    settings = {key: value for key, value in described.items() if key not in ("d", "n_features")}
    complete = {
        "architecture": plan.architecture, "width": width, "site": source.site, "settings": settings,
        "training": asdict(training),
    }  # fmt: skip

    def go(folder: Path | None) -> Trained:
        def report(row: Row) -> None:
            if announce is not None:
                announce(in_words(row, training.steps))

        return train(
            source, plan.architecture, width, training, folder=folder, loggers=loggers, progress=progress, report=report,
            **settings,
        )  # fmt: skip

    leads = Group(training.device).leads
    if out is None or not leads:  # torchrun's other processes read checkpoints and write nothing
        trained = go(out / "training" if out is not None else None)
        metrics = _metrics(trained, training)
        return TrainDone(without_run("sae train", metrics), _lines(trained, None), trained, None, leads)
    numbers = {key: value for key, value in asdict(training).items() if key not in NO_MATTER}
    identity = {**complete, "training": numbers, "store": config_hash(source.index)}
    with Run(out, "sae train", identity, seeds={"seed": training.seed}) as run:
        run.record_weights(source.model, source.weights)
        run.write("config.yaml", yaml.safe_dump(_plain(complete), sort_keys=False))
        trained = go(run.path / "training")
        saelens.write(trained.dictionary, run.path)
        names = list(dict.fromkeys(name for row in trained.log for name in row))
        run.table("training", {name: [row.get(name) for row in trained.log] for name in names})
        results = run.finish(_metrics(trained, training))
    return TrainDone(results, _lines(trained, run.path), trained, run.path)


def in_words(row: Row, steps: int) -> str:
    """A row of the log as a line."""
    return (
        f"step {row['step']:.0f} of {steps}: loss {row['loss']:.4g}, FVU {row['fvu']:.4f}, L0 {row['l0']:.1f}, "
        f"dead {row['dead']:.1%}"
    )


def _metrics(trained: Trained, config: TrainingConfig) -> Metrics:
    last = trained.log[-1]
    return {
        "fvu": last["fvu"], "l0": last["l0"], "alive": 1 - last["dead"], "loss": last["loss"], "steps": config.steps,
        "frames": config.steps * config.batch_size, "features": trained.dictionary.config.n_features,
    }  # fmt: skip


def _lines(trained: Trained, folder: Path | None) -> list[str]:
    last, kind = trained.log[-1], trained.dictionary
    lines = [
        f"{kind.architecture} with {kind.config.n_features} features of {kind.config.d} channels: FVU {last['fvu']:.4f} on "
        f"the last training batches, L0 {last['l0']:.1f}, dead {last['dead']:.1%}"
    ]
    return lines + ([f"dictionary: {folder}"] if folder else [])


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(v) for key, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value
