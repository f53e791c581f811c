"""What a row's numbers depend on, as a hash: it names the run of the ledger, so that other code does not resume it."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

SRC = Path(__file__).resolve().parent.parent / "src" / "otoscope"


@cache
def digest(parts: tuple[str, ...]) -> str:
    """First 12 hex digits of SHA-256 over the names and bytes of files, and of all Python files below folders.

    Args:
        parts: files and folders of the package, below its root.
    """
    h = hashlib.sha256()
    for part in parts:
        path = SRC / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            h.update(file.relative_to(SRC).as_posix().encode() + file.read_bytes())
    return h.hexdigest()[:12]
