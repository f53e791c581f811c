"""Run the patching study over pairs: load, localise each pair, judge the claims, write the run and its report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from otoscope.audio.files import read
from otoscope.engine.cost import Cost
from otoscope.engine.model import Model, load
from otoscope.errors import TaskError
from otoscope.runs import Claim, Run
from otoscope.studies.outcome import claim_line, without_run
from otoscope.studies.patch import NaturalStates, Notify, PairResult, PatchConfig, describe, patch_pair, summarise
from otoscope.tasks.pair import Pair, pad_to_equal

RATE = 16000


@dataclass(frozen=True)
class Done:
    """What a patching run gives back: the results object, lines for a person, pair results, and the report's path."""

    results: dict[str, Any]
    lines: list[str]
    pairs: list[PairResult]
    report: Path | None


def pair_from_files(clean: Path, corrupt: Path, pad: bool = False) -> Pair:
    """Two recordings as a pair, at 16 kHz; the span is where their samples differ.

    Raises:
        AudioError: a file cannot be read.
        TaskError: the lengths differ (and ``pad`` is off), or the sounds are the same.
    """
    first, second = read(clean, RATE), read(corrupt, RATE)
    if pad:
        first, second = pad_to_equal(first, second)
    pair = Pair(
        first, second, (0.0, first.duration), "recorded", first.text, second.text, f"{clean.stem} / {corrupt.stem}"
    )
    span = pair.difference()
    if span is None:
        raise TaskError(
            f"{clean} and {corrupt} hold the same samples, so there is nothing to localise: give two that differ."
        )
    return pair.replace(span=span)


def patch_study(
    pairs: Sequence[Pair],
    model: str | Model = "whisper-tiny.en",
    config: PatchConfig | None = None,
    *,
    answer: str | None = None,
    foil: str | None = None,
    out: Path | None = None,
    command: str = "patch",
    progress: Callable[[int, int], None] | None = None,
    announce: Callable[[Cost], None] | None = None,
    notify: Notify = lambda _: None,
    **loading: Any,
) -> Done:
    """Localise every pair and judge the claims over them.

    Args:
        pairs: pairs of equal length each.
        model: name, path, or a loaded model.
        config: what to compute.
        answer, foil: words to compare instead of what the model writes.
        out: directory for the run; a run that was killed goes on from there.
        command: the command's name in the results.
        progress: called with patches done and their total, per sweep.
        announce: told the estimated cost of every sweep before it starts.
        notify: told what is being computed.
        loading: device, dtype, revision, offline.

    Raises:
        TaskError: no pair could be localised; the reason of the first one is given.
    """
    config = config or PatchConfig()
    loaded = model if isinstance(model, Model) else load(model, progress=notify, **loading)
    if (answer is None) != (foil is None):
        raise TaskError("--answer and --foil go together: give both words, or neither.")
    options: dict[str, Any] = {"progress": progress, "announce": announce}
    if out is None:
        results, problems = _localise(loaded, pairs, config, answer, foil, options, notify)
        metrics, claims = summarise(results)
        lines = _lines(loaded, results, claims, problems)
        return Done(without_run(command, metrics, claims), lines, results, None)
    identity = {
        "model": loaded.name, "dtype": str(loaded.adapter.dtype), "revision": loading.get("revision"),
        **describe(config), "answer": answer, "foil": foil,
        "pairs": [[pair.clean.digest()[:16], pair.corrupt.digest()[:16]] for pair in pairs],
    }  # fmt: skip
    with Run(out, command, identity, seeds={"seed": config.seed}) as run:
        run.record_weights(loaded.name, loaded.weights_hash())
        results, problems = _localise(loaded, pairs, config, answer, foil, {**options, "step": run.step}, notify)
        metrics, claims = summarise(results)
        for i, result in enumerate(results):
            for name, effect_map in result.maps.items():
                run.table(f"{name}.{i + 1}", effect_map.table())
        written = run.finish(metrics, claims=claims)
        notify("writing the report")
        from otoscope.studies.patch_report import write_report

        report = write_report(run, loaded, results, claims, config, _lines(loaded, results, claims, problems))
    return Done(written, _lines(loaded, results, claims, problems), results, report)


def _localise(
    model: Model,
    pairs: Sequence[Pair],
    config: PatchConfig,
    answer: str | None,
    foil: str | None,
    options: dict[str, Any],
    notify: Notify,
) -> tuple[list[PairResult], list[str]]:
    results, problems = [], []
    natural = NaturalStates(model, pairs)
    for i, pair in enumerate(pairs):
        name = pair.name or f"pair {i + 1}"
        donor = pairs[(i + 1) % len(pairs)] if len(pairs) > 1 else None
        try:
            results.append(
                patch_pair(
                    model, pair, config, donor=donor, natural=natural.without(i), answer=answer, foil=foil, options=options,
                    notify=lambda line, name=name: notify(f"{name}: {line}"),
                )
            )  # fmt: skip
        except TaskError as error:
            problems.append(f"{name}: {error}")
    if not results:
        raise TaskError(
            problems[0].split(": ", 1)[-1] if len(pairs) == 1 else f"no pair could be localised; {problems[0]}"
        )
    return results, problems


def headline(model: Model, results: Sequence[PairResult]) -> str:
    """The answer in one sentence."""
    first = results[0]
    if len(results) > 1:
        hits = sum(r.in_place() for r in results)
        opening = f"In {hits} of {len(results)} pairs {model.name} tells the sounds apart where they differ"
    else:
        start, end = first.peak()
        opening = (
            f"{model.name} tells '{first.contrast.answer_text}' from '{first.contrast.foil_text}' by the sound at "
            f"{start:.2f}-{end:.2f} s"
        )
    parts = [opening]
    for key, words in (("decoder_components", "the decoder settles it in {0} of {1}"),):
        maps = [r.maps[key] for r in results if key in r.maps]
        if maps:
            columns = [c for c in maps[0].columns if c != "resid_post"]
            stack = np.stack([m.effects[:, [m.columns.index(c) for c in columns]] for m in maps])
            if not np.isnan(stack).all():
                row, column = np.unravel_index(np.nanargmax(np.nanmean(stack, axis=0)), stack.shape[1:])
                names = {
                    "attn_out": "the self-attention",
                    "cross_attn_out": "the cross-attention",
                    "mlp_out": "the MLP",
                }
                effect = float(np.nanmean(stack, axis=0)[row, column])
                parts.append(f"{words.format(names[columns[column]], maps[0].rows[row])} (effect {effect:.2f})")
    return "; ".join(parts) + "."


def _lines(model: Model, results: Sequence[PairResult], claims: Sequence[Claim], problems: Sequence[str]) -> list[str]:
    lines = [headline(model, results), ""]
    for r in results:
        c = r.contrast
        start, end = r.peak()
        lines.append(
            f"{r.pair.name or 'pair'}: '{c.answer_text}' / '{c.foil_text}', clean \"{c.clean_text}\", corrupt "
            f'"{c.corrupt_text}"; sounds differ at {r.pair.span[0]:.2f}-{r.pair.span[1]:.2f} s, largest effect at '
            f"{start:.2f}-{end:.2f} s"
        )
    lines += [f"left out: {p}" for p in problems]
    lines.append("")
    return lines + [claim_line(claim, ".2f", count=True) for claim in claims]
