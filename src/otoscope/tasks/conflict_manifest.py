"""Conflict items of your own: a JSONL manifest, one JSON object per line, paths relative to the manifest's folder.

====================  =========  =================================================================================
key                   needed     what it is
====================  =========  =================================================================================
audio                 yes        path of a recording that says ``audio_label``
question              yes        what is asked
labels                yes        list of the options, the two labels below among them
audio_label           yes        what the recording says
text_label            yes        what the conflicting context says
context               this or    object with ``agreeing``, ``conflicting`` and, if it is not empty, ``neutral``
framing               this       name of a framing, or a sentence with the slot ``{label}``
topic                 no         what the framing calls it, such as "the word"; default "the answer"
counterfactual_audio  no         path of a recording that says ``text_label``; without it, only silence and noise stand
                                 against the recording
id                    no         name of the item; default is the line's number
speaker               no         of the recording; intervals resample speakers
licence               no         of the recording; the task lists all that occur
====================  =========  =================================================================================

Empty lines are passed over. Anything else that is not as above is refused, with the number of its line.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from otoscope.audio.clip import Clip
from otoscope.audio.files import read
from otoscope.errors import AudioError, TaskError
from otoscope.tasks.conflict import ConflictItem
from otoscope.tasks.conflict_sounds import with_others
from otoscope.tasks.framings import FRAMINGS, TOPIC, render

_TEXTS = ("audio", "question", "audio_label", "text_label")
_OPTIONAL = ("framing", "topic", "counterfactual_audio", "id", "speaker", "licence")
_KEYS = (*_TEXTS, "labels", "context", *_OPTIONAL)
_CONTEXTS = ("neutral", "agreeing", "conflicting")


def read_items(
    path: Path, rate: int = 16000, n: int | None = None, seed: int = 0
) -> tuple[tuple[ConflictItem, ...], str]:
    """The items of a manifest, and the licences of their recordings as one line.

    All lines are checked before any sound is read.

    Args:
        path: the manifest.
        rate: what recordings are resampled to, Hz.
        n: at most so many items, drawn at random and kept in their order; None for all of them.
        seed: of the draw.

    Raises:
        TaskError: the manifest is missing, empty or not UTF-8, or a line cannot be used; the sentence names the first
            such line, and says how many others there are.
    """
    rows = _rows(path)
    if n is not None and n < len(rows):
        rows = [rows[i] for i in sorted(np.random.default_rng(seed).permutation(len(rows))[: max(n, 0)])]
    items = []
    clips: dict[Path, Clip] = {}
    for number, row in rows:
        try:
            items.append(_item(row, number, path.parent, rate, clips))
        except (TaskError, AudioError) as error:
            raise TaskError(f"Line {number} of {path}: {error}") from error
    licences = dict.fromkeys(row["licence"] for _, row in rows if row.get("licence"))
    return tuple(items), ", ".join(licences) or "unknown"


def _rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The objects of all lines with their numbers, checked as far as that goes without reading sound."""
    if not path.is_file():
        raise TaskError(f"There is no manifest {path}; give a file with one JSON object per line.")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"The manifest {path} cannot be read as UTF-8 text ({error}); save it as such.") from error
    rows: list[tuple[int, dict[str, Any]]] = []
    bad: list[tuple[int, str]] = []
    ids: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = _checked(line, path.parent)
            row.setdefault("id", f"line-{number}")
            if (first := ids.setdefault(row["id"], number)) != number:
                raise TaskError(f"the id '{row['id']}' is that of line {first} as well; give each item its own.")
            rows.append((number, row))
        except TaskError as error:
            bad.append((number, str(error)))
    if bad:
        others = f" ({len(bad) - 1} more of {len(rows) + len(bad)} lines cannot be used either)" if len(bad) > 1 else ""
        raise TaskError(f"Line {bad[0][0]} of {path}: {bad[0][1]}{others}")
    if not rows:
        raise TaskError(f"The manifest {path} has no lines; give one JSON object per item.")
    return rows


def _checked(line: str, folder: Path) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise TaskError(f"it is not JSON ({error}); write one object per line, without line breaks in it.") from error
    if not isinstance(row, dict):
        raise TaskError("it is not a JSON object; write {...} with the keys of docs/manifest.md.")
    # null is how many programs write "not known"
    row = {key: value for key, value in row.items() if value is not None}
    if unknown := [key for key in row if key not in _KEYS]:
        raise TaskError(f"it has the key '{unknown[0]}', which means nothing here; the keys are {', '.join(_KEYS)}.")
    for key in _TEXTS:
        if key not in row:
            raise TaskError(f"it has no '{key}'; every item needs {', '.join(_TEXTS)} and labels.")
    for key in (*_TEXTS, *_OPTIONAL):
        if key in row and not (isinstance(row[key], str) and row[key].strip()):
            raise TaskError(f"its '{key}' is {json.dumps(row[key])[:40]}; give a text that is not empty.")
    labels = row.get("labels")
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise TaskError('it has no list of texts under \'labels\'; give the options, such as ["yes", "no"].')
    _check_context(row)
    for key in ("audio", "counterfactual_audio"):
        if key in row and not (folder / row[key]).is_file():
            raise TaskError(f"its '{key}' names {row[key]!r}, which is not there; paths are relative to the manifest.")
    return row


def _check_context(row: dict[str, Any]) -> None:
    if ("context" in row) == ("framing" in row):
        raise TaskError("it needs one of 'context' and 'framing', and not both.")
    if "framing" in row:
        render(row["framing"], row["text_label"])
        return
    context = row["context"]
    if isinstance(context, dict):
        context = row["context"] = {key: text for key, text in context.items() if text is not None}
    texts = isinstance(context, dict) and all(isinstance(text, str) for text in context.values())
    if not texts or not {"agreeing", "conflicting"} <= set(context) <= set(_CONTEXTS):
        raise TaskError(
            "its 'context' must be an object with the texts agreeing, conflicting and, if there is one, neutral."
        )


def _item(row: dict[str, Any], number: int, folder: Path, rate: int, clips: dict[Path, Clip]) -> ConflictItem:
    def clip(key: str) -> Clip | None:
        if key not in row:
            return None
        path = folder / row[key]
        # benchmarks ask several questions about one recording
        if path not in clips:
            clips[path] = read(path, rate)
        return clips[path]

    clean = clip("audio")
    assert clean is not None
    own, framing, topic = row.get("context"), row.get("framing", "own"), row.get("topic", TOPIC)
    labels = {"agreeing": row["audio_label"], "conflicting": row["text_label"]}
    return ConflictItem(
        id=row["id"],
        question=row["question"],
        labels=tuple(row["labels"]),
        sound_label=row["audio_label"],
        text_label=row["text_label"],
        clips=with_others(clean, clip("counterfactual_audio"), rate, seed=number),
        contexts=own or {kind: render(framing, label, topic=topic) for kind, label in labels.items()},  # type: ignore[arg-type]
        framing=framing if framing in FRAMINGS else "own",
        speaker=row.get("speaker"),
        source=row["audio"],
    )
