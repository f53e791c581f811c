"""The report of the recipe that asks whether a temporal loss helps: the answer, claims, one table per layer, controls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from otoscope.report.blocks import Block, Claims, Figure, Note, Reproduce, Section, Table
from otoscope.report.effects import Bar, effects
from otoscope.report.page import Report
from otoscope.runs import Claim, Run
from otoscope.sae.measures.compare import pooled
from otoscope.sae.measures.probing import mean_balanced_accuracy
from otoscope.stats import Interval
from otoscope.studies.sae_paper import COLUMNS, Found, best, headline, lagged, short, table

#: columns of the two tables of a layer
_WORTH = ("FVU", "FVU of speech", "FVU of sounds", "L0", "dead", "TCS", "phone purity", "overlap", "stability")
_TELLS = (
    "phone, 1 feature", "phone, 5", "manner, 1", "speaker, 1", "speaker, 5", "sex, 1", "sound, 1", "high overlap",
    "high phone, 1", "high speaker, 1",
)  # fmt: skip


def write_report(run: Run, found: Found, made: Sequence[Claim]) -> Path:
    """Write ``report.html`` and the figures; returns the path of the page."""
    config = found.config
    report = Report(
        "Does a temporal loss help dictionaries of sound?",
        headline=headline(found, made),
        subtitle=f"{found.about['trainings']} dictionaries of {config.width} features on {found.model}, "
        f"{config.k} active per frame, {config.seeds} trainings of each kind",
        lead=_probes(found, config.layers[-1]),
    )
    report.add(
        Section(
            "Claims", "Thresholds stand in the code and were set before the run. Intervals: recordings and trainings."
        ),
        Claims(made),
    )
    for layer in config.layers:
        report.add(*_layer(found, layer))
    report.add(*_lags(found), *_nulls(found), *_material(found))
    report.add(
        Section("Reproduce"),
        Reproduce(
            run.info,
            ["This folder also holds results.json, tables/ (CSV), figures/, the activations and every dictionary."],
        ),
    )
    report.save(run)
    return run.path / "report.html"


def _probes(found: Found, layer: str) -> Figure:
    bars = [Bar(v.label, _beyond_chance(found.probe(layer, v.name, "phone.k1"))) for v in found.variants(layer)]
    drawing = effects(
        f"phones-{short(layer).replace('.', '-')}", bars, label="balanced accuracy beyond chance (0.5), one feature per phone",
        title=f"which phone is said, {short(layer)}",
    )  # fmt: skip
    caption = (
        "For each phone the one feature whose mean differs most, on speakers that the probe never heard. All kinds have as many "
        "active features; the last ones average codes over three frames, which costs no training."
    )
    return Figure(drawing, f"How well single features tell phones at {short(layer)}", caption)


def _beyond_chance(interval: Interval) -> Interval:
    return interval._replace(value=interval.value - 0.5, low=interval.low - 0.5, high=interval.high - 0.5)


def _layer(found: Found, layer: str) -> list[Block]:
    at = short(layer)
    rows = [row for row in table(found) if row["layer"] == at]
    kinds = [row["dictionary"] for row in rows]

    def columns(names: Sequence[str]) -> dict[str, list[Any]]:
        shown = {name: [row[name] for row in rows] for name in names}
        return {"dictionary": kinds, **{n: v for n, v in shown.items() if not np.isnan(np.asarray(v, float)).all()}}

    text = (
        "Means over trainings, held-out recordings. FVU over all of them, L0, TCS, purity and overlap over sentences. Overlap: "
        "share of active features that are active in the next frame too. High: the first fifth of the features, of the kinds "
        "whose features are ordered. Probes: balanced accuracy, chance 0.5."
    )
    made: list[Block] = [Section(at, text), Table(columns(_WORTH), "What the codes are worth"),
                         Table(columns(_TELLS), "What single features tell")]  # fmt: skip
    if layer != found.config.layers[-1]:
        made.append(_probes(found, layer))
    wrong = sorted({n for n in COLUMNS.values() if found.trust.get(n) == "unreliable"})
    if wrong:
        made.append(
            Note(f"Ranked planted dictionaries wrongly, so they decide nothing: {', '.join(wrong)}.", "warning")
        )
    chosen = dict(best(found))[layer]
    made.append(Note(f"With an FVU near the least, {chosen} tells phones best; its first training is the one to use."))
    return made


def _lags(found: Found) -> list[Block]:
    layer = found.config.layers[0]
    swept = [(20.0, "temporal"), *((ms, lagged(ms).name) for ms in found.config.lags_ms)]
    rows = {
        "lag, ms": [ms for ms, _ in swept],
        "phone, 1 feature": [found.mean(layer, name, "probe.phone.k1") for _, name in swept],
        "speaker, 1": [found.mean(layer, name, "probe.speaker.k1") for _, name in swept],
        "high overlap": [found.mean(layer, name, "high.overlap") for _, name in swept],
        "overlap": [found.mean(layer, name, "overlap") for _, name in swept],
        "FVU": [found.mean(layer, name, "fvu") for _, name in swept],
    }
    text = (
        "Frames further apart share less sound. If the loss helped only because neighbours overlap, a longer lag would "
        "help less."
    )
    return [Section("Further lags", text), Table(rows, f"Lag of the temporal loss at {short(layer)}")]


def _nulls(found: Found) -> list[Block]:
    bars = [
        Bar(
            f"{short(layer)}, phones shuffled",
            _beyond_chance(found.probe(layer, "temporal", "shuffled.k1")),
        )
        for layer in found.config.layers
    ]
    for name, one in found.fresh.items():
        probe = pooled([np.asarray(one["hits.phone.k1"])], mean_balanced_accuracy, n_resamples=found.config.n_resamples)
        bars.append(Bar(f"fresh weights, {name}", _beyond_chance(probe)))
    drawing = effects(
        "nulls", bars, label="balanced accuracy beyond chance (0.5), one feature per phone", title="nulls"
    )
    text = "What the same probes reach where there is nothing to find, and on the same network with fresh weights."
    return [Section("Nulls", text), Figure(drawing, "Phones shuffled, and fresh weights", "")]


def _material(found: Found) -> list[Block]:
    corpora = found.about["corpora"]
    columns: dict[str, list[Any]] = {
        "corpus": list(corpora),
        "recordings": [about["recordings"] for about in corpora.values()],
        "minutes": [about["minutes"] for about in corpora.values()],
        "kept apart": [about["apart"] for about in corpora.values()],
    }
    config, frames = found.config, found.about["frames"]
    text = (
        f"{frames['train']:,} frames to train on and {frames['held out']:,} held out; speakers (of sounds, the publisher's folds) "
        f"are on one side only. A recording of the training comes with noise at 0 to 20 dB with probability {config.noise:g}, half "
        f"of it white or pink, half a sound of the training. Every training: {config.steps} steps of {config.batch_size} frames, "
        f"learning rate {config.lr:g}. A temporal step holds half as many frames and their partners; shuffled time has "
        "the same, alpha 0 does not. The threshold of the kinds that have one is set on training frames, so that as "
        "many features are active as in TopK."
    )
    return [Section("Material", text), Table(columns, "Recordings")]
