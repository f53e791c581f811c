"""How often is the verdict right? Errors whose reason is known, planted into real sentences, and explained blindly.

For every sentence of a half of the speakers that the model writes rightly at a few content words, each of these words is
made to go wrong in one or two acoustic and two prior ways (:mod:`otoscope.tasks.planted_errors`). What is explained knows
the sound, the model and the reference, and nothing of the plant. Two of three acoustic plants have a harmless text before
the sentence, so that its being there gives nothing away.

    verdict.acoustic, verdict.prior   share of planted errors with the right verdict (heard wrong, guessed)
    verdict.correct                   share of words that are right, in all sentences that were heard, for which no error is
                                      reported and the model's own measure holds none: the margin of the strongest rival is
                                      below 0. Words whose sound or text was treated alike, to no effect, are among them.
    span_iou                          median intersection over union of the planted span and the found one

Thresholds come from the development half; intervals resample speakers.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from otoscope.audio.align import align
from otoscope.audio.clip import Clip
from otoscope.engine.model import Model, load
from otoscope.errors import AudioError, TaskError
from otoscope.methods.error_evidence import prompt_tokens
from otoscope.methods.error_verdict import RULE
from otoscope.models.asr_errors import WordError
from otoscope.runs import Claim, Run, Threshold
from otoscope.stats import Interval, bootstrap, ratio_of_sums
from otoscope.studies.explain import ExplainConfig, explain_error
from otoscope.studies.explain_workers import Asked, sentence_workers
from otoscope.studies.outcome import Step, compute_now, without_run, write_tables
from otoscope.tasks.corpora.librispeech import recordings
from otoscope.tasks.planted_errors import ACOUSTIC, PRIOR, How, PlantedError, Sentence, hear, plant

Half = Literal["development", "test"]
Notify = Callable[[str], None]

#: words of a sentence that are spoilt
PER_SENTENCE = 3
#: sentences that words are taken from for "another word in its place"
N_DONORS = 3
LONGEST = 20.0
BARS = {"verdict.acoustic": 0.9, "verdict.prior": 0.9, "verdict.correct": 0.95, "span_iou": 0.5}
_RIGHT = {"acoustic": "heard wrong", "prior": "guessed"}
_WHAT = {
    "verdict.acoustic": "An error from a spoilt sound is called heard wrong",
    "verdict.prior": "An error over clean sound, from a text or a bias that misleads, is called guessed",
    "verdict.correct": "Of a word that is right, no error is reported",
    "span_iou": "The found span covers the planted one (median intersection over union)",
}


@dataclass(frozen=True)
class Measured:
    """What the measurement gives back: the results object, lines for a person, one row per plant, the report's path."""

    results: dict[str, Any]
    lines: list[str]
    rows: list[dict[str, Any]]
    report: Path | None


def halves(speakers: Sequence[str]) -> dict[str, Half]:
    """Which half each speaker belongs to: every other one of their sorted names develops, the others test."""
    return {name: ("development", "test")[i % 2] for i, name in enumerate(sorted(set(speakers)))}  # type: ignore[misc]


def explain_planted(
    data: Path,
    model: str | Model = "whisper-tiny.en",
    *,
    n: int = 150,
    half: Half = "test",
    seed: int = 0,
    workers: int = 1,
    out: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    notify: Notify = lambda _: None,
    **loading: Any,
) -> Measured:
    """Plant errors and count the right verdicts.

    Args:
        data: a folder of sentences with texts and speakers, as LibriSpeech's, or one with a ``manifest.tsv``.
        model: a Whisper: name, path, or loaded.
        n: stop once there are so many acoustic and so many prior errors; fewer, where the sentences do not give them.
        half: whose sentences.
        seed: of every draw.
        workers: processes; more than one need a model that loads by its name.
        out: directory for the run; a run that was stopped goes on from there.
        progress: called with errors found and wanted.
        notify: told what is being done.
        loading: device, dtype, revision, offline.

    Raises:
        TaskError: the folder holds no sentences, or no error could be planted.
    """
    known = [r for r in recordings(data) if r.text]
    belongs = halves([r.unit for r in known])
    own = sorted((r for r in known if belongs[r.unit] == half), key=lambda r: zlib.crc32(r.name.encode()))
    loaded = model if isinstance(model, Model) else load(model, progress=notify, **loading)
    # n is no part of it: a run may be gone on with for more errors
    asked = {
        "model": loaded.name, "dtype": str(loaded.adapter.dtype), "half": half, "rule": asdict(RULE),
        "sentences": [r.name for r in own], "per_sentence": PER_SENTENCE,
    }  # fmt: skip
    with nullcontext() if out is None else Run(out, "explain", asked, seeds={"seed": seed}) as run:
        if run:
            run.record_weights(loaded.name, loaded.weights_hash())
        step: Step = run.step if run else compute_now
        notify(f"planting errors into sentences of {len({r.unit for r in own})} speakers ({half} half)")
        rows: list[dict[str, Any]] = []
        words: list[dict[str, Any]] = []

        def ask(i: int) -> Asked:
            return own[i].clip(), [own[(i + k) % len(own)].clip() for k in range(1, N_DONORS + 1)], i, seed

        with sentence_workers(sentence_rows, loaded, loading, workers, ask, len(own)) as compute:
            for i, recording in enumerate(own):
                found = step(f"sentence {recording.name}", partial(compute, i))
                rows += found["plants"]
                words += found["words"]
                counts = {kind: sum(r["kind"] == kind and r["changed"] for r in rows) for kind in _RIGHT}
                if progress:
                    progress(min(min(counts.values()), n), n)
                if min(counts.values()) >= n:
                    break
        if not any(r["changed"] for r in rows):
            raise TaskError(
                f"no error could be planted into the {len(own)} sentences of {data} ({half} half): {loaded.name} writes none "
                "of their words rightly, or they are too few."
            )
        metrics, claims = judge_rows(rows, words)
        lines = _lines(rows, metrics, half)
        if run is None:
            return Measured(without_run("explain", metrics, claims), lines, rows, None)
        write_tables(run, {"plants": rows, "words": words})
        results = run.finish(metrics, claims=claims)
        from otoscope.studies.explain_planted_report import write_report

        report = write_report(run, loaded.name, rows, claims, lines)
    return Measured(results, lines, rows, report)


def sentence_rows(model: Model, clip: Clip, nearby: Sequence[Clip], index: int, seed: int) -> dict[str, Any]:
    """Plant into one sentence and explain what comes of it: rows of plants, and of words that are right."""
    clip, donors = _aligned(clip), [d for d in map(_aligned, nearby) if d is not None]
    if clip is None or clip.duration > LONGEST:
        return {"plants": [], "words": []}
    healthy = hear(model, clip)
    draw = np.random.default_rng([seed, zlib.crc32(clip.name.encode())])
    places = [int(w) for w in draw.permutation(healthy.usable())[:PER_SENTENCE]]
    plants, words = [], [_right_words(model, healthy, "none", None)]
    for k, word in enumerate(places):
        # acoustic plants succeed more often than prior ones, so every other word gets one of them instead of two
        ways: list[How] = [ACOUSTIC[(index + 2 * k + j) % len(ACOUSTIC)] for j in range(2 - k % 2)]
        for j, how in enumerate((*ways, *PRIOR)):
            harmless = donors[0].text.capitalize() + "." if (j + k) % 2 and donors and donors[0].text else ""
            planted = plant(
                model, healthy, word, how, donors=donors, context=harmless if how in ACOUSTIC else "", seed=seed
            )
            if planted is None:
                continue
            with planted.in_force(model):
                plants.append(_plant_row(model, planted))
                words.append(_right_words(model, planted.sentence, how, None if planted.changed else word))
    return {"plants": plants, "words": words}


def _aligned(clip: Clip) -> Any:
    """The clip with word times; None where its text cannot be aligned."""
    try:
        return align(clip)
    except AudioError:
        return None


def _plant_row(model: Model, planted: PlantedError) -> dict[str, Any]:
    sentence, word = planted.sentence, planted.word
    kind = "prior" if planted.prior else "acoustic"
    row: dict[str, Any] = {
        "name": planted.name, "speaker": sentence.clip.speaker or "", "kind": kind, "how": planted.how,
        "context": bool(sentence.context), "changed": planted.changed, "said": sentence.found.said[word],
        "other": planted.other, "written": "", "verdict": "no error", "right": None, "iou": float("nan"),
        "start": planted.span[0], "end": planted.span[1], "found_start": float("nan"), "found_end": float("nan"),
        "evidence": None,
    }  # fmt: skip
    if not planted.changed:
        return row
    error = _error_at(sentence, word)
    explained = explain_error(model, sentence, error, ExplainConfig(details=False))
    row |= {"verdict": explained.verdict.name, "written": " ".join(error.written),
            "right": explained.verdict.name == _RIGHT[kind]}  # fmt: skip
    if explained.evidence is not None:
        found = explained.evidence.span
        row |= {"found_start": found[0], "found_end": found[1], "iou": iou(planted.span, found),
                "evidence": explained.evidence.to_json()}  # fmt: skip
    return row


def _error_at(sentence: Sentence, word: int) -> WordError:
    return next(e for e in sentence.found.errors if e.said_at[0] <= word < max(e.said_at[1], 1))


def iou(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Intersection over union of two spans."""
    both = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    return both / (a[1] - a[0] + b[1] - b[0] - both)


@torch.no_grad()
def _right_words(model: Model, sentence: Sentence, how: str, treated: int | None) -> dict[str, Any]:
    """How many words that are right are left alone; ``treated`` is one that was treated to no effect."""
    prompt = prompt_tokens(model, sentence.context)
    logits = sentence.writer.logits([*prompt, *sentence.tokens], len(prompt) - 1)
    firsts = np.cumsum([0, *(len(w) for w in sentence.words)])
    reported = {i for e in sentence.found.errors for i in range(*e.said_at)}
    held = 0
    for said, written in sentence.found.matches:
        at, own = int(firsts[written]), sentence.words[written][0]
        rivals = logits[at].clone()
        rivals[own] = -torch.inf
        held += said not in reported and float(rivals.max() - logits[at, own]) < RULE.mended
    return {
        "speaker": sentence.clip.speaker or "", "name": sentence.clip.name, "how": how, "right": len(sentence.found.matches),
        "no_error": held, "treated": -1 if treated is None else treated,
    }  # fmt: skip


def judge_rows(
    rows: Sequence[dict[str, Any]], words: Sequence[dict[str, Any]]
) -> tuple[dict[str, Interval | float | int | None], list[Claim]]:
    """Metrics and claims of the measurement."""
    made = [r for r in rows if r["changed"]]
    metrics: dict[str, Any] = {}
    for kind in _RIGHT:
        own = [r for r in made if r["kind"] == kind]
        metrics[f"verdict.{kind}"] = _share([r["right"] for r in own], [r["speaker"] for r in own])
        metrics[f"n.{kind}"] = len(own)
        for how in sorted({r["how"] for r in own}):
            metrics[f"verdict.{kind}.{how}"] = float(np.mean([r["right"] for r in own if r["how"] == how]))
    counts = np.array([[w["no_error"], w["right"]] for w in words], dtype=float)
    metrics["verdict.correct"] = bootstrap(counts, ratio_of_sums, groups=[w["speaker"] for w in words])
    metrics["n.correct"] = int(counts[:, 1].sum())
    placed = [r for r in made if not np.isnan(r["iou"])]
    metrics["span_iou"] = bootstrap(
        np.array([r["iou"] for r in placed]), np.median, groups=[r["speaker"] for r in placed]
    )
    for kind in _RIGHT:
        metrics[f"span_iou.{kind}"] = float(np.median([r["iou"] for r in placed if r["kind"] == kind] or [np.nan]))
    claims = [Claim.of(name, _WHAT[name], Threshold(">=", bar), metrics[name]) for name, bar in BARS.items()]
    return metrics, claims


def _share(right: Sequence[bool], speakers: Sequence[str]) -> Interval | None:
    if not right:
        return None
    return bootstrap(np.array([[float(r), 1.0] for r in right]), ratio_of_sums, groups=speakers)


def _lines(rows: Sequence[dict[str, Any]], metrics: dict[str, Any], half: Half) -> list[str]:
    made = [r for r in rows if r["changed"]]
    lines = [f"{len(made)} planted errors in sentences of the {half} half; thresholds come from the development half."]
    for name, bar in BARS.items():
        m = metrics[name]
        ends = "" if m is None or np.isnan(m.low) else f" [{m.low:.3f}, {m.high:.3f}]"
        lines.append(f"{name}: {'none' if m is None else format(m.value, '.3f')}{ends} (bar {bar})")
    for kind in _RIGHT:
        verdicts = [r["verdict"] for r in made if r["kind"] == kind]
        counts = {v: verdicts.count(v) for v in dict.fromkeys(verdicts)}
        lines.append(f"{kind}: " + ", ".join(f"{n} {v}" for v, n in counts.items()))
    return lines
