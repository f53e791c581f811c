"""Run the recipe that asks whether a temporal loss helps: harvest, train, measure, judge the claims, write the report."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from otoscope.engine.model import Model, load
from otoscope.methods.controls import untrained
from otoscope.runs import Claim, Run
from otoscope.runs.run import config_hash
from otoscope.sae.measures.planted import PlantedConfig
from otoscope.sae.measures.trust import trust_in_all
from otoscope.sae.mixing import Mixture
from otoscope.sae.store import Store
from otoscope.studies.outcome import claim_line, write_tables
from otoscope.studies.sae_paper import (
    MAIN,
    PLAIN,
    TEMPORAL,
    Found,
    PaperConfig,
    Variant,
    best,
    claims,
    describe,
    headline,
    metrics,
    table,
    trainings,
    variants,
)
from otoscope.studies.sae_paper_material import (
    SENTENCES,
    Corpus,
    HeldOut,
    dictionary,
    found_again,
    harvested,
    measured,
    mixture,
    split,
)

#: where the project's own recordings lie, seen from a checkout
DATA = Path("../shared/data")
#: planted worlds on which the measures are tried
_WORLDS = 2
#: what fresh weights are looked at with
_FRESH = (PLAIN[0], TEMPORAL)


@dataclass(frozen=True)
class Papered:
    """What the recipe gives back: the results object, lines for a person, all that was found, the report's path."""

    results: dict[str, Any]
    lines: list[str]
    found: Found
    report: Path


def paper(
    model: str | Model = "whisper-tiny.en",
    *,
    out: Path,
    data: Path = DATA,
    config: PaperConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
    notify: Callable[[str], None] = lambda _: None,
    **loading: Any,
) -> Papered:
    """Train dictionaries of every kind on speech and sounds, and compare them where nothing was trained.

    Args:
        model: a model by name or path, or a loaded one.
        out: directory for the run, with activations and dictionaries; a run that was stopped goes on from there.
        data: folder with LibriSpeech and, where they are there, the other corpora.
        config: what to compute.
        progress: called with (done, total) of trainings.
        notify: told what is being computed.
        loading: device, dtype, revision, offline.

    Raises:
        RunError, ModelError, SiteError, AudioError: what cannot be used; the sentence says why.
    """
    config = config or PaperConfig()
    corpus = split(Path(data), config)
    loaded = model if isinstance(model, Model) else load(model, progress=notify, **loading)
    heard = [[r.corpus, r.name, r.n_samples] for part in (corpus.train, corpus.held) for r in part]
    identity = {
        "model": loaded.name, "dtype": str(loaded.adapter.dtype), "recordings": config_hash({"heard": heard}),
        **describe(config),
    }  # fmt: skip
    with Run(out, "sae paper", identity, seeds={"seed": config.seed}) as run:
        run.record_weights(loaded.name, loaded.weights_hash())
        found = _found(run, loaded, corpus, config, progress, notify)
        made = claims(found)
        write_tables(run, {"dictionaries": table(found), "trainings": trainings(found)})
        run.write("best.json", json.dumps(best_dictionaries(found), indent=2) + "\n")
        results = run.finish(metrics(found), claims=made)
        notify("writing the report")
        from otoscope.studies.sae_paper_report import write_report

        return Papered(results, lines(found, made), found, write_report(run, found, made))


def best_dictionaries(found: Found) -> dict[str, list[str]]:
    """Layer -> name and label of the kind whose first training is worth shipping."""
    return {layer: [name, next(v.label for v in MAIN if v.name == name)] for layer, name in best(found)}


def _found(
    run: Run,
    model: Model,
    corpus: Corpus,
    config: PaperConfig,
    progress: Callable[[int, int], None] | None,
    notify: Callable[[str], None],
) -> Found:
    notify("trying the measures on planted features")
    small = PlantedConfig(n_speakers=6, per_speaker=3, tokens=10)
    trust = run.step("trust", lambda: {n: t.verdict for n, t in trust_in_all(range(_WORLDS), small).items()})
    held_out = Mixture(tuple(corpus.held), seed=config.seed, align=config.align)
    jobs = [(layer, v, s) for layer in config.layers for v in variants(config, layer) for s in range(config.seeds)]
    notify("hearing what is held out")
    held = harvested(model, held_out, config.layers, run.path / "activations" / "held-out", progress, notify)
    notify("hearing what is trained on")
    train = harvested(
        model, mixture(corpus, config, config.recordings), config.layers, run.path / "activations" / "train", progress,
        notify,
    )  # fmt: skip
    frames = cache(lambda layer: HeldOut.of(Store(held, layer)))
    store = cache(lambda layer: Store(train, layer))

    def made(layer: str, variant: Variant, seed: int):
        folder = run.path / "dictionaries" / layer / f"{variant.trained}-{seed}"
        return dictionary(folder, store(layer), variant, config, seed)

    found: dict[str, dict[str, list[Any]]] = {layer: {} for layer in config.layers}
    # all kinds of one seed before the next seed, further lags last: a run that is stopped has something to compare
    for i, (layer, variant, seed) in enumerate(sorted(jobs, key=lambda job: (job[1] not in MAIN, job[2]))):
        notify(f"{layer}: {variant.label}, training {seed + 1} of {config.seeds}")
        numbers = run.step(
            f"measured {layer} {variant.name} {seed}",
            lambda at=layer, v=variant, s=seed: measured(made(at, v, s), v, frames(at), config),
        )
        found[layer].setdefault(variant.name, []).append(numbers)
        if progress is not None:
            progress(i + 1, len(jobs))
    again: dict[str, dict[str, list[float]]] = {}
    for layer in config.layers:
        kinds = [v for v in variants(config, layer) if not v.of]
        again[layer] = {
            v.name: run.step(
                f"found again {layer} {v.name}",
                lambda at=layer, v=v: found_again([made(at, v, s) for s in range(config.seeds)], frames(at).speech),
            )
            for v in kinds
        }
    fresh = _fresh(run, model, corpus, held_out, config, notify) if config.fresh else {}
    about = {
        "corpora": corpus.about(),
        "frames": {"train": store(config.layers[0]).n_frames, "held out": Store(held, config.layers[0]).n_frames},
        "trainings": sum(not v.of for _, v, _ in jobs), "d": store(config.layers[0]).d,
    }  # fmt: skip
    return Found(model.name, config, about, found, again, fresh, trust)


def _fresh(
    run: Run, model: Model, corpus: Corpus, held_out: Mixture, config: PaperConfig, notify: Callable[[str], None]
) -> dict[str, Any]:
    """The same of fresh weights: what any random network's frames give."""
    layer = config.layers[0]
    if all(run.has_step(f"fresh {v.name}") for v in _FRESH):
        return {v.name: run.step(f"fresh {v.name}", dict) for v in _FRESH}
    notify("fresh weights")
    blank = untrained(model, config.seed + 1)
    folder = run.path / "activations"
    sentences = replace(held_out, recordings=tuple(r for r in held_out.recordings if r.corpus.startswith(SENTENCES)))
    held = harvested(blank, sentences, (layer,), folder / "fresh-held-out", None, notify)
    train = harvested(blank, mixture(corpus, config, config.fresh), (layer,), folder / "fresh-train", None, notify)

    def compute(variant: Variant) -> dict[str, Any]:
        at = run.path / "dictionaries" / "fresh" / variant.name
        made = dictionary(at, Store(train, layer), variant, config, 0)
        return measured(made, variant, HeldOut.of(Store(held, layer)), config)

    return {v.name: run.step(f"fresh {v.name}", lambda v=v: compute(v)) for v in _FRESH}


def lines(found: Found, made: Sequence[Claim]) -> list[str]:
    """What a person reads in the terminal."""
    out = [headline(found, made), ""]
    for row in table(found):
        out.append(
            f"{row['layer']}, {row['dictionary']}: FVU {row['FVU']:.3f}, L0 {row['L0']:.1f}, dead {row['dead']:.0%}, phone from "
            f"one feature {row['phone, 1 feature']:.3f} [{row['phone, 1 feature, low']:.3f}, "
            f"{row['phone, 1 feature, high']:.3f}], speaker {row['speaker, 1']:.3f}, TCS {row['TCS']:.2f}, purity "
            f"{row['phone purity']:.3f}, overlap {row['overlap']:.2f} (high-level {row['high overlap']:.2f}), stability "
            f"{row['stability']:.2f}"
        )
    out.append("")
    for layer, name in best(found):
        out.append(f"best of {layer} at its FVU: {name}")
    out.append("")
    return out + [f"{claim_line(claim, ends='.3f')}. {claim.reason}" for claim in made]
