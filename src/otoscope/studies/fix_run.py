"""Run the study of a fix: load, divide the recordings, search, choose, report, and write the fix to take along."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from otoscope.engine.model import Model, load
from otoscope.errors import TaskError
from otoscope.methods.invention import check_writes
from otoscope.runs import Claim, Run
from otoscope.studies.fix import FAMILIES, FixConfig, Fixed, claims, material, metrics, study
from otoscope.studies.fix_trial import Tried
from otoscope.studies.outcome import compute_now, without_run, write_tables
from otoscope.studies.transcribe import gather
from otoscope.tasks.no_speech import PARTS


@dataclass(frozen=True)
class FixDone:
    """What a run gives back: the results object, lines for a person, all that was found, the report's path."""

    results: dict[str, Any]
    lines: list[str]
    found: Fixed
    report: Path | None


def find_fix(
    model: str | Model,
    speech: Sequence[Path],
    sounds: Sequence[Path] = (),
    *,
    config: FixConfig | None = None,
    out: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    notify: Callable[[str], None] = lambda _: None,
    **loading: Any,
) -> FixDone:
    """Search an intervention that keeps a Whisper from inventing words, choose its strength, and report it.

    Args:
        model: a Whisper: name, path, or loaded.
        speech: files and folders in which somebody speaks; with a ``manifest.tsv`` that has texts, WER is against them,
            else against what the model writes without the fix.
        sounds: files and folders in which nobody speaks; noise and silence are made in any case.
        config: what to search.
        out: directory for the run, the report and the fix; a run that was stopped goes on from there.
        progress: called with (done, total).
        notify: told what is being done.
        loading: device, dtype, revision, offline.

    Raises:
        ModelError, TaskError, AudioError: a model or recording that cannot be used; the sentence says why.
    """
    config = config or FixConfig()
    unknown = [name for name in config.families if name not in FAMILIES]
    if unknown or not config.families:
        raise TaskError(f"there is no intervention '{', '.join(unknown)}': expected some of {', '.join(FAMILIES)}.")
    spoken = gather(list(speech))
    quiet = gather(list(sounds)) if sounds else []
    loaded = model if isinstance(model, Model) else load(model, progress=notify, **loading)
    check_writes(loaded)
    clock = loaded.clock("encoder", 1)
    parts = material(quiet, spoken, config, clock.n_frames / clock.rate)
    digest = hashlib.sha256("".join(s.digest() for part in PARTS for s in parts[part]).encode()).hexdigest()[:16]
    identity = {
        "model": loaded.name, "dtype": str(loaded.adapter.dtype), "revision": loading.get("revision"), "sounds": digest,
        **asdict(config),
    }  # fmt: skip
    with nullcontext() if out is None else Run(out, "fix", identity, seeds={"seed": config.seed}) as run:
        if run:
            run.record_weights(loaded.name, loaded.weights_hash())
        found = study(loaded, parts, config, run.step if run else compute_now, notify, progress)
        numbers, made = metrics(found), claims(found)
        said = lines(found, made)
        if run is None:
            return FixDone(without_run("fix", numbers, made), said, found, None)
        if found.fix:
            found.fix.save(run.path)
            said.append(f"\nthe fix: otoscope.apply(model, '{run.path}')")
        write_tables(run, tables(found))
        results = run.finish(numbers, claims=made)
        notify("writing the report")
        from otoscope.studies.fix_report import write_report

        return FixDone(results, said, found, write_report(run, found, made))


def tables(found: Fixed) -> dict[str, list[dict[str, Any]]]:
    """Every number as rows, by the name of their file."""

    def row(one: Tried) -> dict[str, Any]:
        made: dict[str, Any] = {"intervention": one.label, "family": one.family, "control": one.control}
        for name in ("invented", "after_rule", "wer", "wer_rise", "noisy_wer", "silenced"):
            value = getattr(one, name)
            made |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
        return made

    kinds = [{"kind": k, "sounds": n, "before": x, "after": y} for k, (n, x, y) in found.by_kind.items()]
    heads = [
        {"site": site, "head": head, "effect": effect}
        for (site, head), effect in sorted(found.effects.items(), key=lambda e: -e[1])
    ]
    return {
        "frontier": [row(one) for one in found.chosen],
        "report": [row(one) for one in found.reported],
        "kinds": kinds,
        "heads": heads,
        "signals": [{"signal": name, "auc": value} for name, value in found.auc.items()],
    }


def headline(found: Fixed) -> str:
    """The study in one sentence."""
    before = found.reported[0]
    said = f"{found.model} writes words on {before.invented.value:.0%} of the sounds in which nobody speaks"
    if found.fix is None:
        return f"{said}; no intervention that was tried lowers this without harm to speech."
    after = found.reported[1]
    return (
        f"{said}; with the fix ({after.label}) on {after.invented.value:.1%}, and its WER goes from {before.wer.value:.2%} to "
        f"{after.wer.value:.2%}."
    )


def lines(found: Fixed, made: Sequence[Claim]) -> list[str]:
    """What is printed."""
    text = [headline(found), ""]
    width = max(len(one.label) for one in found.reported)
    text.append(
        f"{'on other sounds and speakers':{width}}  with words        after the rule  WER     in noise  silenced"
    )
    for one in found.reported:
        low, high = one.invented.low, one.invented.high
        text.append(
            f"{one.label:{width}}  {one.invented.value:6.1%} [{low:.0%}, {high:.0%}]  {one.after_rule.value:6.1%}  "
            f"{one.wer.value:7.2%}  {one.noisy_wer.value:7.2%}  {one.silenced.value:6.1%}"
        )
    best = max(found.auc, key=lambda name: found.auc[name])
    text += ["", f"signals: {best} tells sounds without speech best (AUC {found.auc[best]:.3f}); "
             f"the no-speech probability {found.auc['no_speech_prob']:.3f}"]  # fmt: skip
    return [*text, "", *(f"{claim.verdict}: {claim.statement} {claim.reason}" for claim in made)]
