"""The report of AudioSAEBench: probes beside every rival, all numbers with what they are worth, and the planted truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from otoscope.report.blocks import Block, Claims, Figure, Note, Reproduce, Section, Table
from otoscope.report.effects import Bar, effects
from otoscope.report.page import Report, bounds, number
from otoscope.runs import Claim, Run
from otoscope.sae.measures.planted import QUALITIES
from otoscope.stats import Interval
from otoscope.studies.sae_eval import RIVALS, Found, direction
from otoscope.studies.sae_eval_figures import more

#: section -> beginnings of the names of its numbers
_SECTIONS = {
    "Reconstruction": ("fvu", "cosine", "norm_ratio"),
    "Behaviour kept": ("wer", "ce_"),
    "Sparsity": ("l0", "alive", "dense"),
    "Sparse probing": ("probe",),
    "Phones and time": ("tcs", "phone_"),
    "Absorption and co-activation": ("absorption", "main_silent", "spurious"),
    "Geometry": ("antipodal", "duplicates", "nearest_cosine", "class_clustering"),
    "Stability over trainings": ("stability", "aligned"),
    "Alignment with another model": ("across",),
    "Selectivity": ("selectivity",),
    "Erasure and steering": ("erased", "erasing", "sounds"),
    "Minimal pairs": ("disentangle", "cause", "isolate"),
    "Answers": ("answer",),
}
_EXPLAINED = {
    "Reconstruction": "FVU is about the mean vector. PCA and ICA have as many components as features are active per frame.",
    "Behaviour kept": (
        "Word errors per word, and cross-entropy (nats per token) of the transcript that the untouched model writes, with "
        "the rebuilt frames in place of the site's own; recovered: 1 as untouched, 0 as with the frames set to 0."
    ),
    "Sparsity": "Active features per frame, by manner of the phone and where nothing is said.",
    "Sparse probing": (
        "Balanced accuracy of the best k features, each value of a label against all others, on held-out speakers or "
        "recordings; chance is 0.5."
    ),
    "Phones and time": (
        "TCS: variance within phone tokens over variance across them, median over features; shuffled: with the frames of "
        "each recording in random order. Phone purity: share of active entries whose feature belongs to the phone that is "
        "said; lenient: share of frames in which any active feature does."
    ),
    "Absorption and co-activation": (
        "Absorption: frames of a class whose own features are silent while another feature writes the class. Spurious: pairs "
        "of active features that belong to unrelated phones; expected: drawn without regard to frames."
    ),
    "Geometry": "Cosines between the decoder's rows; nothing is resampled.",
    "Stability over trainings": (
        "Share of features that another seed has too, by frames (IoU above 0.5, one to one) and by decoder row (cosine above "
        "0.7). Aligned: by correlation over the frames, one to one, above 0.5 and above the 99th percentile of the same with the "
        "frames turned round within each recording (null: its mean). Purity: mean share of active frames in one phone, of features "
        "with a partner and without (rest)."
    ),
    "Alignment with another model": (
        "Features matched with those of another model's dictionary by their correlation over the frames that both have, one to "
        "one; as above."
    ),
    "Selectivity": (
        "A feature is set to 0 where it is active, the dictionary's error kept. Selectivity: mean change of the log-probability of "
        "tokens said there over that of the other tokens, teacher forced. Other: of another feature that is active about as often. "
        "Elsewhere: the same edit at other frames, asked about the same tokens. Inside, outside: rise of the cross-entropy, nats "
        "per token; lost: share of tokens that no longer come first."
    ),
    "Erasure and steering": (
        "Erased: share of a linear probe's advantage over chance that is gone when the five features of a label's commonest value "
        "are set to 0 (null: five others that are active about as often), on held-out recordings. Erasing: what that costs on "
        "speech, nats per token and word errors per word. Sounds: share of sounds without speech for which words are written, "
        "before and after the five features of sounds are turned up, and the cost in word errors per word of speech."
    ),
    "Minimal pairs": (
        "The features of one phonological distinction are exchanged between two sounds that differ in it. Cause: how far the "
        "answer follows; isolate: 1 less how far it follows on pairs that differ in something else; disentangle: mean of both, "
        "0.5 for nothing and for everything. Drawn: as many features drawn at random. Raw: all channels; PCA: as many "
        "components of the differences."
    ),
    "Answers": (
        "Share of spoken digits that the model's own probabilities tell rightly among ten, with the frames rebuilt; own: "
        "untouched; recovered: 1 as untouched, 0 as with the frames set to 0."
    ),
}


def write_report(run: Run, found: Found, claims: Sequence[Claim] = ()) -> Path:
    """Write ``report.html`` and every figure as SVG, PDF and CSV; returns the path of the page."""
    about = found.about
    report = Report(
        f"What is this {about['architecture']} dictionary of {about['model']} worth?",
        headline=headline(found),
        subtitle=(
            f"{about['features']} features at {about['site']}; {about['frames']} frames of {about['utterances']} recordings, "
            f"{about['speakers']} speakers"
        ),
        lead=_lead(found),
    )
    if bad := found.unreliable:
        report.add(
            Note(
                "Unreliable: these numbers did not rank a perfect dictionary over a half-right one over a random one on planted "
                f"features, so they decide nothing here: {', '.join(bad)}.",
                "warning",
            )
        )
    if not about["aligned"]:
        report.add(
            Note("The store knows no phones, so nothing about phones could be measured: harvest with --align.", "info")
        )
    if not found.behaves:
        report.add(Note("What the model still writes with rebuilt frames was not measured.", "info"))
    if not found.seeds:
        report.add(
            Note("One training only, so the stability of its features is not known: give others with --also.", "info")
        )
    if claims:
        report.add(Section("Claims", "Thresholds stand in the code, not in this run."), Claims(claims))
    for title, starts in _SECTIONS.items():
        report.add(*_section(found, title, starts), *more(found, title))
    report.add(*_seeds(found), *_planted(found), Section("Reproduce"))
    notes = ["This folder also holds saebench.json, results.json, tables/ (CSV) and figures/ (PDF, SVG, CSV)."]
    report.add(Reproduce(run.info, notes))
    report.save(run)
    return run.path / "report.html"


def headline(found: Found) -> str:
    """The bench in one sentence."""
    own, random = found.numbers, found.rivals["random"]
    fvu, other = _number(own["fvu"]), _number(random["fvu"])
    said = f"It leaves {fvu:.1%} of the variance unexplained with {_number(own['l0']):.1f} active features (random {other:.1%})"
    key = "probe.phone.k1"
    if key in own and np.isfinite(_number(own[key])):
        said += f"; one feature tells a phone with {_number(own[key]):.1%} balanced accuracy (random {_number(random[key]):.1%})"
    return f"{said}."


def _lead(found: Found) -> Figure | None:
    names = [n for n in found.numbers if n.startswith("probe.") and n.endswith(".k1")]
    bars = [_bar(found, name, name.split(".")[1]) for name in names if np.isfinite(_number(found.numbers[name]))]
    if not bars:
        return None
    caption = (
        "Balanced accuracy of a probe that sees the one best feature, less chance (0.5). 95% intervals over held-out "
        "recordings; the rivals in the same row."
    )
    return Figure(effects("probing", bars, label="balanced accuracy − 0.5"), "What one feature tells", caption)


def _bar(found: Found, name: str, label: str) -> Bar:
    def above(value: Interval | float) -> Interval:
        inside = value if isinstance(value, Interval) else Interval(value, np.nan, np.nan, 0)
        return inside._replace(value=inside.value - 0.5, low=inside.low - 0.5, high=inside.high - 0.5)

    rivals = {rival: above(numbers[name]) for rival, numbers in found.rivals.items() if name in numbers}
    return Bar(label, above(found.numbers[name]), rivals)


def _section(found: Found, title: str, starts: tuple[str, ...]) -> list[Block]:
    names = [n for n in found.numbers if n.startswith(starts)]
    if not names:
        return []
    columns: dict[str, list[Any]] = {"measure": names, "dictionary": [_shown(found.numbers[n]) for n in names]}
    for rival in RIVALS:
        if any(n in found.rivals[rival] for n in names):
            columns[rival] = [_shown(found.rivals[rival].get(n)) for n in names]
    ways = {"more": "more is better", "less": "less is better", "neither": ""}
    columns["direction"] = [ways[direction(n)] for n in names]
    columns["planted truth"] = [found.verdict(n) for n in names]
    text = f"{found.across}: {_EXPLAINED[title]}" if title.startswith("Alignment") else _EXPLAINED[title]
    return [Section(title, text), Table(columns)]


def _seeds(found: Found) -> list[Block]:
    if not found.seeds:
        return []
    names = [n for n in found.seeds[0] if direction(n) != "neither" or n == "l0"]
    rows = np.array([[_number(found.numbers[n]), *(s[n] for s in found.seeds)] for n in names])
    columns: dict[str, list[Any]] = {"measure": names}
    columns |= {f"training {i + 1}": [float(v) for v in rows[:, i]] for i in range(rows.shape[1])}
    columns |= {"mean": [float(v) for v in rows.mean(1)], "SD": [float(v) for v in rows.std(1, ddof=1)]}
    return [Section("Over trainings", "The same numbers for every seed."), Table(columns)]


def _planted(found: Found) -> list[Block]:
    if not found.trust:
        return []
    names = list(found.trust)
    columns: dict[str, list[Any]] = {"measure": names}
    for quality in QUALITIES:
        columns[quality] = [float(np.mean(found.trust[n].values[quality])) for n in names]
    columns["verdict"] = [found.trust[n].verdict for n in names]
    text = (
        "Synthetic activations with known features (classes of phones over phones, frequent and rare, correlated, lasting), read "
        "with all true directions, half of them, and none; mean over worlds. A measure is reliable if it ranks the three "
        "rightly in every world. A pooled label of a recording (speaker, sex) saturates, which is a tie."
    )
    return [Section("Planted truth", text), Table(columns)]


def _number(value: Interval | float) -> float:
    return value.value if isinstance(value, Interval) else float(value)


def _shown(value: Interval | float | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, Interval):
        ends = "" if np.isnan(value.low) else f" {bounds((value.low, value.high))}"
        return f"{number(value.value)}{ends}"
    return number(float(value))
