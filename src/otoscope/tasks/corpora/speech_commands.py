"""Speech Commands v0.02 (Warden 2018, arXiv:1804.03209): one folder per word, files named ``SPEAKER_nohash_TAKE.wav``.

The corpus keeps a held-out set in ``testing_list.txt``; where that file is there, only its recordings are used. A folder
with a ``manifest.tsv`` (path, label, speaker) is read as well.
"""

from __future__ import annotations

import re
from pathlib import Path

from otoscope.errors import TaskError
from otoscope.tasks.corpora.layout import below, empty, manifest, mislabelled, sounds
from otoscope.tasks.recordings import Recording, from_file

FOLDERS = ("speech_commands", "speech_commands_v0.02", "SpeechCommands")
LICENCE = "CC BY 4.0"
CITATION = "Warden 2018, Speech Commands, arXiv:1804.03209"
HELD_OUT = "testing_list.txt"

_FILE = re.compile(r"(?P<speaker>[0-9a-f]+)_nohash_(?P<take>\d+)$")


def recordings(folder: Path, words: tuple[str, ...]) -> list[Recording]:
    """The recordings of those words.

    Raises:
        TaskError: none is there, a row's label is empty or is not the word of its folder, or the test list is not of this folder.
    """
    folder = below(folder, FOLDERS)
    rows = manifest(folder, ("label", "speaker"))
    found = _listed(folder, words) if rows is None else _of_rows(folder, words, rows)
    if not found:
        raise empty(
            folder, f"one folder per word ({', '.join(words[:3])}, ...) with files such as 0a2b400e_nohash_0.wav"
        )
    return found


def _of_rows(folder: Path, words: tuple[str, ...], rows: list[tuple[int, dict[str, str]]]) -> list[Recording]:
    found = []
    for number, row in rows:
        label, parent = row["label"], Path(row["path"]).parent.name
        # "_silence_" and "_unknown_" are folders of the corpus's own
        if not label or (label != parent and parent in words):
            expected = f"'{parent}', the folder of '{row['path']}'" if parent else "a word"
            raise mislabelled(f"line {number} of {folder / 'manifest.tsv'}", label, expected)
        if label in words:
            found.append(from_file(folder / row["path"], row["path"], label, row["speaker"], row["label"]))
    return found


def _listed(folder: Path, words: tuple[str, ...]) -> list[Recording]:
    held_out = _held_out(folder)
    found = []
    for word in words:
        if not (folder / word).is_dir():
            continue
        for path in sounds(folder / word):
            name = f"{word}/{path.name}"
            if held_out is not None and name not in held_out:
                continue
            match = _FILE.match(path.stem)
            if match is None:
                raise TaskError(
                    f"'{path}' is not named SPEAKER_nohash_TAKE.wav, as all files of Speech Commands are: rename or remove it."
                )
            found.append(from_file(path, name, word, match["speaker"], word))
    if held_out is not None and not found and any((folder / word).is_dir() for word in words):
        raise TaskError(
            f"{folder / HELD_OUT} lists no recording of {', '.join(words)} that is there: use the list of this corpus."
        )
    return found


def _held_out(folder: Path) -> set[str] | None:
    path = folder / HELD_OUT
    return set(path.read_text(encoding="utf-8").split()) if path.is_file() else None
