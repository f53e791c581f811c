"""Files that are whole or absent: written beside their place, flushed to the disk, then moved over it in one step.

A killed process or a full disk leaves the old file or none, never half of a new one.
"""

import contextlib
import csv
import errno
import io
import json
import math
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from otoscope.errors import RunError

TEMPORARY = ".part-"  # prefix of files being written; what a killed process left is removed at the next start
_CURES = {
    errno.ENOSPC: "the disk is full: free some space and run the same command again, what was computed so far is kept",
    errno.EDQUOT: "the disk quota is used up: free some space and run the same command again, the work done is kept",
    errno.EACCES: "permission was denied: choose another directory with --out, or change its permissions",
    errno.EPERM: "permission was denied: choose another directory with --out, or change its permissions",
    errno.EROFS: "the file system is read-only: choose another directory with --out",
}


def write_error(path: Path, problem: OSError) -> RunError:
    """The one sentence for a failed write: the path, what happened and what to do."""
    number = problem.errno or 0
    cure = _CURES.get(number) or f"{problem.strerror or problem}: check the directory or choose another with --out"
    return RunError(f"cannot write {path}: {cure}")


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically, making its folder. Raises RunError (full disk, no permission, ...)."""
    temporary = path.with_name(TEMPORARY + secrets.token_hex(8))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as problem:
        raise write_error(path, problem) from problem
    finally:
        with contextlib.suppress(OSError):  # gone after the replace; and must not hide the error above
            temporary.unlink()


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable where the platform can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as problem:
        if problem.errno != errno.EINVAL:  # some network file systems cannot sync a folder; the file itself is safe
            raise
    finally:
        os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Delete what a killed process was in the middle of writing anywhere under ``folder``."""
    for path in folder.rglob(TEMPORARY + "*"):
        path.unlink(missing_ok=True)


def plain(value: Any) -> Any:
    """``value`` as strict JSON can hold it: numpy scalars and arrays unpacked, NaN and infinities as None.

    Raises TypeError for what JSON cannot hold.
    """
    if hasattr(value, "to_json"):
        return plain(value.to_json())
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int | bool):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON; convert it to numbers, text, lists or dicts")


def write_json(path: Path, value: Any) -> None:
    """Strict, readable JSON (NaN -> null), atomically."""
    write_bytes(path, (json.dumps(plain(value), indent=1, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Raises RunError when the file is missing, unreadable or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        what = problem.strerror if isinstance(problem, OSError) else "it is not valid JSON"
        raise RunError(f"cannot read {path}: {what}; expected a file that a run of otoscope wrote") from problem


def csv_text(columns: Mapping[str, Sequence[Any] | np.ndarray]) -> str:
    """Columns of equal length as CSV with a header; floats with 9 significant digits, NaN and None as empty cells.

    Raises ValueError when the lengths differ.
    """
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the columns of a table must have one length, not {lengths}")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(v) for v in row] for row in zip(*columns.values(), strict=True))
    return out.getvalue()


def _cell(value: Any) -> str:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.9g}" if isinstance(value, float) else str(value)
