"""The report of a fix: what is left of the invented words, the frontier of every intervention, sounds to listen to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from otoscope.report.blocks import Block, Claims, Figure, Note, Reproduce, Section, Sound, Table
from otoscope.report.effects import Bar, effects
from otoscope.report.page import Report
from otoscope.report.scatter import Point, scatter
from otoscope.runs import Claim, Run
from otoscope.stats import Interval
from otoscope.studies.fix import MOST_WER, Fixed
from otoscope.studies.fix_run import headline
from otoscope.studies.fix_trial import Tried
from otoscope.tasks.no_speech import PARTS

#: rise of WER beyond which an intervention is not drawn, so that the others can be told apart
FAR = 0.1
_NAMES = {"none": "as it is", "heads": "heads damped", "direction": "direction added", "neuron": "one neuron more"}


def write_report(run: Run, found: Fixed, claims: Sequence[Claim]) -> Path:
    """Write ``report.html`` and every figure as SVG, PDF and CSV; returns the path of the page."""
    report = Report(
        f"Can {found.model} be kept from writing words where nobody speaks?",
        headline=headline(found),
        subtitle="; ".join(
            f"{part} part: {sum(not s.said for s in found.parts[part])} sounds without speech, "
            f"{sum(s.said for s in found.parts[part])} with"
            for part in PARTS
        ),
        lead=_before_and_after(found),
    )
    if found.fix is None:
        report.add(
            Note("No intervention held the bar on WER and lowered the invented words, so there is no fix to take.")
        )
    report.add(Section("Claims", "Thresholds stand in the code and were set before the run."), Claims(claims))
    report.add(
        Section(
            "Frontier",
            "Every intervention at every strength, on the part of the data on which one is chosen. To the left is less "
            "invented, lower is less harm to speech. Crosses are 95% intervals. Controls: random heads, a random direction of "
            "the same norm, a probe of shuffled labels.",
        ),
        _frontier(found),
        _table(found.chosen),
    )
    report.add(
        Section(
            "Report",
            "On sounds and speakers that neither the search nor the choice has heard. With words: share of sounds without "
            "speech whose transcript holds a letter or digit; after the rule: those that Whisper's own no-speech rule leaves. "
            "Silenced: short pieces of speech that had words and have none.",
        ),
        _table(found.reported),
    )
    report.add(
        Section("By kind of sound"),
        Table(
            {
                "kind": list(found.by_kind), "sounds": [n for n, _, _ in found.by_kind.values()],
                "with words before": [x for _, x, _ in found.by_kind.values()],
                "with words after": [y for _, _, y in found.by_kind.values()],
            }
        ),
    )  # fmt: skip
    report.add(*_signals(found), *_heads(found), *_examples(found))
    if found.fix:
        report.add(
            Section("Take it with you", "fix.json and fix.safetensors in this folder, on a plain transformers model:"),
            Note('import otoscope; otoscope.apply(pipe, "this folder"). What it returns takes the fix off: .remove().'),
        )
    report.add(Section("Reproduce"))
    report.add(
        Reproduce(run.info, ["This folder also holds results.json, tables/ (CSV) and figures/ (PDF, SVG, CSV)."])
    )
    report.save(run)
    return run.path / "report.html"


def _label(one: Tried) -> str:
    """The intervention's name; a threshold of minus nothing is nothing."""
    return f"{_NAMES[one.family]}{' (control)' if one.control else ''}" + (
        "" if one.family == "none" else f", {one.strength + 0.0:g}"
    )


def shown(value: Interval, digits: int = 1) -> str:
    """A share with its interval, for reading."""
    if np.isnan(value.value):
        return "–"
    bounds = "" if np.isnan(value.low) else f" [{value.low:.{digits}%}, {value.high:.{digits}%}]"
    return f"{value.value:.{digits}%}{bounds}"


def _before_and_after(found: Fixed) -> Figure:
    bars = [Bar(f"{_NAMES[t.family]}{' (control)' if t.control else ''}", t.invented) for t in found.reported]
    caption = (
        "Sounds of the report's part in which nobody speaks, share whose transcript has words, with 95% intervals."
    )
    return Figure(effects("invented", bars, label="share with words"), "Words where nobody speaks", caption)


def _frontier(found: Fixed) -> Figure:
    plain = found.chosen[0]
    tried = [t for t in found.chosen[1:] if not t.control]
    drawn = [t for t in tried if t.wer.value <= plain.wer.value + FAR] or tried
    points = [
        Point(_label(t), _NAMES[t.family], t.invented, t.wer)
        for family in _NAMES
        for t in drawn
        if t.family == family
    ]  # fmt: skip
    drawing = scatter(
        "frontier", points, x_label="share of sounds without speech that have words", y_label="word error rate of speech",
        title="what is gained and what it costs",
    )  # fmt: skip
    left = f" Not drawn: {len(tried) - len(drawn)} with a far higher WER." if len(drawn) < len(tried) else ""
    caption = (
        f"The model as it is: {plain.invented.value:.0%} with words, WER {plain.wer.value:.2%}. A fix may cost "
        f"{100 * MOST_WER:g} points of WER.{left}"
    )
    return Figure(drawing, "Frontier", caption)


def _table(rows: Sequence[Tried]) -> Table:
    ruled = any(t.after_rule.n for t in rows)  # the choosing part does not compute it
    return Table(
        {
            "intervention": [_label(t) for t in rows],
            "with words": [shown(t.invented) for t in rows],
            **({"after the rule": [shown(t.after_rule) for t in rows]} if ruled else {}),
            "WER": [shown(t.wer, 2) for t in rows],
            "rise of WER": [shown(t.wer_rise, 2) for t in rows],
            "WER in noise": [shown(t.noisy_wer, 2) for t in rows],
            "silenced": [shown(t.silenced) for t in rows],
        }
    )


def _signals(found: Fixed) -> list[Block]:
    text = (
        "How well each signal tells, at the start of the text, sounds without speech from speech of the report's part: area "
        "under the ROC curve, 0.5 by chance. Probes were fitted on the search part. The no-speech probability is Whisper's own."
    )
    return [
        Section("Which signals know that nobody speaks?", text),
        Table({"signal": list(found.auc), "AUC": [f"{v:.3f}" for v in found.auc.values()]}),
    ]


def _heads(found: Fixed) -> list[Block]:
    ranked = sorted(found.effects.items(), key=lambda e: -e[1])[:12]
    if not ranked:
        return []
    text = (
        "How much the margin of the end token at the start grows when a head is silenced, on sounds without speech less on "
        "speech (logits); the twelve largest."
    )
    table = Table(
        {"site": [site for (site, _), _ in ranked], "head": [head for (_, head), _ in ranked],
         "effect": [effect for _, effect in ranked]}
    )  # fmt: skip
    return [Section("Which heads bring the words?", text), table]


def _examples(found: Fixed) -> list[Block]:
    made: list[Block] = [Section("Listen", "What is written before and with the fix.")] if found.examples else []
    for i, (sound, before, after) in enumerate(found.examples):
        text = f"before: {before or '(nothing)'}  |  with the fix: {after or '(nothing)'}"
        made.append(Sound(f"example-{i}", sound.kind, sound.clip, text))
    return made
