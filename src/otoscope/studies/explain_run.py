"""Explain the errors of recordings: load, explain one by one, sum up, write the run and its report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from otoscope.audio.clip import Clip
from otoscope.engine.model import Model, load
from otoscope.errors import TaskError
from otoscope.models.wer import score
from otoscope.runs import Run
from otoscope.stats import bootstrap, ratio_of_sums
from otoscope.studies.explain import (
    ExplainConfig,
    check_compression,
    describe_errors,
    explain_clip,
    summary_row,
)
from otoscope.studies.outcome import Step, compute_now, without_run, write_tables
from otoscope.studies.transcribe import gather

VERDICTS = ("heard wrong", "guessed", "mixed", "undetermined")
Notify = Callable[[str], None]


@dataclass(frozen=True)
class Explanation:
    """What a run of ``explain`` gives back: the results object, lines for a person, one item per recording, the report."""

    results: dict[str, Any]
    lines: list[str]
    items: list[dict[str, Any]]
    report: Path | None


def explain_study(
    paths: Sequence[Path],
    model: str | Model = "whisper-tiny.en",
    *,
    reference: str | None = None,
    config: ExplainConfig | None = None,
    out: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    notify: Notify = lambda _: None,
    **loading: Any,
) -> Explanation:
    """Explain every error of recordings.

    Args:
        paths: sound files, folders of them, and folders with a ``manifest.tsv`` (path, text).
        model: name, path, or a loaded model.
        reference: what is said in the one recording that is given; by default the manifest's texts. A recording without
            any is looked through for words that are most likely wrong.
        config: what to compute.
        out: directory for the run and its report; a run that was stopped goes on from there.
        progress: called with recordings done and their total.
        notify: told what is being done.
        loading: device, dtype, revision, offline.

    Raises:
        AudioError: a recording cannot be read.
        ModelError: the model is no Whisper.
        TaskError: a reference is given for several recordings; or no recording could be explained.
    """
    config = config or ExplainConfig()
    clips = gather(paths)
    if reference is not None:
        if len(clips) != 1:
            raise TaskError(
                f"--reference is the text of one recording, and {len(clips)} are given: write their texts into a manifest.tsv "
                "with the columns path and text."
            )
        clips = [clips[0].replace(text=reference, words=(), phones=())]
    loaded = model if isinstance(model, Model) else load(model, progress=notify, **loading)
    clips = [clip.resample(loaded.adapter.rate) for clip in clips]
    asked = {
        "model": loaded.name, "revision": loading.get("revision"), "dtype": str(loaded.adapter.dtype), **asdict(config),
        "clips": [[clip.digest()[:16], clip.text] for clip in clips],
    }  # fmt: skip
    with nullcontext() if out is None else Run(out, "explain", asked, seeds={"seed": config.seed}) as run:
        if run:
            run.record_weights(loaded.name, loaded.weights_hash())
        notify(f"explaining {len(clips)} recording{'s' if len(clips) > 1 else ''}")
        items = _explained(loaded, clips, config, run.step if run else compute_now, progress, notify)
        metrics = summarise(items, clips)
        lines = _lines(items, metrics)
        if run is None:
            return Explanation(without_run("explain", metrics), lines, items, None)
        write_tables(run, {"errors": [{"path": i["path"], **row} for i in items for row in i["rows"]],
                           "words": [{"path": i["path"], **row} for i in items for row in i["suspects"]]})  # fmt: skip
        results = run.finish(metrics)
        notify("writing the report")
        from otoscope.studies.explain_report import write_report

        report = write_report(run, loaded.name, clips, items, results)
    return Explanation(results, lines, items, report)


def _explained(
    model: Model,
    clips: Sequence[Clip],
    config: ExplainConfig,
    step: Step,
    progress: Callable[[int, int], None] | None,
    notify: Notify,
) -> list[dict[str, Any]]:
    """One item per clip; each is a step of the run. A recording that cannot be explained is named and passed over."""
    items: list[dict[str, Any]] = []
    for done, clip in enumerate(clips, 1):

        def compute(clip: Clip = clip) -> dict[str, Any]:
            return _item(model, clip, config)

        try:
            items.append({"clip": done - 1, **step(f"clip {clip.digest()[:24]}", compute)})
        except TaskError as error:
            if len(clips) == 1:
                raise
            notify(f"left out: {error}")
        if progress:
            progress(done, len(clips))
    if not items:
        raise TaskError("no recording could be explained: each is longer than the model hears at once.")
    return items


def _item(model: Model, clip: Clip, config: ExplainConfig) -> dict[str, Any]:
    sentence, errors, suspects = explain_clip(model, clip, config)
    found = suspects.words if suspects else ()
    return {
        "path": clip.name, "seconds": clip.duration, "reference": clip.text, "text": sentence.text,
        "words": list(sentence.found.written), "matched": len(sentence.found.matches), "notices": list(clip.notices),
        "errors": [one.to_json() for one in errors], "rows": [summary_row(one) for one in errors],
        "lines": describe_errors(errors), "not_explained": len(sentence.found.errors) - len(errors) if clip.text else 0,
        "suspects": [
            {"word": w.text, "start": w.start, "end": w.end, **w.signals, "flagged_by": ", ".join(w.reasons), "score": w.score}
            for w in found
        ],
        "remark": check_compression(suspects) if suspects else "",
    }  # fmt: skip


def summarise(items: Sequence[dict[str, Any]], clips: Sequence[Clip]) -> dict[str, Any]:
    """Counts and rates over all recordings; intervals over speakers (recordings, where no speaker is known)."""
    metrics: dict[str, Any] = {"recordings": len(items), "wer": None}
    known = [i for i in items if i["reference"]]
    metrics["flagged"] = sum(bool(w["flagged_by"]) for i in items for w in i["suspects"])
    errors = [e for i in known for e in i["errors"]]
    metrics["errors"] = len(errors)
    counts = Counter(e["verdict"]["name"] for e in errors)
    metrics |= {name.replace(" ", "_"): counts[name] for name in VERDICTS}
    metrics["mended"] = float(np.mean([any(r["mends"] for r in e["remedies"]) for e in errors])) if errors else None
    if known:
        scored = score([i["text"] for i in known], [i["reference"] for i in known])
        rows = np.array([[item.errors, item.words] for item in scored.items], dtype=float)
        groups = [clips[i["clip"]].speaker or str(i["clip"]) for i in known]
        metrics["wer"] = bootstrap(rows, ratio_of_sums, groups=groups)
    return metrics


def _lines(items: Sequence[dict[str, Any]], metrics: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for item in items:
        lines += [f"{item['path']}: {item['text']}"]
        for line, error in zip(item["lines"], item["errors"]):
            lines += [f"  {line}", *([f"    {error['advice']}"] if len(items) == 1 else [])]
        flagged = sorted((w for w in item["suspects"] if w["flagged_by"]), key=lambda w: -w["score"])
        lines += [f"  SUSPECT: '{w['word']}' at {w['start']:.2f}-{w['end']:.2f} s ({w['flagged_by']})" for w in flagged]
        if item["remark"]:
            lines.append(f"  SUSPECT: {item['remark']}")
        if item["reference"] and not item["errors"]:
            lines.append("  no errors")
    if metrics["errors"]:
        counts = ", ".join(f"{metrics[name.replace(' ', '_')]} {name}" for name in VERDICTS)
        lines += [
            "",
            f"{metrics['errors']} errors: {counts}; a change that mends it was found for {100 * metrics['mended']:.0f}%",
        ]
    return lines
