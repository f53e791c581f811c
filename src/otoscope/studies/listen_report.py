"""The report of a listening run: the answer and its curve first, then what one can hear, and how far to trust it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from otoscope.methods.alignment_search import Alignment
from otoscope.report.blocks import Block, Claims, Figure, Note, Reproduce, Section, Sound, Sounds, Table
from otoscope.report.effects import Bar, effects
from otoscope.report.lens import Line, lens
from otoscope.report.page import Report
from otoscope.runs import Claim, Run
from otoscope.stats import Interval
from otoscope.studies.listen import Found
from otoscope.studies.listen_check import BARS

_ROLES: dict[str, Literal["answer", "foil", "other"]] = {"listener": "answer", "guesser": "foil"}
#: heads shown; all are in tables/heads.csv
_HEADS = 12
_UNITS = "speakers where there are at least 12, items otherwise"


def write_report(
    run: Run, found: Found, claims: Sequence[Claim], tested: Mapping[str, Interval], headline: str
) -> Path:
    """Write ``report.html`` and every figure as SVG, PDF and CSV; returns the path of the page."""
    n = len(found.task)
    report = Report(
        f"Does {found.model} listen, or does it guess?",
        headline=headline,
        subtitle=f"{n} items of {found.task.name}: the sound says one word, the text around it another; {found.task.licence}",
        lead=_curve(found),
    )
    report.add(Section("Claims", "Thresholds stand in the code and were set before the run."), Claims(claims))
    report.add(*_example(found))
    report.add(Section("What they answer", "Shares of items, with 95% intervals."), _behaviour(found))
    report.add(*_flips(found))
    if found.dial is not None:
        report.add(*_dial(found))
    if found.das is not None:
        report.add(*_das(found))
    if found.heads is not None:
        report.add(*_heads(found))
    if found.lens is not None:
        report.add(*_audio_lens(found))
    if tested:
        report.add(*_check(tested))
    if found.refused:
        report.add(
            Section("Left out"), Table({"item": [r.id for r in found.refused], "why": [r.why for r in found.refused]})
        )
    report.add(Section("Reproduce"))
    report.add(
        Reproduce(run.info, ["This folder also holds results.json, tables/ (CSV) and figures/ (PDF, SVG, CSV)."])
    )
    report.save(run)
    return run.path / "report.html"


def _layers(found: Found) -> list[str]:
    return [str(k) for k in range(next(iter(found.settings.values())).grounding.n_layers)]


def _role(name: str, index: int) -> Literal["answer", "foil", "other"]:
    return _ROLES.get(name, "other" if index or name == "plain" else "answer")


def _curve(found: Found) -> Figure:
    lines = []
    for i, (name, setting) in enumerate(found.settings.items()):
        curve = setting.grounding.curve("denoise")
        lines.append(
            Line(
                name,
                np.clip(curve.gc, -0.2, 1.2),
                _role(name, i),
                np.clip(curve.low, -0.2, 1.2),
                np.clip(curve.high, -0.2, 1.2),
            )
        )
    passed = found.settings[found.main].layer
    layer = None if passed is None else passed.layer
    marks = {} if layer is None else {f"listen layer of the {found.main}": round(layer.value)}
    drawing = lens(
        "grounding", lines, _layers(found), label="gc: 1 listens, 0 guesses", title="grounding coefficient by decoder layer",
        marks=marks, layer_label="decoder layer whose states are exchanged",
    )  # fmt: skip
    curve = found.settings[found.main].grounding.curve("denoise")
    caption = (
        "At each layer, the states at the sound's positions (or at the context's) are exchanged for those of a run whose sound "
        "(or context) says the other label; gc is the sound's share of the two effects on the answer. Bands are 95% intervals "
        f"over {curve.n_units} units ({_UNITS}). A gap means that neither moves the answer beyond noise there."
    )
    return Figure(drawing, "How much of the answer comes from the sound", caption)


def _example(found: Found) -> list[Block]:
    item = found.task.items[0]
    text = f"The sound says “{item.sound_label}”. The text says: {item.contexts['conflicting']} The question: {item.question}"
    answers = {
        name: s.answers.choices[("clean", "conflicting")][0] or "something else" for name, s in found.settings.items()
    }
    sounds = [Sound("clean", f"says {item.sound_label}", item.clips["clean"])]
    if "counterfactual" in item.clips:
        sounds.append(Sound("counterfactual", f"counterfactual: says {item.text_label}", item.clips["counterfactual"]))
    return [
        Section("One item", text),
        Sounds(sounds),
        Table({"model": list(answers), "answers": list(answers.values())}),
    ]


def _behaviour(found: Found) -> Table:
    measures = (
        ("listen rate", "listen_rate"), ("guess rate", "guess_rate"), ("other", "other_rate"),
        ("text dominance", "text_dominance"), ("audio contribution", "audio_contribution"),
        ("follows the sound, beyond chance", "following.sound"), ("follows the text, beyond chance", "following.text"),
        ("right without a context", "accuracy.clean.neutral"),
    )  # fmt: skip
    columns: dict[str, list[Any]] = {"measure": [words for words, _ in measures]}
    for name, setting in found.settings.items():
        values = setting.behaviour.table()
        columns[name] = [_with_interval(values.get(key)) for _, key in measures]
    return Table(columns)


def _with_interval(value: Interval | None) -> str:
    if value is None or np.isnan(value.value):
        return "–"
    return f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}]"


def _flips(found: Found) -> list[Block]:
    setting = found.settings[found.main]
    layer = setting.layer
    assert layer is not None
    rates = layer.flips
    lines = [
        Line(
            "the other sound's states",
            np.array([r.value for r in rates]),
            "answer",
            np.array([r.low for r in rates]),
            np.array([r.high for r in rates]),
        )
    ]
    lines += [
        Line(f"control: {name}", np.array([r.value for r in shares]), "other")
        for name, shares in layer.controls.items()
    ]
    low, high = layer.band
    marks = {} if layer.layer is None else {"listen layer": round(layer.layer.value)}
    drawing = lens(
        "flips", lines, _layers(found), label="share of answers that follow", title="exchange at the sound's positions",
        marks=marks, layer_label="decoder layer whose states are exchanged",
    )  # fmt: skip
    where = (
        layer.reason.capitalize() + "." if layer.layer is None
        else f"The causal role passes from the sound's positions to the later ones at layer {layer.layer.value:.1f} "
        f"[{layer.layer.low:.1f}, {layer.layer.high:.1f}]. "
    )  # fmt: skip
    ends = [
        "" if low is None else f"Up to layer {low} at least 90% of the answers follow the exchanged sound",
        "" if high is None else f"from layer {high} on at most 10%",
    ]
    text = where + "; ".join(e for e in ends if e) + ("." if any(ends) else "")
    caption = f"Exact 95% intervals over {rates[0].n} items. Chance is {100 * layer.chance:.0f}%."
    return [Section(f"Where the {found.main} stops listening", text), Figure(drawing, "Flips of the answer", caption)]


def _dial(found: Found) -> list[Block]:
    assert found.dial is not None
    truth = found.dial

    def line(words: str, values: list[Interval], role: Literal["answer", "foil", "other"]) -> Line:
        ends = [np.array([getattr(v, end) for v in values]) for end in ("value", "low", "high")]
        return Line(words, ends[0], role, ends[1], ends[2])

    drawing = lens(
        "dial", [line("listen rate (what it does)", truth.listen_rate, "other"), line("gc (what is measured)", truth.gc, "answer")],
        [f"{share:g}" for share in truth.shares], label="share", title="the planted truth",
        layer_label="listener's share of the mixture (the rest is guesser)",
    )  # fmt: skip
    text = (
        f"Mixtures of the two adapters have a behaviour that is known. gc orders the {len(truth.shares)} settings as they behave "
        f"with a Spearman correlation of {_with_interval(truth.rho)}; it differs from the listen rate by "
        f"{_with_interval(truth.calibration)} on average (calibration error)."
    )
    caption = "Bands are 95% intervals over items; gc is the summary at layer 0."
    return [Section("Against a known truth", text), Figure(drawing, "From guesser to listener", caption)]


def _das(found: Found) -> list[Block]:
    assert found.das is not None
    first, setting = next(iter(found.settings.items()))
    layers = list(found.das.layers)
    learned = found.das.curve()
    patched = setting.grounding.curve("denoise")
    lines = [
        Line("learned subspace", learned.gc, "answer", learned.low, learned.high),
        Line("whole states", patched.gc[layers], "other", patched.low[layers], patched.high[layers]),
    ]
    drawing = lens(
        "das", lines, [str(k) for k in layers], label="gc: 1 listens, 0 guesses", title=f"two estimators, {first}",
        layer_label="decoder layer",
    )  # fmt: skip
    rho = found.das.agreement(setting.grounding).rho
    columns: dict[str, list[Any]] = {"layer": layers}
    for name in found.das.hits:
        side, kind = name.split("/")
        columns[f"{side}, {kind}"] = [_with_interval(v) for v in found.das.iia(side, kind)]  # type: ignore[arg-type]
    text = (
        f"Distributed alignment search learns {found.das.training.rank} directions whose exchange carries the label over, from "
        f"{found.das.n_train} pairs, and is tested on {len(found.das.units)} others. The Spearman correlation of the two "
        f"estimators over layers is {_with_interval(rho)}."
    )
    return [
        Section("A second estimator", text),
        Figure(drawing, "gc by learned subspaces", "Bands are 95% intervals over units of the held-out pairs."),
        Table(columns, "Interchange accuracy on held-out pairs"),
        *([] if found.das_nulls is None else [_das_nulls(found.das_nulls)]),
    ]


def _das_nulls(nulls: Alignment) -> Table:
    columns: dict[str, list[Any]] = {"layer": list(nulls.layers)}
    for name in nulls.hits:
        side, kind = name.split("/")
        if kind != "learned":
            columns[f"{side}, {kind}"] = [_with_interval(v) for v in nulls.iia(side, kind)]  # type: ignore[arg-type]
    return Table(columns, "Controls: the same search with random labels, and on untrained weights")


def _heads(found: Found) -> list[Block]:
    assert found.heads is not None
    rows = found.heads.table()[:_HEADS]
    n = len(found.heads.values)
    bars = [Bar(f"layer {r['layer']}, head {r['head']}", Interval(r["effect"], r["low"], r["high"], n)) for r in rows]
    drawing = effects(
        "heads", bars, label="effect on log p(sound's label) − log p(text's label)", title="heads at the answer"
    )
    sure = sum(r["p"] <= 0.05 for r in found.heads.table())
    text = (
        f"The output of one head at the answer is exchanged for that of the other sound's run. {sure} heads have an effect beyond "
        "chance (family-wise sign-flip test, 5%)."
    )
    return [
        Section(f"Heads that carry the sound, {found.main}", text),
        Figure(drawing, "The strongest heads", "All: tables/heads.csv."),
    ]


def _audio_lens(found: Found) -> list[Block]:
    assert found.lens is not None
    first = next(iter(found.settings))
    heard, silent = (found.lens.information(run) for run in ("heard", "silent"))
    lines = [
        Line("with the sound", heard[:, 0], "answer", heard[:, 1], heard[:, 2]),
        Line("control: silence in its place", silent[:, 0], "other", silent[:, 1], silent[:, 2]),
    ]
    critical = found.lens.critical_layer()
    marks = {} if critical is None else {"critical layer": round(critical.value)}
    drawing = lens(
        "audio-lens", lines, _layers(found), label="information score", title=f"what the logit lens reads, {first}",
        marks=marks, layer_label="decoder layer",
    )  # fmt: skip
    text = (
        "No layer reads the label above chance."
        if critical is None
        else f"The critical layer, the mean of the layers that read the label, is {_with_interval(critical)}."
    )
    chance = f"Chance is {found.lens.chance.mean():.0%}."
    caption = f"Share of items whose label is the likeliest option at each layer, without a context. {chance}"
    return [Section("AudioLens", text), Figure(drawing, "From which layer on the label can be read", caption)]


def _check(tested: Mapping[str, Interval]) -> list[Block]:
    names = [name.removeprefix("accuracy.") for name in tested]
    rows = {
        "recordings of": names,
        "exact answers": [_with_interval(v) for v in tested.values()],
        "bar": [f"≥ {BARS[name]:.0%}" for name in names],
        "speakers or recordings": [v.n for v in tested.values()],
    }
    return [
        Section(
            "Does it hear?",
            "Neutral questions about recordings of people, and of a fold of sounds, that it was never trained on.",
        ),
        Table(rows),
        Note("The plain model, greedy answers, exact match. Intervals resample speakers.", "info"),
    ]
