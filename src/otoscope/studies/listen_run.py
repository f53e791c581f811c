"""Run the listening study: load, ask, exchange, judge the claims, write the run and its report."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from otoscope.engine.model import Model
from otoscope.errors import TaskError
from otoscope.models import mini
from otoscope.runs import Claim, Run
from otoscope.stats import Interval
from otoscope.studies.listen import Found, ListenConfig, claims, describe, metrics, study
from otoscope.studies.listen_check import Tested, check
from otoscope.studies.listen_models import compared
from otoscope.studies.outcome import claim_line, compute_now, without_run, write_tables
from otoscope.tasks.conflict import ConflictTask
from otoscope.tasks.spoken_words import recorded_words, spoken_words

#: names of built-in tasks; anything else is a manifest
TASKS = ("spoken-words", "recorded-words")
#: where the project's own recordings lie, seen from a checkout
DATA = Path("../shared/data")


@dataclass(frozen=True)
class Listened:
    """What a listening run gives back: the results object, lines for a person, all that was found, the report's path."""

    results: dict[str, Any]
    lines: list[str]
    found: Found
    report: Path | None


def task_of(task: str | ConflictTask, config: ListenConfig, data: Path = DATA) -> ConflictTask:
    """The items: a built-in task by name, or a JSONL manifest by path.

    Raises:
        TaskError: neither a task nor a file.
        AudioError: the speech extra is missing.
    """
    if isinstance(task, ConflictTask):
        return task
    if task == "spoken-words":
        return spoken_words(config.n, config.seed)
    if task == "recorded-words":
        return recorded_words(data, config.n, config.seed)
    if not Path(task).is_file():
        raise TaskError(f"'{task}' is neither a task nor a manifest: expected {', '.join(TASKS)}, or a JSONL file.")
    return ConflictTask.from_manifest(task, n=config.n, seed=config.seed)


def listen(
    model: str | Model = mini.NAME,
    task: str | ConflictTask = "spoken-words",
    *,
    adapter: str | Path | None = None,
    config: ListenConfig | None = None,
    data: Path = DATA,
    checked: bool = False,
    out: Path | None = None,
    command: str = "listen",
    progress: Callable[[int, int], None] | None = None,
    notify: Callable[[str], None] = lambda _: None,
    **loading: Any,
) -> Listened:
    """Measure whether a model listens or guesses.

    Args:
        model: an audio-LLM by name or path, or a loaded one. ``mini-qwen2-audio`` is compared with both its twins.
        task: ``spoken-words`` (synthetic, no data), ``recorded-words`` (needs ``data``), a JSONL manifest, or a task.
        adapter: a LoRA adapter on top: a folder, or ``listener`` / ``guesser``.
        config: what to compute.
        data: folder with recordings, for ``recorded-words`` and ``checked``.
        checked: also ask the neutral questions about recordings of unheard people (mini-qwen2-audio).
        out: directory for the run; a run that was stopped goes on from there.
        command: the command's name in the results.
        progress: called with (done, total).
        notify: told what is being computed.
        loading: device, dtype, revision, offline.

    Raises:
        ModelError, TaskError, AudioError: a model, task or recording that cannot be used; the sentence says why.
    """
    config = config or ListenConfig()
    those = compared(model, adapter, notify, **loading)
    items = task_of(task, config, data)
    identity = {
        "model": those.model.name, "settings": {k: dict(v) for k, v in those.settings.items()},
        "dtype": str(those.model.adapter.dtype), "revision": loading.get("revision"), "adapter": str(adapter or ""),
        "task": items.name, "items": items.digest()[:16], "checked": checked, **describe(config),
    }  # fmt: skip
    with nullcontext() if out is None else Run(out, command, identity, seeds={"seed": config.seed}) as run:
        if run:
            run.record_weights(those.model.name, those.model.weights_hash())
        step = run.step if run else compute_now
        found = study(those, items, config, step, progress, notify)
        scores, tested = check(those.model, data, step=step, notify=notify) if checked else ({}, [])
        numbers, made = {**metrics(found), **scores}, claims(found)
        said = lines(found, made, scores)
        if run is None:
            return Listened(without_run(command, numbers, made), said, found, None)
        write_tables(run, tables(found, tested))
        results = run.finish(numbers, claims=made)
        notify("writing the report")
        from otoscope.studies.listen_report import write_report

        return Listened(results, said, found, write_report(run, found, made, scores, headline(found)))


def tables(found: Found, tested: list[Tested]) -> dict[str, list[dict[str, Any]]]:
    """Every number as rows, by the name of their file."""
    made: dict[str, list[dict[str, Any]]] = {}
    for name, setting in found.settings.items():
        made[f"gc.{name}"] = setting.grounding.table()
        if setting.layer is not None:
            made[f"listen_layer.{name}"] = setting.layer.table()
        made[f"items.{name}"] = [
            {
                "item": item.id, "sound": item.sound_label, "text": item.text_label, "framing": item.framing,
                **{f"{s}/{c}": chosen[i] for (s, c), chosen in setting.answers.choices.items()},
            }
            for i, item in enumerate(found.task)
        ]  # fmt: skip
    if found.dial is not None:
        made["dial"] = found.dial.table()
    if found.das is not None:
        made["das"] = found.das.table()
    if found.das_nulls is not None:
        made["das_nulls"] = found.das_nulls.table()
    if found.heads is not None:
        made["heads"] = found.heads.table()
    if found.lens is not None:
        made["audio_lens"] = found.lens.table()
    if tested:
        made["check"] = [vars(t) for t in tested]
    if found.refused:
        made["refused"] = [r._asdict() for r in found.refused]
    return made


def headline(found: Found) -> str:
    """The answer in one sentence."""
    parts = []
    for name, setting in found.settings.items():
        gc = setting.grounding.summary()
        who = f"the {name} model" if name == "plain" else f"the {name}" if len(found.settings) > 1 else found.model
        said = "is moved by neither sound nor text" if np.isnan(gc.value) else f"listens {_share(gc)}"
        parts.append(f"{who} {said}")
    passed = found.settings[found.main].layer
    layer = None if passed is None else passed.layer
    end = "" if layer is None else f"; by layer {layer.value:.0f} the sound has reached the answer"
    sentence = ", ".join(parts) + end + "."
    return sentence[:1].upper() + sentence[1:] if len(found.settings) > 1 else sentence


def _share(gc: Interval) -> str:
    shown = [100 * min(max(x, 0.0), 1.0) for x in (gc.value, gc.low, gc.high)]
    return f"{shown[0]:.0f}% [{shown[1]:.0f}–{shown[2]:.0f}]"


def lines(found: Found, made: list[Claim], tested: dict[str, Interval]) -> list[str]:
    """What a person reads in the terminal."""
    out = [headline(found), ""]
    for name, setting in found.settings.items():
        rates = setting.behaviour.rates
        out.append(
            f"{name}: follows the sound in {rates.listen.value:.0%} and the text in {rates.guess.value:.0%} "
            f"of {rates.listen.n} conflicts"
        )
    out.append("")
    for name, value in tested.items():
        out.append(f"{name}: {value.value:.3f} [{value.low:.3f}, {value.high:.3f}], {value.n} speakers or recordings")
    if tested:
        out.append("")
    if found.refused:
        out.append(f"{len(found.refused)} items cannot be asked, such as {found.refused[0].id}: {found.refused[0].why}")
    return out + [claim_line(claim) for claim in made]
