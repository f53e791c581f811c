"""One process per run directory. The operating system drops the lock when its holder dies, even by SIGKILL."""

import os
import sys
from pathlib import Path

from otoscope.errors import RunError
from otoscope.runs.files import write_error

if sys.platform == "win32":
    import msvcrt

    def _take(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _take(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Lock:
    """Held from construction to ``release``. Raises RunError when another process, or this one, holds it already."""

    def __init__(self, path: Path) -> None:
        try:
            self._handle: int | None = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as problem:
            raise write_error(path, problem) from problem
        try:
            _take(self._handle)
        except OSError as problem:
            os.close(self._handle)
            self._handle = None
            raise RunError(
                f"{path.parent} is in use by another otoscope process: wait for it to end, or choose another --out"
            ) from problem

    def release(self) -> None:
        """Let others in; harmless when called twice. The file stays: deleting it would race with the next holder."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
