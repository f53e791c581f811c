"""Bring dictionaries in from other libraries, and out to the Hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from otoscope.sae.dictionary import Dictionary
from otoscope.sae.formats import load, saelens
from otoscope.sae.publish import upload, write_folder
from otoscope.studies.outcome import without_run


@dataclass(frozen=True)
class FilesDone:
    """The results object, and lines for a person."""

    results: dict[str, Any]
    lines: list[str]


def import_dictionary(source: Path, out: Path, model: str | None = None, site: str | None = None) -> FilesDone:
    """Read a dictionary of any known format and write it in SAELens's layout.

    Args:
        source: its folder.
        out: where to write it.
        model, site: what it reads, where its files do not say.

    Raises:
        ModelError: it cannot be read; see :func:`otoscope.sae.formats.load`.
        RunError: ``out`` cannot be written.
    """
    dictionary = load(source)
    dictionary.metadata |= {k: v for k, v in (("model_name", model), ("hook_name", site)) if v is not None}
    saelens.write(dictionary, out)
    return FilesDone(
        {**without_run("sae import", _sizes(dictionary)), "path": str(out), "architecture": dictionary.architecture},
        [
            f"{out}: {dictionary.architecture}, {dictionary.config.n_features} features of {dictionary.config.d} channels"
        ],
    )


def publish_dictionary(
    source: Path, out: Path, name: str | None = None, repo: str | None = None, private: bool = False
) -> FilesDone:
    """Write a folder for the Hub, and upload it where a repository is named.

    Args:
        source: the dictionary's folder.
        out: where to write.
        name: the dictionary's name within the repository.
        repo: repository to upload to; None: nothing is sent.
        private: make that repository a private one.

    Raises:
        ModelError: the dictionary cannot be read, nobody is logged in, or the Hub refuses.
        RunError: ``out`` cannot be written.
    """
    dictionary = load(source)
    write_folder(dictionary, out, name, repo)
    address = upload(out, repo, private) if repo else None
    lines = [f"{out}: ready for the Hub"] + ([f"uploaded: {address}"] if address else [])
    results = without_run("sae publish", _sizes(dictionary))
    return FilesDone({**results, "path": str(out), "address": address}, lines)


def _sizes(dictionary: Dictionary) -> dict[str, int]:
    return {"features": dictionary.config.n_features, "d": dictionary.config.d}
