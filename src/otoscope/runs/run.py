"""The directory a command or study writes: resumable, locked, never half-written.

``run.json`` says how it came to be (and holds all that differs between two runs: times, status); ``results.json`` says
what was found and is byte-identical for the same command, config, seeds, weights and versions.
"""

import hashlib
import json
import platform
import re
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from otoscope.errors import RunError
from otoscope.runs import steps
from otoscope.runs.claim import Claim
from otoscope.runs.files import (
    TEMPORARY,
    csv_text,
    plain,
    read_json,
    remove_leftovers,
    write_bytes,
    write_error,
    write_json,
)
from otoscope.runs.lock import Lock
from otoscope.stats import Interval

_PACKAGES = ("torch", "transformers", "numpy", "scipy", "soundfile", "matplotlib")
_OURS = ("steps", "tables", "figures", "results.json", "report.html")


def versions() -> dict[str, str]:
    """Package -> version, read from the installed metadata so that nothing heavy is imported."""
    found = {"otoscope": otoscope_version(), "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def otoscope_version() -> str:
    import otoscope

    return otoscope.__version__


def config_hash(config: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of a config as canonical JSON: the order of its keys changes nothing."""
    return hashlib.sha256(json.dumps(plain(config), sort_keys=True, ensure_ascii=False).encode()).hexdigest()


class Run:
    """A run directory; use it as a context manager, which records how the run ended and frees the directory.

    Opening the directory of an earlier run with the same command, config, seeds and version resumes it: steps that
    are there are not computed again. With another config it is refused, unless ``fresh=True`` clears it first.

    config: everything that changes the numbers, as plain data; nothing that does not (no output paths, no job counts).
    seeds: name -> seed. argv: the command line to show in the report; default the one of this process.

    Raises RunError: the directory cannot be written, holds other files or another run, or is in use.
    """

    def __init__(
        self,
        path: str | Path,
        command: str,
        config: Mapping[str, Any] | None = None,
        *,
        seeds: Mapping[str, int] | None = None,
        argv: Sequence[str] | None = None,
        fresh: bool = False,
    ) -> None:
        self.path = Path(path)
        self.command = command
        self.config: dict[str, Any] = plain(config or {})
        self.seeds: dict[str, int] = plain(seeds or {})
        identity = {"command": command, "config": self.config, "seeds": self.seeds, "version": otoscope_version()}
        self.hash = config_hash(identity)
        self._start = time.monotonic()
        self._earlier_seconds = 0.0
        self.reused = 0
        """Steps taken from an earlier, unfinished run."""
        self._prepare_folder()
        self._lock = Lock(self.path / ".lock")
        try:
            self._info = self._open(identity, argv, fresh)
        except BaseException:
            self._lock.release()
            raise

    # -- opening and closing ----------------------------------------------------------------------------------------

    def _prepare_folder(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            names = [p.name for p in self.path.iterdir()]
        except FileExistsError as problem:
            raise RunError(f"{self.path} is a file: give --out a directory") from problem
        except OSError as problem:
            raise write_error(self.path, problem) from problem
        others = [n for n in names if n != ".lock" and not n.startswith(TEMPORARY)]
        if others and "run.json" not in others:
            raise RunError(
                f"{self.path} holds files that are not a run (such as {min(others)}): "
                "give --out a new or empty directory"
            )

    def _open(self, identity: dict[str, Any], argv: Sequence[str] | None, fresh: bool) -> dict[str, Any]:
        remove_leftovers(self.path)
        earlier: dict[str, Any] = {}
        if (self.path / "run.json").exists():
            earlier = read_json(self.path / "run.json")
            if fresh:
                self._clear()
                earlier = {}
            elif earlier.get("config_hash") != self.hash:
                raise RunError(
                    f"{self.path} holds another run ({_difference(earlier, identity)}): "
                    "choose another --out, or delete that directory to start afresh"
                )
        self._earlier_seconds = float(earlier.get("seconds") or 0.0)
        info = {
            "run": self.id,
            "command": self.command,
            "argv": shlex.join(argv if argv is not None else ["otoscope", *sys.argv[1:]]),
            "version": identity["version"],
            "config": self.config,
            "config_hash": self.hash,
            "seeds": self.seeds,
            "versions": versions(),
            "platform": f"{platform.system()} {platform.machine()}",
            "weights": earlier.get("weights", {}),
            "started": earlier.get("started", _now()),
            "finished": None,
            "seconds": self._earlier_seconds,
            "status": "running",
            "error": None,
        }
        write_json(self.path / "run.json", info)
        return info

    def _clear(self) -> None:
        try:
            for name in _OURS:
                target = self.path / name
                shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
        except OSError as problem:
            raise write_error(self.path, problem) from problem

    def __enter__(self) -> "Run":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._note(status="finished", finished=_now())
            elif isinstance(error, KeyboardInterrupt):
                self._note(status="interrupted", error="stopped by the user")
            else:
                self._note(status="failed", error=f"{kind.__name__ if kind else ''}: {error}")
        except RunError:
            if error is None:  # otherwise the first error is the one to see; on a full disk this write fails as well
                raise
        finally:
            self.close()

    def close(self) -> None:
        """Free the directory for others without saying how the run ended."""
        self._lock.release()

    def _note(self, **fields: Any) -> None:
        self._info.update(fields, seconds=round(self._earlier_seconds + time.monotonic() - self._start, 3))
        write_json(self.path / "run.json", self._info)

    # -- what it knows ----------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """Name of the run, the same wherever and whenever it is made: command and the start of its config hash."""
        return f"{self.command.replace(' ', '-')}-{self.hash[:10]}"

    @property
    def info(self) -> dict[str, Any]:
        """What run.json holds, for the report's "how to reproduce"."""
        return dict(self._info)

    def record_weights(self, name: str, digest: str) -> None:
        """Note the hash of a model's weights. Raises RunError when a resumed run was made with other weights."""
        known = self._info["weights"].get(name)
        if known not in (None, digest):
            raise RunError(
                f"{self.path} was begun with other weights of {name} ({known[:12]} then, {digest[:12]} now): "
                "choose another --out, or delete that directory to start afresh"
            )
        self._info["weights"][name] = digest
        self._note()

    # -- computing --------------------------------------------------------------------------------------------------

    def step(self, key: str, compute: Callable[[], Any]) -> Any:
        """The result of ``compute()``, or what an earlier run of the same config stored under ``key``.

        The result is a tree of dicts, lists, numbers, text and numpy arrays; it is on disk before this returns, and
        comes back exactly as a resumed run will see it (tuples as lists). Raises RunError when it cannot be written.
        """
        stem = self.path / "steps" / _file_name(key, self.hash)
        found, value = steps.load(stem)
        if found:
            self.reused += 1
            return value
        return steps.save(stem, compute())

    def has_step(self, key: str) -> bool:
        """Whether ``step(key, ...)`` would answer from disk; lets a progress bar start where the work does."""
        stem = self.path / "steps" / _file_name(key, self.hash)
        return any(stem.with_name(stem.name + suffix).is_file() for suffix in (".json", ".npz"))

    # -- writing ----------------------------------------------------------------------------------------------------

    def write(self, relative: str, data: bytes | str) -> Path:
        """Write a file of the run (``figures/map.pdf``) atomically. Raises RunError, also for a path outside the run."""
        target = self.path / relative
        if not target.resolve().is_relative_to(self.path.resolve()):
            raise RunError(f"{relative} lies outside the run directory {self.path}: give a path within it")
        write_bytes(target, data.encode() if isinstance(data, str) else data)
        return target

    def table(self, name: str, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> Path:
        """Write ``tables/NAME.csv`` from columns of equal length."""
        return self.write(f"tables/{name}.csv", csv_text(columns))

    def finish(
        self,
        metrics: Mapping[str, Interval | float | int | None],
        intervals: Mapping[str, tuple[float, float]] | None = None,
        claims: Sequence[Claim] = (),
    ) -> dict[str, Any]:
        """Write results.json and return what it holds, the object that ``--json`` prints.

        metrics: flat, name -> number, or Interval, whose bounds then go to ``intervals`` under the same name.
        """
        bounds = {name: [m.low, m.high] for name, m in metrics.items() if isinstance(m, Interval)}
        results = plain(
            {
                "command": self.command,
                "version": self._info["version"],
                "run": self.id,
                "metrics": {name: m.value if isinstance(m, Interval) else m for name, m in metrics.items()},
                "intervals": {**bounds, **{name: list(ends) for name, ends in (intervals or {}).items()}},
                "claims": list(claims),
            }
        )
        write_json(self.path / "results.json", results)
        return results


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _file_name(key: str, config: str) -> str:
    """Readable and unique: keys that differ only in odd characters still get files of their own."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", key).strip("-.")[:60]
    return f"{slug or 'step'}-{hashlib.sha256(f'{config}/{key}'.encode()).hexdigest()[:12]}"


def _difference(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first thing in which two runs differ, in words."""
    for name in ("command", "version"):
        if earlier.get(name) != now[name]:
            return f"{name} {earlier.get(name)!r} there, {now[name]!r} here"
    for part in ("config", "seeds"):
        old, new = earlier.get(part) or {}, now[part]
        for key in sorted({*old, *new}):
            if old.get(key) != new.get(key):
                return f"{key} is {_short(old.get(key))} there, {_short(new.get(key))} here"
    return "its config differs"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
