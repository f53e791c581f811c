"""ESC-50 and its subset ESC-10 (Piczak 2015): ``meta/esc50.csv`` beside ``audio/``, five folds, clips of five seconds.

A folder with a ``manifest.tsv`` (path, label, fold, freesound_id) is read as well. A sound's unit is the recording that it
was cut from, since several clips may come from one.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from pathlib import Path

from otoscope.errors import TaskError
from otoscope.models.mini_labels import SOUNDS
from otoscope.tasks.corpora.layout import below, empty, manifest, mislabelled
from otoscope.tasks.recordings import Recording, from_file

FOLDERS = ("esc10", "esc50", "ESC-50", "ESC-50-master", "ESC-10")
LICENCE = "CC BY-NC 3.0 (ESC-50), CC BY 3.0 (ESC-10); the corpus names every recordist"
CITATION = "Piczak 2015, ESC: Dataset for Environmental Sound Classification, ACM Multimedia"

_TABLE = "meta/esc50.csv"
_COLUMNS = ("filename", "fold", "target", "category", "src_file")
#: FOLD-SOURCE-TAKE-TARGET.wav
_FILE = re.compile(r"(?P<fold>\d)-(?P<source>\d+)-[A-Z]+-(?P<target>\d+)$")
#: ESC-50's name of a class, where it is not ESC-10's -> the answer
_ESC50_NAMES = {
    "dog": "dog", "crying_baby": "baby", "sneezing": "sneeze", "crackling_fire": "fire",
}  # fmt: skip


def answer_of(category: str) -> str:
    """What is answered for a class: one short word for those of ESC-10, its own name with spaces for the others."""
    return SOUNDS.get(category) or _ESC50_NAMES.get(category) or category.replace("_", " ")


def recordings(folder: Path) -> list[Recording]:
    """All recordings, labelled with what is answered.

    Raises:
        TaskError: none is there, a row has no file, or its class is not the one in its file's name.
    """
    folder = below(folder, FOLDERS)
    rows = manifest(folder, ("label", "fold"))
    found = list(_of_table(folder) if rows is None else _of_rows(folder, rows))
    if not found:
        raise empty(folder, f"{_TABLE} beside audio/")
    return found


def _of_rows(folder: Path, rows: list[tuple[int, dict[str, str]]]) -> Iterable[Recording]:
    for number, row in rows:
        label, parent = row["label"], Path(row["path"]).parent.name
        if not label or (parent and label != parent):
            expected = f"'{parent}', the folder of '{row['path']}'" if parent else "a class"
            raise mislabelled(f"line {number} of {folder / 'manifest.tsv'}", label, expected)
        unit = row.get("freesound_id") or Path(row["path"]).stem
        yield from_file(folder / row["path"], row["path"], answer_of(label), unit, fold=row["fold"])


def _of_table(folder: Path) -> Iterable[Recording]:
    table = folder / _TABLE
    if not table.is_file():
        return
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    missing = [column for column in _COLUMNS if rows and column not in rows[0]]
    if missing:
        raise TaskError(f"{table} has no column '{missing[0]}': expected {', '.join(_COLUMNS)}.")
    for number, row in enumerate(rows, start=2):
        where, path = f"line {number} of {table}", folder / "audio" / row["filename"]
        match = _FILE.match(Path(row["filename"]).stem)
        if not row["category"] or (match and match["target"] != row["target"]):
            raise mislabelled(where, f"{row['target']} {row['category']}".strip(), "the class in the name of its file")
        if not path.is_file():
            raise TaskError(
                f"{where} names '{row['filename']}', which is not in {folder / 'audio'}: copy the whole corpus."
            )
        yield from_file(path, row["filename"], answer_of(row["category"]), row["src_file"], fold=row["fold"])
