"""The report of an audit of corruptions: what to use for which factor, the grid behind it, sounds, and the yardsticks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from otoscope.audio.corruptions import FACTORS
from otoscope.methods.isolation import ENTAILS, ISOLATES, MARGIN
from otoscope.report.blocks import Block, Claims, Figure, Note, Reproduce, Section, Sound, Sounds, Table
from otoscope.report.effects import Bar, effects
from otoscope.report.grid import grid
from otoscope.report.page import Report
from otoscope.runs import Claim, Run
from otoscope.studies.corruption_sounds import Sounds as Gathered
from otoscope.studies.corruption_ways import USES
from otoscope.studies.corruptions import Audited, Found
from otoscope.studies.corruptions_run import advice, headline

#: Effects above this are drawn in one colour: they are changed by any measure.
_LIMIT = 2.0
_SHOWN = ("white_noise", "silence", "splice", "minimal_pair", "voice_swap", "low_pass")


def write_report(run: Run, found: Found, claims: Sequence[Claim], sounds: Gathered) -> Path:
    """Write ``report.html`` and every figure as SVG, PDF and CSV; returns the path of the page."""
    report = Report(
        "Which corruption changes only what it should?",
        headline=headline(found),
        subtitle=f"{found.config.n} sentences per way; sounds: {found.source}; seed {found.config.seed}",
        lead=_grid(found.default(), "effects", "what each way of corrupting did to each factor"),
    )
    report.add(Section("What to use"), Table({"factor": list(FACTORS), "advice": [advice(found, f) for f in FACTORS]}))
    uses = "; ".join(f"{factor}: {why}" for factor, why in USES.items())
    report.add(
        Section(
            "Does each do what it is used for?",
            "Isolation is the effect on the factor that a way is used for (at most 1), times the smallest share of sentences "
            f"in which another factor stayed within {MARGIN:g} natural differences. The bar is {ISOLATES:g}. What people use "
            f"them for: {uses}.",
        ),
        Figure(_isolation(found), "Isolation of the factor that each way is used for", _caption(found)),
        Claims(claims),
    )
    report.add(*_examples(found, sounds))
    report.add(*_declared(found), *_levels(found), *_yardsticks(found))
    report.add(Section("Reproduce"))
    report.add(
        Reproduce(run.info, ["This folder also holds results.json, tables/ (CSV) and figures/ (PDF, SVG, CSV)."])
    )
    report.save(run)
    return run.path / "report.html"


def _caption(found: Found) -> str:
    return (
        f"95% intervals over speakers where there are at least 12, else over sentences; n = {found.config.n} sentences. The "
        "control is a change that nobody hears (white noise 60 dB under the speech)."
    )


def _grid(audited: Sequence[Audited], name: str, title: str) -> Figure:
    # the first row of a grid is at the bottom
    rows = list(reversed(audited))
    values = np.array([[one.cells[f].effect.value for f in FACTORS] for one in rows])
    changed = np.array([[one.cells[f].verdict == "changed" for f in FACTORS] for one in rows])
    drawing = grid(
        name, values, [one.way.label for one in rows], FACTORS, label="effect, natural differences",
        row_label="way", column_label="factor", title=title, significant=changed, limit=_LIMIT,
    )  # fmt: skip
    caption = (
        f"Mean effect on each factor in natural differences: 1 is as far as unrelated utterances by two people lie apart. Hatched "
        f"cells are not shown to have changed by more than {MARGIN:g}; which of these are shown to be kept stands in "
        "tables/isolation.csv. Ways that replace a word are measured within that word."
    )
    return Figure(drawing, "Effects by way and factor", caption)


def _isolation(found: Found) -> Any:
    bars = [
        Bar(
            f"{one.way.name} → {one.way.target}",
            one.scores[one.way.target],
            {"inaudible change": found.null[one.way.scope][one.way.target]},
        )
        for one in sorted(found.default(), key=lambda one: -np.nan_to_num(one.scores[one.way.target].value))
    ]
    return effects("isolation", bars, label="isolation, 0 to 1", title="does it change only what it is used for?")


def _examples(found: Found, sounds: Gathered) -> list[Block]:
    items: list[Sound] = []
    for one in found.default():
        if one.way.name in _SHOWN:
            sample = one.way.make(sounds, 0, found.config.seed)
            name = one.way.name.replace("_", "-")
            items.append(Sound(f"{name}-clean", f"{one.way.name}: clean", sample.clean, span=sample.span))
            items.append(Sound(f"{name}-corrupt", f"{one.way.name}: corrupt", sample.corrupt, span=sample.span))
    return [
        Section("Listen", "The first sentence of some ways; a button plays the word that was changed."),
        Sounds(items),
    ]


def _declared(found: Found) -> list[Block]:
    rows = [(one, factor, declared) for one in found.default() for factor, declared in one.disagreements]
    text = (
        "Each corruption declares what it keeps and breaks. What it declares is about the sound underneath (noise leaves the "
        "words as they were spoken, and the number of samples never changes); what is measured is what is left to be found."
    )
    if not rows:
        return [Section("Declared and measured", text), Note("No declaration is contradicted by the measurement.")]
    table = Table(
        {
            "way": [one.way.name for one, _, _ in rows],
            "declares": [f"{declared} {factor}" for _, factor, declared in rows],
            "measured": [one.cells[factor].verdict for one, factor, _ in rows],
            "effect": [one.cells[factor].effect.value for one, factor, _ in rows],
        },
        "Where the two disagree",
    )
    return [Section("Declared and measured", text), table]


def _levels(found: Found) -> list[Block]:
    other = [one for one in found.audited if one.way.level != "default"]
    if not other:
        return []
    text = f"Milder and stronger settings, on {len(other[0].groups)} sentences each."
    return [Section("Other strengths", text), _grid(other, "levels", "the same ways, milder and stronger")]


def _yardsticks(found: Found) -> list[Block]:
    word, clip = found.rulers["word"], found.rulers["clip"]
    entailed = "; ".join(f"{factor} includes {', '.join(names)}" for factor, names in ENTAILS.items())
    people, rates = found.n_retest_speakers, [_percent(found.eer[scope]) for scope in ("clip", "word")]
    text = (
        f"None of them is the model under study. The recogniser makes {_percent(found.wer.value)} word errors on the clean "
        f"sentences; the speaker yardstick has an equal error rate of {rates[0]} on {people} people that it was not trained "
        f"on, and of {rates[1]} from half a second. A yardstick that is not reliable is marked, and counts neither for nor "
        f"against a corruption. Not counted as a leak: {entailed}."
    )
    known = Table(
        {
            "factor": list(FACTORS),
            "compares": [found.units[f][1] for f in FACTORS],
            "unit": [found.units[f][0] for f in FACTORS],
            "natural difference": [clip[f].natural for f in FACTORS],
            "of a word": [word[f].natural for f in FACTORS],
            "ROC area": [clip[f].auc for f in FACTORS],
            "of a word's": [word[f].auc for f in FACTORS],
            "reliable": [clip[f].reliable for f in FACTORS],
            "on a word": [word[f].reliable for f in FACTORS],
        },
        "Yardsticks",
    )
    planted = Table(
        {
            "changed": [one.check.factor for one in found.checked],
            "strengths": ["; ".join(one.check.strengths) for one in found.checked],
            "effect": [" ".join(f"{np.nanmean(row):.2f}" for row in one.own) for one in found.checked],
            "follows": [one.follows for one in found.checked],
            "also moved": [", ".join(one.strays) or "none" for one in found.checked],
        },
        "Planted changes: each yardstick must follow its own factor, and no other may move",
    )
    return [Section("The yardsticks", text), known, planted]


def _percent(share: float) -> str:
    return "an unknown share" if np.isnan(share) else f"{100 * share:.0f}%"
