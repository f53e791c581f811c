"""Free Spoken Digit Dataset (Jackson et al. 2018): files named ``DIGIT_SPEAKER_TAKE.wav``, at 8 kHz.

Its own test set is takes 0 to 4 of every speaker and digit; ``split`` chooses it. A folder with a ``manifest.tsv``
(path, digit, speaker) is read as well.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from otoscope.models.mini_labels import DIGITS
from otoscope.tasks.corpora.layout import below, empty, manifest, mislabelled, sounds
from otoscope.tasks.recordings import Recording, from_file

FOLDERS = ("fsdd", "free-spoken-digit-dataset", "free-spoken-digit-dataset-master")
LICENCE = "CC BY-SA 4.0"
CITATION = "Jackson et al. 2018, Free Spoken Digit Dataset, doi:10.5281/zenodo.1342401"

#: takes below this number are the corpus's test set
_TEST_TAKES = 5
#: names of its files, without their ending
NAME = re.compile(r"(?P<digit>\d)_(?P<speaker>[a-z]+)_(?P<take>\d+)$")

Split = Literal["all", "test", "train"]


def is_there(folder: Path) -> bool:
    """Whether the folder holds this corpus."""
    folder = _own(folder)
    return any(NAME.match(path.stem) for path in sounds(folder)[:50])


def recordings(folder: Path, split: Split = "all") -> list[Recording]:
    """All recordings, each labelled with its digit as a word.

    Raises:
        TaskError: none is there, or a row's digit is none, or is not the one in the file's name.
    """
    folder = _own(folder)
    rows = manifest(folder, ("digit", "speaker"))
    found = []
    if rows is None:
        for path in sounds(folder):
            match = NAME.match(path.stem)
            if match is None:
                raise mislabelled(f"'{path}'", path.stem, "a name such as 7_jackson_3.wav (digit, speaker, take)")
            found.append(_recording(path, match["digit"], match["speaker"], int(match["take"])))
    for number, row in rows or ():
        match = NAME.match(Path(row["path"]).stem)
        digit, where = row["digit"], f"line {number} of {folder / 'manifest.tsv'}"
        if not (digit.isascii() and digit.isdigit() and len(digit) == 1):
            raise mislabelled(where, digit, "a digit from 0 to 9")
        if match is not None and match["digit"] != digit:
            raise mislabelled(where, digit, f"'{match['digit']}', the digit in the name of '{row['path']}'")
        take = int(match["take"]) if match else _TEST_TAKES
        found.append(_recording(folder / row["path"], digit, row["speaker"], take, row.get("split", "")))
    found = [r for r in found if split == "all" or r.labels["split"] == split]
    if not found:
        raise empty(folder, "files such as 7_jackson_3.wav (digit, speaker, take)")
    return found


def split_of(take: int) -> str:
    """The part that a take belongs to by the corpus's own rule."""
    return "test" if take < _TEST_TAKES else "train"


def _own(folder: Path) -> Path:
    folder = below(folder, FOLDERS)
    # a clone of the corpus keeps its sounds one level down
    return below(folder, ("recordings",)) if not sounds(folder) else folder


def _recording(path: Path, digit: str, speaker: str, take: int, split: str = "") -> Recording:
    word = DIGITS[int(digit)]
    return from_file(path, path.stem, word, speaker, word, split=split or split_of(take))
