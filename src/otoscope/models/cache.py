"""The cache folder, and building a folder in it so that it is there whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from otoscope.errors import ModelError

#: part of every converted folder's name; raise it when a converter changes what it writes
CONVERSION = 3
#: seconds to wait for another process that builds the same folder
_LOCK_SECONDS = 3600


def cache_dir() -> Path:
    """Where otoscope keeps converted weights: ``$OTOSCOPE_CACHE``, else ``$XDG_CACHE_HOME/otoscope``, else
    ``~/.cache/otoscope``. It is not created here."""
    if given := os.environ.get("OTOSCOPE_CACHE"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "otoscope"


def build_folder(folder: Path, build: Callable[[Path], None], *, force: bool = False) -> Path:
    """Make ``folder`` with ``build`` unless it exists: it appears at once and complete, or not at all.

    ``build`` fills a fresh folder beside it, which is then renamed. Two processes that want the same folder take
    turns; what a killed one left behind is removed by the next.

    Args:
        folder: the folder to make, inside the cache.
        build: called with an empty folder to fill.
        force: build again even when the folder exists.

    Raises:
        ModelError: the cache cannot be written, or the disk is full.
    """
    if folder.is_dir() and not force:
        return folder
    with _clear_os_errors(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(folder.parent / f".{folder.name}.lock", timeout=_LOCK_SECONDS):
                if folder.is_dir() and not force:
                    return folder
                _build_locked(folder, build)
        except Timeout:
            raise ModelError(
                f"another process has been building '{folder}' for over an hour: end it and try again."
            ) from None
    return folder


def _build_locked(folder: Path, build: Callable[[Path], None]) -> None:
    prefix = f".{folder.name}.part-"
    for left_behind in folder.parent.glob(f"{prefix}*"):
        shutil.rmtree(left_behind, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    try:
        fresh = work / "new"
        fresh.mkdir()
        build(fresh)
        if folder.exists():
            os.replace(folder, work / "old")
        os.replace(fresh, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _clear_os_errors(folder: Path) -> Iterator[None]:
    """Turn the operating system's refusals into one sentence with the cure."""
    cure = "free some space or set OTOSCOPE_CACHE to a folder on another disk"
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ModelError(f"the disk with the cache folder '{folder}' is full: {cure}.") from error
        raise ModelError(
            f"the cache folder '{folder}' cannot be written ({error.strerror or error}): "
            "set OTOSCOPE_CACHE to a folder you can write to."
        ) from error
