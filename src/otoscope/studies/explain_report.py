"""The report of explained errors: click an error, hear its span, see the evidence, and see the sentence under each remedy."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Literal

import numpy as np

from otoscope.audio.clip import Clip
from otoscope.methods.suspicion import THRESHOLDS
from otoscope.report.blocks import Block, Detail, Marked, Note, Reproduce, Section, Sound, Sounds, Table, Token, Tokens
from otoscope.report.page import Report
from otoscope.runs import Run

#: recordings with a player and their errors in full: the page holds the sound itself
_SHOWN = 20
#: heads that are listed per error
_HEADS = 5
_TONES: dict[str, Literal["supported", "refuted", "inconclusive"]] = {"heard wrong": "refuted", "guessed": "supported"}
_WHY = (
    "Heard wrong: the encoder's states in the span carry another word than was said. Guessed: the sound is good, and the "
    "text overrules it. Each margin is the logit of what was written minus the logit of what was said, at the first token "
    "where the two part: above 0 the error is made, below 0 it is mended."
)


def write_report(
    run: Run, model: str, clips: Sequence[Clip], items: Sequence[dict[str, Any]], results: dict[str, Any]
) -> Path:
    """Write ``report.html``; returns its path.

    Args:
        run: the run it belongs to.
        model: name of the model.
        clips: the recordings.
        items: what was found in each.
        results: the results object.
    """
    metrics = results["metrics"]
    known = any(item["reference"] for item in items)
    report = Report(
        f"Why does {model} get it wrong?" if known else f"Where may {model} be wrong?",
        headline=_headline(items, metrics),
        subtitle=f"{len(items)} recording{'s' if len(items) > 1 else ''}",
    )
    # those with the most errors come first: they are what one wants to look at
    order = sorted(items, key=lambda i: -len(i["errors"]) - sum(bool(w["flagged_by"]) for w in i["suspects"]))
    if len(items) > 1:
        report.add(Section("All errors"), _summary(items))
    for number, item in enumerate(order[:_SHOWN], 1):
        report.add(*_recording(item, clips[item["clip"]], number, only=len(items) == 1))
    if len(order) > _SHOWN:
        report.add(Note(f"{_SHOWN} of {len(order)} recordings are shown; tables/errors.csv has the errors of all."))
    report.add(Section("Reproduce"))
    report.add(Reproduce(run.info, ["This folder also holds results.json and tables/ (CSV)."]))
    report.save(run)
    return run.path / "report.html"


def _headline(items: Sequence[dict[str, Any]], metrics: dict[str, Any]) -> str:
    errors = [e for item in items for e in item["errors"]]
    if len(errors) == 1:
        return f"{errors[0]['text'].capitalize()}: {errors[0]['verdict']['name']}."
    if errors:
        counts = [
            f"{metrics[key]} {key.replace('_', ' ')}"
            for key in ("heard_wrong", "guessed", "mixed", "undetermined")
            if metrics[key]
        ]
        return f"{len(errors)} errors: {', '.join(counts)}; {100 * metrics['mended']:.0f}% are mended by a change."
    if any(item["reference"] for item in items):
        return "Nothing is wrong."
    return f"{metrics['flagged']} words are suspect; without a reference nobody can say more."


def _recording(item: dict[str, Any], clip: Clip, number: int, only: bool) -> list[Block]:
    sound = f"clip-{number}"
    title = "The recording" if only else item["path"] or f"Recording {number}"
    blocks: list[Block] = [
        Section(title, _WHY if number == 1 and item["reference"] else ""),
        Sounds([Sound(sound, item["path"] or "the recording", clip, item["text"])]),
    ]
    if item["suspects"]:
        blocks += [*_flagged(item), _suspects(item, sound, number)]
        if item["remark"]:
            blocks.append(Note(item["remark"], "warning"))
        return blocks
    telling = next((i for i, e in enumerate(item["errors"]) if e["verdict"]["name"] != "undetermined"), 0)
    blocks += [
        _error(item, e, sound, f"error-{number}-{i + 1}", open=only and i == telling)
        for i, e in enumerate(item["errors"])
    ]
    if item["not_explained"]:
        blocks.append(Note(f"{item['not_explained']} more errors of this recording are not explained."))
    if not item["errors"]:
        blocks.append(Note("Every word is right."))
    return blocks


def _error(item: dict[str, Any], error: dict[str, Any], sound: str, id: str, open: bool) -> Detail:
    verdict, evidence, places = error["verdict"], error["evidence"], error["places"]
    tables = [_remedies(item, error["remedies"])] if error["remedies"] else []
    if evidence:
        tables.append(_evidence(evidence))
    if places:
        tables += _places(places)
    reason = verdict["reason"][:1].upper() + verdict["reason"][1:]
    return Detail(
        id, error["text"], verdict["name"], _TONES.get(verdict["name"], "inconclusive"), f"{reason} {error['advice']}",
        sound if evidence else None, tuple(evidence["span"]) if evidence else None, tables, open,
    )  # fmt: skip


def _evidence(e: dict[str, Any]) -> Table:
    rows: list[tuple[str, Sequence[float]]] = [
        ("as it is", [e["margin"]]),
        ("no word in the span (silence, noise)", e["none"]),
        ("a synthetic voice says the reference there", e["rendered_said"]),
        ("a synthetic voice says what was written there", e["rendered_written"]),
        ("nothing but the span is heard", [] if e["alone"] is None else [e["alone"]]),
        ("without the text before", [] if e["without_context"] is None else [e["without_context"]]),
        ("with a neutral text before", [] if e["neutral_context"] is None else [e["neutral_context"]]),
    ]
    rows = [row for row in rows if len(row[1])]
    return Table(
        {
            "what the decoder attends to": [name for name, _ in rows],
            "margin (nats)": [float(np.mean(values)) for _, values in rows],
            "over voices or fillings": [_range(values) for _, values in rows],
            "prefers": [e["said_text"] if np.mean(values) < 0 else e["written_text"] for _, values in rows],
        },
        f"Evidence: “{e['written_text']}” against “{e['said_text']}”",
    )


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}".replace("-", "−") if len(values) > 1 else ""


def _places(places: dict[str, Any]) -> list[Table]:
    tables = []
    if places["layers"]:
        n = len(places["layers"])
        tables.append(
            Table(
                {
                    "the span's frames exchanged after": [f"encoder.{i}" for i in range(n)],
                    "margin (nats)": places["layers"],
                    "": ["suffices" if i == places["layer"] else "" for i in range(n)],
                },
                "Which encoder layer",
            )
        )
    heads = places["heads"][:_HEADS]
    tables.append(
        Table(
            {"head": [h["name"] for h in heads], "share of the way": [h["effect"] for h in heads]},
            f"Which decoder heads carry it (patched from the run with the {places['donor']})",
        )
    )
    return tables


def _remedies(item: dict[str, Any], remedies: Sequence[dict[str, Any]]) -> Table:
    return Table(
        {
            "with this change": ["as it is", *(r["what"] for r in remedies)],
            "the sentence reads": [item["text"], *(_changed(item["text"], r["text"]) for r in remedies)],
            "mends it": [False, *(r["mends"] for r in remedies)],
            "errors": [len(item["errors"]) + item["not_explained"], *(r["errors"] for r in remedies)],
        },
        "The sentence under each change",
    )


def _changed(before: str, after: str) -> Marked:
    """The sentence with the words that the change put there."""
    a, b = before.split(), after.split()
    parts = [
        (" ".join(b[start:stop]), what != "equal")
        for what, _, _, start, stop in SequenceMatcher(None, a, b, autojunk=False).get_opcodes()
        if stop > start
    ]
    return Marked(parts)


def _flagged(item: dict[str, Any]) -> list[Block]:
    flagged = sorted((w for w in item["suspects"] if w["flagged_by"]), key=lambda w: -w["score"])
    if not flagged:
        return [Note("No signal flags a word.")]
    columns = {
        "word": [w["word"] for w in flagged],
        "second": [f"{w['start']:.2f}" for w in flagged],
        "flagged by": [
            ", ".join(f"{name} {w[name]:.2f}" for name in THRESHOLDS if name in w["flagged_by"]) for w in flagged
        ],
    }
    return [Table(columns, "The words that are most likely wrong or invented, and the signal that says so")]


def _suspects(item: dict[str, Any], sound: str, number: int) -> Tokens:
    tokens = [
        Token(w["word"], w["start"], w["end"], w["score"], "suspect" if w["flagged_by"] else "")
        for w in item["suspects"]
    ]
    return Tokens(
        f"suspects-{number}", tokens, "sum of the signals (0 to 4); framed where one of them flags the word",
        "How suspect each word is", sound,
    )  # fmt: skip


def _summary(items: Sequence[dict[str, Any]]) -> Table:
    rows = [{"recording": item["path"], **row} for item in items for row in item["rows"]]
    if not rows:
        return Table({"recording": [i["path"] for i in items], "heard": [i["text"] for i in items]})
    columns = ("recording", "said", "written", "verdict", "start", "end", "margin", "mended_by")
    return Table({name: [row[name] for row in rows] for name in columns})
