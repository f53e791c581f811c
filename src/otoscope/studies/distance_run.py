"""Run the out-of-distribution study: sentences, what is natural, maps, nulls, claims, the run and its report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from otoscope.engine.model import Model, load
from otoscope.errors import TaskError
from otoscope.methods.controls import untrained
from otoscope.methods.natural import Natural
from otoscope.runs import Claim, Run
from otoscope.studies.distance import Heard, ask, measure, natural_states, transcript
from otoscope.studies.distance_choice import Recommended, recommend, short_sentence
from otoscope.studies.distance_claims import claims, metrics, tables
from otoscope.studies.distance_grid import DistanceConfig, Kind, describe, kinds
from otoscope.studies.distance_pairs import NULLS, Material, Sentence, material, nulls
from otoscope.studies.distance_table import Relation, Row, relation
from otoscope.studies.outcome import Step, claim_line, compute_now, without_run, write_tables

COMMAND = "bench distance"


@dataclass(frozen=True)
class Found:
    """All that was measured.

    Attributes:
        model: its name.
        config: what was asked.
        kinds: the grid of patches.
        rows: maps.
        nulls: maps where there is nothing to find.
        relation: of distance and falseness.
        choice: what to patch with; None where too little was named.
        tried: sentences that were read, of which ``used`` had a change that the model hears at the changed word.
        used: those sentences.
        notices: for a person.
    """

    model: str
    config: DistanceConfig
    kinds: list[Kind]
    rows: list[Row]
    nulls: list[Row]
    relation: Relation
    choice: Recommended | None
    tried: int
    used: list[Sentence]
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measured:
    """What the study gives back: the results object, lines for a person, all that was found, the report's path."""

    results: dict[str, Any]
    lines: list[str]
    found: Found
    report: Path | None


def distance_study(
    model: str | Model = "whisper-tiny.en",
    config: DistanceConfig | None = None,
    data: Path | None = None,
    *,
    out: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    notify: Callable[[str], None] = lambda _: None,
    **loading: Any,
) -> Measured:
    """Ask whether unnatural states mislead.

    Args:
        model: a Whisper: name, path, or loaded.
        config: what is asked.
        data: folder with recorded sentences and their texts; None for spoken ones.
        out: directory for the run; a run that was stopped goes on after the last finished sentence.
        progress: called with sentences done and their number.
        notify: told what is being done.
        loading: device, dtype, revision, offline.

    Raises:
        ModelError: the model is no Whisper.
        TaskError, AudioError: too few sentences, no speech synthesis, or the model hears no change where it was made.
    """
    config = config or DistanceConfig()
    loaded = model if isinstance(model, Model) else load(model, progress=notify, **loading)
    given = material(data, config.corruptions, config.n, config.n_spoken, config.references, config.seed, notify)
    identity = {
        "model": loaded.name, "dtype": str(loaded.adapter.dtype), "revision": loading.get("revision"),
        **describe(config), "sentences": [s.clip.digest()[:12] for s in given.sentences],
    }  # fmt: skip
    with nullcontext() if out is None else Run(out, COMMAND, identity, seeds={"seed": config.seed}) as run:
        if run:
            run.record_weights(loaded.name, loaded.weights_hash())
        wanted = {"recorded": config.n, "spoken": config.n if data is None else config.n_spoken}
        found = study(loaded, given, config, wanted, run.step if run else compute_now, progress, notify)
        made = claims(found.rows, found.nulls, found.relation, found.choice, found.kinds)
        numbers = metrics(found.rows, found.nulls, found.relation)
        said = lines(found, made)
        if run is None:
            return Measured(without_run(COMMAND, numbers, made), said, found, None)
        write_tables(run, tables(found.rows, found.nulls))
        results = run.finish(numbers, claims=made)
        notify("writing the report")
        from otoscope.studies.distance_report import write_report

        return Measured(results, said, found, write_report(run, found, made))


def study(
    model: Model,
    given: Material,
    config: DistanceConfig,
    wanted: Mapping[str, int],
    step: Step = compute_now,
    progress: Callable[[int, int], None] | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> Found:
    """Measure the maps of so many sentences per source.

    Raises:
        TaskError: no change is heard where it was made.
    """
    grid = kinds(model.stacks["encoder"].n_layers, config.quick)
    learnt: dict[str, Natural] = {}

    def natural(source: str) -> Natural:
        if source not in learnt:
            notify(f"learning what is natural in {source} sentences")
            learnt[source] = natural_states(model, given.references[source], grid, config.seed)
            notify("patching")
        return learnt[source]

    rows: list[Row] = []
    silent: list[Row] = []
    used: list[Sentence] = []
    so_far: Counter[str] = Counter()
    done: Counter[str] = Counter()
    tried = 0
    total = sum(min(n, sum(s.source == source for s in given.sentences)) for source, n in wanted.items())
    for sentence in given.sentences:
        if done[sentence.source] >= wanted.get(sentence.source, 0):
            continue
        tried += 1
        counts = dict(so_far)

        def one(sentence: Sentence = sentence, counts: Mapping[str, int] = counts) -> dict[str, Any]:
            heard, chosen = choose(model, sentence, config.per_sentence, counts)
            if not chosen:
                return {"chosen": [], "rows": [], "nulls": []}
            made = measure(model, sentence, heard, chosen, grid, natural(sentence.source), config.seed)
            with_null = sum(done.values()) < config.nulls
            null = null_maps(model, sentence, heard, chosen[0], grid, config.seed) if with_null else []
            return {"chosen": chosen, "rows": made, "nulls": null}

        answer = step(f"sentence {tried} {sentence.name}", one)
        if not answer["chosen"]:
            continue
        rows += answer["rows"]
        silent += answer["nulls"]
        used.append(sentence)
        so_far.update(answer["chosen"])
        done[sentence.source] += 1
        if progress:
            progress(sum(done.values()), total)
    if not rows:
        raise TaskError(
            f"{model.name} hears none of the changes of {tried} sentences where they were made: give other sentences, or a "
            "better model."
        )
    return Found(
        model.name, config, grid, rows, silent, relation(rows, config.seed), recommend(rows), tried, used, given.notices
    )  # fmt: skip


def choose(model: Model, sentence: Sentence, most: int, so_far: Mapping[str, int]) -> tuple[Heard, list[str]]:
    """At most ``most`` corruptions that the model hears, those first of which there are fewest ``so_far``."""
    names = sorted(sentence.sounds, key=lambda c: so_far.get(c, 0))
    heard = transcript(model, sentence)
    for start in range(0, len(names), most):
        heard = ask(model, sentence, heard, names[start : start + most])
        if len(heard.asked) >= most:
            break
    return heard, [name for name in names if name in heard.asked][:most]


def null_maps(
    model: Model, sentence: Sentence, heard: Heard, corruption: str, grid: Sequence[Kind], seed: int
) -> list[Row]:
    """Maps with nothing to find: the same sound twice, an inaudible change, and untrained weights on an audible one."""
    # what costs little: the other run's states at both ends, and zeros at the last layer
    last = next(k for k in grid if k.value == "mean").site
    centre = [k for k in grid if k.site in (grid[0].site, last) and k.width == grid[0].width]
    centre = [k for k in centre if k.value == "donor" or (k.value == "zero" and k.site == last)]
    nothing = nulls(sentence, seed)
    same = Heard(heard.tokens, dict.fromkeys(NULLS, heard.asked[corruption]))
    rows = measure(model, nothing, same, list(NULLS), centre, None, seed)
    other = measure(untrained(model, seed), sentence, heard, [corruption], centre, None, seed)
    return rows + [{**row, "corruption": "untrained"} for row in other]


def headline(found: Found) -> str:
    """The recommendation without its small print; without one, that there is none."""
    if found.choice is not None:
        return short_sentence(found.choice, found.kinds)
    return f"No kind of patch named places in enough of the {len(found.used)} sentences to be recommended."


def recommendation(results: Mapping[str, Any]) -> str:
    """The sentence that a protocol prints, from the results object of this study (``results.json``).

    Raises:
        TaskError: these are results of another command, or no recommendation could be made.
    """
    if results.get("command") != COMMAND:
        raise TaskError(f"these are the results of '{results.get('command')}', not of '{COMMAND}'.")
    claim = next((c for c in results["claims"] if c["id"] == "recommendation"), None)
    if claim is None:
        raise TaskError(
            "this run of the out-of-distribution study could not recommend anything: give it more sentences."
        )
    within = next(c for c in results["claims"] if c["id"] == "within")
    predicts = {
        "supported": "distance from natural states predicts false places",
        "refuted": "distance from natural states does not predict false places",
        "inconclusive": "whether distance from natural states predicts false places is open",
    }[within["verdict"]]
    return f"{claim['statement']} Within a corruption and a kind of patch, {predicts} ({_number(within)})."


def packaged() -> str:
    """The recommendation that comes with the package, with its source; ``make truth`` writes it from its run.

    Where the package has none, how to get one.
    """
    path = files("otoscope.studies") / "distance_recommendation.json"
    if not path.is_file():
        return "not measured yet; `otoscope bench distance --out DIR` does, and --distance DIR prints it here."
    kept = json.loads(path.read_text("utf-8"))
    return f"{kept['recommendation']} Source: `{kept['command']}`, {kept['model']}, {kept['sentences']} sentences."


def _number(claim: Mapping[str, Any]) -> str:
    if claim["value"] is None or np.isnan(claim["value"]):
        return "nothing to compare"
    low, high = claim["interval"] or (None, None)
    ends = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
    return f"concordance {claim['value']:.2f}{ends}"


def lines(found: Found, made: Sequence[Claim]) -> list[str]:
    """What a person reads in the terminal."""
    rows = found.rows
    out = [headline(found), ""]
    out.append(
        f"{len(rows)} maps of {len(found.used)} sentences ({found.tried} read): "
        f"{sum(r['silent'] for r in rows)} silent, {sum(r['false'] for r in rows)} false "
        f"({sum(r['wrong'] for r in rows)} at the wrong place, {sum(r['alarm'] for r in rows)} with a false alarm)"
    )
    out += [f"note: {notice}" for notice in found.notices] + [""]
    return out + [claim_line(claim, ".2f", count=True) for claim in made if claim.id != "recommendation"]
