"""Run the audit of corruptions: gather, measure, judge the claims, write the run and its report."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from otoscope.audio.corruptions import FACTORS
from otoscope.engine.model import Model, load
from otoscope.errors import TaskError
from otoscope.methods.isolation import ISOLATES, MARGIN, leaks
from otoscope.runs import Claim, Control, Run, Threshold
from otoscope.stats import Interval
from otoscope.studies.corruption_sounds import Sounds, gather
from otoscope.studies.corruptions import AuditConfig, Audited, Found, study
from otoscope.studies.outcome import claim_line, compute_now, without_run, write_tables


@dataclass(frozen=True)
class Done:
    """What an audit gives back: the results object, lines for a person, all that was found, the report's path."""

    results: dict[str, Any]
    lines: list[str]
    found: Found
    report: Path | None


def audit(
    config: AuditConfig | None = None,
    *,
    data: Path | None = None,
    model: Model | None = None,
    out: Path | None = None,
    command: str = "bench corruptions",
    progress: Callable[[int, int], None] | None = None,
    notify: Callable[[str], None] = lambda _: None,
    **loading: Any,
) -> Done:
    """Measure which way of corrupting isolates which factor.

    Args:
        config: what to audit.
        data: folder with recordings (see ``corruption_sounds.gather``); None makes the sounds by synthesis.
        model: the recogniser, loaded; None loads the one that ``config`` names. It is shortened, so nothing else may use it.
        out: directory for the run; a run that was stopped goes on from there.
        command: the command's name in the results.
        progress: called with (done, total).
        notify: told what is being computed.
        loading: device, dtype, revision, offline.

    Raises:
        TaskError: fewer than 6 sentences are asked for, or ``data`` holds too few.
        AudioError: speech synthesis or alignment is not installed, or a recording cannot be read.
        ModelError: the recogniser cannot be loaded, or is no Whisper.
    """
    config = config or AuditConfig()
    if config.n < 6:
        raise TaskError(f"{config.n} sentences are too few for an interval: give at least 6 (--n).")
    notify("gathering sounds")
    sounds = gather(config.n, config.seed, data)
    recogniser = model or load(config.recogniser, progress=notify, **loading)
    with nullcontext() if out is None else Run(out, command, _identity(config, sounds, recogniser)) as run:
        if run:
            run.record_weights(recogniser.name, recogniser.weights_hash())
        found = study(sounds, recogniser, config, run.step if run else compute_now, progress, notify)
        numbers, made = metrics(found), claims(found)
        said = lines(found, made)
        if run is None:
            return Done(without_run(command, numbers, made), said, found, None)
        write_tables(run, tables(found))
        results = run.finish(numbers, claims=made)
        notify("writing the report")
        from otoscope.studies.corruptions_report import write_report

        return Done(results, said, found, write_report(run, found, made, sounds))


def _identity(config: AuditConfig, sounds: Sounds, recogniser: Model) -> dict[str, Any]:
    clips = [*(u.clip for u in sounds.utterances), *sounds.training, *sounds.retests]
    return {
        "n": config.n, "n_levels": config.n_levels, "seed": config.seed, "recogniser": recogniser.name,
        "dtype": str(recogniser.adapter.dtype), "source": sounds.source, "clips": [clip.digest()[:12] for clip in clips],
    }  # fmt: skip


def claims(found: Found) -> list[Claim]:
    """One claim per way at its default strength, and whether all of them do what they are used for."""
    made = []
    refuted = 0
    for one in found.default():
        way = one.way
        null = found.null[way.scope][way.target]
        claim = Claim.of(
            f"isolates.{way.name}",
            f"{way.name} changes {way.target}, which it is used for, and nothing else",
            Threshold(">=", ISOLATES),
            one.scores[way.target],
            {"a change that nobody hears": Control.of(null, Threshold("<", ISOLATES))},
        )
        refuted += claim.verdict == "refuted"
        made.append(claim)
    made.append(
        Claim.of(
            "some_do_not_isolate",
            "at least one commonly used corruption does not isolate what it is used for",
            Threshold(">=", 1),
            float(refuted),
        )
    )
    return made


def metrics(found: Found) -> dict[str, Interval | float | int | None]:
    """Flat numbers; ``isolation.<way>.<factor>`` is that of the factor a way is used for, at its default strength."""
    made: dict[str, Interval | float | int | None] = {}
    for one in found.default():
        made[f"isolation.{one.way.name}.{one.way.target}"] = one.scores[one.way.target]
    verdicts = [claim.verdict for claim in claims(found)[:-1]]
    made["n_ways"] = len(verdicts)
    made["n_isolating"] = verdicts.count("supported")
    made["n_not_isolating"] = verdicts.count("refuted")
    made["n_disagreements"] = sum(len(one.disagreements) for one in found.default())
    for factor in FACTORS:
        best = best_for(found, factor)
        made[f"best.{factor}"] = None if best is None else best.scores[factor]
        made[f"natural.{factor}"] = found.rulers["clip"][factor].natural
        for scope, rulers in found.rulers.items():
            made[f"auc.{factor}.{scope}"] = rulers[factor].auc
    made["n_unreliable.clip"], made["n_unreliable.word"] = (
        sum(not ruler.reliable for ruler in found.rulers[scope].values()) for scope in ("clip", "word")
    )
    made["wer.clean"] = found.wer
    for scope, rate in found.eer.items():
        made[f"eer.speaker.{scope}"] = rate
    return made


def best_for(found: Found, factor: str) -> Audited | None:
    """The way and level with the highest isolation of a factor; None where none can be measured."""
    known = [one for one in found.audited if not np.isnan(one.scores[factor].value)]
    return max(known, key=lambda one: one.scores[factor].value, default=None)


def advice(found: Found, factor: str) -> str:
    """ "To change only X, use Y", or that nothing here does."""
    best = best_for(found, factor)
    if best is None:
        return f"Whether anything changes only {factor} cannot be said: its yardstick is not reliable here."
    value = best.scores[factor]
    shown = f"isolation {value.value:.2f} [{value.low:.2f}, {value.high:.2f}]"
    if value.value >= ISOLATES:
        return f"To change only {factor}, use {best.way.label} ({shown})."
    moved = [g for g in leaks(factor, FACTORS) if best.cells[g].verdict == "changed"]
    also = f", which also moves {', '.join(moved)}" if moved else ""
    return f"Nothing here changes only {factor}; the closest is {best.way.label} ({shown}){also}."


def tables(found: Found) -> dict[str, list[dict[str, Any]]]:
    """Every number as rows, by the name of their file."""
    cells = []
    for one in found.audited:
        for factor in FACTORS:
            cell, own = one.cells[factor], one.scores[factor]
            declared = "keeps" if factor in one.way.keeps else "breaks" if factor in one.way.breaks else ""
            cells.append(
                {
                    "way": one.way.name, "level": one.way.level, "scope": one.way.scope, "factor": factor,
                    "used_for_it": factor == one.way.target, "declared": declared, "verdict": cell.verdict,
                    "agrees": factor not in [name for name, _ in one.disagreements] if declared else "",
                    "moved": _mean(one.moved[factor]), "unit": found.units[factor][0],
                    "effect": cell.effect.value, "effect_low": cell.effect.low, "effect_high": cell.effect.high,
                    "share_kept": cell.share_kept, "p_equivalence": cell.equivalence.p, "margin": MARGIN,
                    "isolation": own.value, "isolation_low": own.low, "isolation_high": own.high, "n": cell.effect.n,
                }
            )  # fmt: skip
    rulers = [
        {"factor": factor, "scope": scope, "unit": found.units[factor][0], **ruler._asdict()}
        for scope, known in found.rulers.items()
        for factor, ruler in known.items()
    ]
    planted = [
        {
            "factor": one.check.factor, **{f"effect_{i + 1}": _mean(np.array(row)) for i, row in enumerate(one.own)},
            "strengths": "; ".join(one.check.strengths), "follows": one.follows, "strays": " ".join(one.strays),
        }
        for one in found.checked
    ]  # fmt: skip
    strays = [
        {"changed": one.check.factor, "yardstick": factor, "effect": cell.effect.value, "verdict": cell.verdict}
        for one in found.checked
        for factor, cell in one.others.items()
    ]
    return {"isolation": cells, "yardsticks": rulers, "planted": planted, "planted_others": strays}


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if (~np.isnan(values)).any() else float("nan")


def headline(found: Found) -> str:
    """The answer in one sentence."""
    made = claims(found)[:-1]
    good = [claim.id.partition(".")[2] for claim in made if claim.verdict == "supported"]
    bad = [claim.id.partition(".")[2] for claim in made if claim.verdict == "refuted"]
    first = f"{len(good)} of {len(made)} common ways isolate what they are used for" + (
        f" ({', '.join(good)})" if good else ""
    )
    return f"{first}; {len(bad)} do not" + (f", {bad[0]} among them." if bad else ".")


def lines(found: Found, made: list[Claim]) -> list[str]:
    """What a person reads in the terminal."""
    out = [headline(found), "", *(advice(found, factor) for factor in FACTORS), ""]
    for one in found.default():
        for factor, declared in one.disagreements:
            out.append(f"{one.way.name} declares that it {declared} {factor}: measured as {one.cells[factor].verdict}")
    for scope, known in found.rulers.items():
        poor = [factor for factor, ruler in known.items() if not ruler.reliable]
        if poor:
            out.append(f"not reliable on {'whole clips' if scope == 'clip' else 'single words'}: {', '.join(poor)}")
    out.append("")
    return out + [claim_line(claim, ".2f") for claim in made]
