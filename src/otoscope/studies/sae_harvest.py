"""Harvest a model's activations over recordings, as a run: config file, shards, index, and what was skipped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from otoscope.engine.model import Model, load
from otoscope.errors import RunError
from otoscope.runs import Run
from otoscope.sae.harvest import Harvest, Harvested
from otoscope.sae.mixing import Mixture, Noise, mixture
from otoscope.sae.recordings import ENDINGS, find
from otoscope.sae.store import Store


@dataclass(frozen=True)
class HarvestPlan:
    """What to harvest. Each entry of ``data`` is a corpus."""

    data: tuple[str, ...] = ()
    """Folders of sound files, folders with a manifest.tsv, manifests, or sound files."""

    sites: tuple[str, ...] = ()
    """Sites or patterns, such as encoder.2.resid_post."""

    model: str = "whisper-tiny.en"
    """Embedded name, Hugging Face id, or local folder."""

    weights: tuple[float, ...] | None = None
    """Shares of the sound's time, one per corpus; None for what there is."""

    noises: tuple[Mapping[str, Any], ...] = ()
    """Kinds of noise, each with ``probability``, ``snr_db`` (lowest, highest) and ``sounds`` (files or folders)."""

    seed: int = 0
    """Seed of the order, the draws and the noise."""

    limit: int | None = None
    """Recordings at most, drawn at random."""

    align: bool = False
    """Find words and phones of English recordings that have a transcript but no phones."""

    store_as: str = "float32"
    """Type of the stored activations: float32, or float16 for half the space."""

    memory_gb: float = 2.0
    """Most memory beside the model's weights, GB."""

    question: str = ""
    """What an audio-LLM is asked about each sound."""

    def __post_init__(self) -> None:
        for name in ("data", "sites", "weights", "noises"):  # a file gives lists
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))
        if not self.data:
            raise RunError("there is nothing to hear: name a folder of recordings, a manifest.tsv or a sound file.")
        if not self.sites:
            raise RunError("no site is named: give one, such as --site encoder.2.resid_post (see `otoscope sites`).")


@dataclass(frozen=True)
class HarvestDone:
    """What a harvest gives back: the results object, lines for a person, and what was harvested."""

    results: dict[str, Any]
    lines: list[str]
    harvested: Harvested


def read_settings(path: Path) -> dict[str, Any]:
    """Settings of a plan from a YAML file, as a harvest writes back.

    Raises:
        RunError: the file cannot be read, or holds another setting.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as problem:
        raise RunError(f"{path} cannot be read as YAML: give a config file such as a harvest writes back.") from problem
    known = [f.name for f in fields(HarvestPlan)]
    if not isinstance(found, dict) or (odd := [key for key in found if key not in known]):
        what = f"'{odd[0]}'" if isinstance(found, dict) else "no settings"
        raise RunError(f"{path} holds {what}: a harvest's config has {', '.join(known)}.")
    return found


def harvest_study(
    plan: HarvestPlan,
    out: Path,
    *,
    model: Model | None = None,
    progress: Callable[[int, int], None] | None = None,
    notify: Callable[[str], None] = lambda _: None,
    announce: Callable[[object], None] = lambda _: None,
    **loading: Any,
) -> HarvestDone:
    """Harvest, and keep what came of it.

    Args:
        plan: what to harvest.
        out: directory of the run, which becomes the store; a harvest that was stopped goes on from there.
        model: the plan's model where it is loaded already.
        progress: called with seconds of sound done and their total.
        notify: told what is skipped, and what is noticed.
        announce: told what the harvest will give, before it starts.
        loading: device, dtype, revision, offline.

    Raises:
        AudioError, ModelError, SiteError: recordings, a model or a site that cannot be used.
        RunError: the run cannot be used, or the memory does not suffice.
    """
    heard = _mixture(plan)
    loaded = model or load(plan.model, progress=notify, **loading)
    harvest = Harvest(
        loaded, heard, plan.sites, out, dtype=plan.store_as, memory_gb=plan.memory_gb, question=plan.question
    )
    with Run(out, "sae harvest", harvest.plan, seeds={"seed": plan.seed}) as run:
        run.record_weights(loaded.name, harvest.plan["weights"])
        run.write("config.yaml", yaml.safe_dump(_plain(asdict(plan)), sort_keys=False))
        announce(harvest.expected())
        done = harvest.run(progress, notify)
        store = Store(out, harvest.plan["sites"][0])
        seconds = sum(u.seconds for u in store.utterances)
        run.table("skipped", {"name": list(done.skipped), "why": list(done.skipped.values())})
        results = run.finish(
            {f"frames.{site}": n for site, n in done.frames.items()}
            | {
                "recordings": done.n_utterances, "skipped": len(done.skipped), "seconds": round(seconds, 3), "gb": done.gb,
                "sites": len(done.frames),
            }
        )  # fmt: skip
    return HarvestDone(results, _lines(done, seconds), done)


def _mixture(plan: HarvestPlan) -> Mixture:
    noises = tuple(_noise(noise) for noise in plan.noises)
    corpora = [find(Path(path)) for path in plan.data]
    return mixture(corpora, plan.weights, noises=noises, seed=plan.seed, limit=plan.limit, align=plan.align)


def _noise(settings: Mapping[str, Any]) -> Noise:
    known = [f.name for f in fields(Noise)]
    if not isinstance(settings, Mapping) or (odd := [key for key in settings if key not in known]):
        what = f"'{odd[0]}'" if isinstance(settings, Mapping) else "no settings"
        raise RunError(f"a kind of noise holds {what}: it has {', '.join(known)}.")
    found = dict(settings)
    if "sounds" in found:
        found["sounds"] = tuple(file for path in found["sounds"] for file in _sounds(Path(path)))
    if "snr_db" in found:
        found["snr_db"] = tuple(found["snr_db"])
    try:
        return Noise(**found)
    except TypeError as problem:  # no probability, or text where a number belongs
        raise RunError(f"a kind of noise cannot be used ({problem}): give probability, snr_db and sounds.") from problem


def _sounds(path: Path) -> list[Path]:
    """Sound files of a folder, or the one file."""
    if not path.is_dir():
        if not path.is_file():
            raise RunError(f"{path} is not there: name a file or a folder of sounds to be used as noise.")
        return [path]
    found = sorted(p for p in path.rglob("*") if p.suffix.lower() in ENDINGS)
    if not found:
        raise RunError(f"{path} holds no sound to be used as noise: expected {', '.join(ENDINGS)} files.")
    return found


def _lines(done: Harvested, seconds: float) -> list[str]:
    most = max(done.frames.values())
    lines = [
        f"{done.n_utterances} recordings, {seconds / 60:.1f} min of sound: {most:,} frames at "
        f"{', '.join(done.frames)}, {done.gb:.2f} GB"
    ]
    if done.skipped:
        name, why = next(iter(done.skipped.items()))
        lines.append(f"skipped: {len(done.skipped)} (such as '{name}', which {why}); see tables/skipped.csv")
    if done.seconds_of_sound:
        lines.append(
            f"heard in {done.seconds:.1f} s, {done.seconds_of_sound / max(done.seconds, 1e-9):.0f} times real time"
        )
    return [*lines, f"activations: {done.path}"]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(v) for key, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value
