"""What all readers share: where the corpus lies below a folder, its manifest if it has one, and what is said of a bad row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from otoscope.audio.files import MANIFEST, manifest_rows
from otoscope.errors import TaskError

#: endings of sound files
ENDINGS = (".wav", ".flac", ".ogg", ".mp3")


def below(folder: Path, names: Sequence[str]) -> Path:
    """The corpus's own folder: one of these names below ``folder``, else ``folder`` itself."""
    return next((folder / name for name in names if (folder / name).is_dir()), folder)


def sounds(folder: Path) -> list[Path]:
    """Sound files directly in a folder, by name."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and not path.name.startswith("."))


def manifest(folder: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]] | None:
    """The rows of the folder's manifest with their line numbers; None where it has no manifest.

    Raises:
        TaskError: a column is missing, or a row names a file that is not there.
    """
    if not (folder / MANIFEST).is_file():
        return None
    path, rows = manifest_rows(folder)
    for column in columns:
        if column not in rows[0][1]:
            raise TaskError(f"{path} has no column '{column}': this task needs {', '.join(('path', *columns))}.")
    for number, row in rows:
        if not (folder / row["path"]).is_file():
            raise TaskError(
                f"line {number} of {path} names '{row['path']}', which is not there: paths are relative to it."
            )
    return rows


def mislabelled(where: str, found: str, expected: str) -> TaskError:
    """The error of a row or file whose label cannot be right."""
    return TaskError(f"{where} is labelled '{found}': expected {expected}, so correct or remove it.")


def empty(folder: Path, expected: str) -> TaskError:
    """The error of a folder that holds no recording of the corpus."""
    return TaskError(f"'{folder}' holds no recordings of this corpus: expected {expected}.")
