"""The files of a store of activations: shards that are whole or absent, each with its SHA-256.

``shards/00003.<site>.safetensors`` holds ``x [frame, d]`` and the moments of its frames (``mean``, ``m2``, ``norm``, float64);
``shards/00003.frames.<axis>.safetensors`` holds, beside each frame, ``utterance``, ``time`` (seconds of its file), ``phone``
and ``word`` (-1 where there is none), and ``token`` where positions are tokens. ``shards/00003.json`` is written last: a
shard without it is not finished. ``index.json`` joins them when the harvest is done.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch as st
from safetensors import SafetensorError
from torch import Tensor

from otoscope.errors import RunError
from otoscope.runs.files import read_json, write_bytes, write_json

#: raised when what is written changes
FORMAT = 1
INDEX, PLAN, FOLDER = "index.json", "plan.json", "shards"

_HASHED_AT_ONCE = 1 << 22


def site_file(shard: int, site: str) -> str:
    """Path, within the store, of a shard's activations at a site."""
    return f"{FOLDER}/{shard:05d}.{site}.safetensors"


def frames_file(shard: int, axis: str) -> str:
    """Path, within the store, of what stands beside a shard's frames."""
    return f"{FOLDER}/{shard:05d}.frames.{axis}.safetensors"


def note_file(shard: int) -> str:
    """Path, within the store, of what is known of a finished shard."""
    return f"{FOLDER}/{shard:05d}.json"


def save(store: Path, name: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write one file; returns its size, checksum, shapes and types.

    Raises:
        RunError: it cannot be written; a full disk is named as such.
    """
    data = st.save({key: tensor.contiguous() for key, tensor in tensors.items()})
    write_bytes(store / name, data)
    return {
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "tensors": {key: [str(t.dtype).removeprefix("torch."), list(t.shape)] for key, t in tensors.items()},
    }


def finish(store: Path, shard: int, note: Mapping[str, Any]) -> None:
    """Say that a shard is finished."""
    write_json(store / note_file(shard), note)


def finished(store: Path, shard: int) -> dict[str, Any] | None:
    """What is known of a finished shard; None where it is not finished, or one of its files is missing or cut short."""
    if not (store / note_file(shard)).is_file():
        return None
    note = read_json(store / note_file(shard))
    for name, about in note["files"].items():
        path = store / name
        if not path.is_file() or path.stat().st_size != about["bytes"]:
            return None
    return note


class Files:
    """The files of a finished store; each is compared with its checksum when it is first read.

    Args:
        store: the folder.
        known: name -> size and checksum.
        verify: whether to compare.
    """

    def __init__(self, store: Path, known: Mapping[str, Mapping[str, Any]], verify: bool = True):
        self._store, self._known, self._verify = store, known, verify
        self._good: set[str] = set()

    def load(self, name: str, *keys: str) -> dict[str, Tensor]:
        """Tensors of a file.

        Raises:
            RunError: the file is missing, cut short or altered.
        """
        self.check(name)
        try:
            with st.safe_open(str(self._store / name), "pt") as file:  # type: ignore[attr-defined]
                return {key: file.get_tensor(key) for key in keys}
        except (SafetensorError, OSError) as error:
            raise self._damaged(name, f"cannot be read ({error})") from error

    def check(self, name: str) -> None:
        """Compare a file with its size, and once with its checksum.

        Raises:
            RunError: it is missing, cut short or altered.
        """
        if name in self._good:
            return
        path, about = self._store / name, self._known[name]
        if not path.is_file():
            raise self._damaged(name, "is missing")
        if (size := path.stat().st_size) != about["bytes"]:
            raise self._damaged(name, f"has {size} bytes where its index says {about['bytes']}")
        if self._verify and sha256(path) != about["sha256"]:
            raise self._damaged(name, "is not what was written (its SHA-256 differs)")
        self._good.add(name)

    def _damaged(self, name: str, how: str) -> RunError:
        shard = Path(name).name.split(".")[0]
        return RunError(
            f"{self._store / name} {how}: delete {self._store / FOLDER / shard}.* and run the same harvest again, which "
            "makes that shard anew and keeps the others."
        )


def sha256(path: Path) -> str:
    """SHA-256 (hex) of a file, read in pieces."""
    with path.open("rb") as file:
        h = hashlib.sha256()
        while piece := file.read(_HASHED_AT_ONCE):
            h.update(piece)
    return h.hexdigest()
