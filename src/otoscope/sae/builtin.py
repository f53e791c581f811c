"""Dictionaries that the package brings along, by name: ``otoscope.sae.load("whisper-tiny.en-encoder.2")``.

Each lies in a folder of SAELens's layout with a card, which says what it was trained on. ``otoscope sae paper`` made them, and
``recipes/sae_paper/ship.py`` put them here. Weights that are not what was shipped are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from otoscope.errors import ModelError
from otoscope.sae.shards import sha256

#: the folder of the package that holds them
SHIPPED = "weights/dictionaries"


@dataclass(frozen=True)
class Builtin:
    """One dictionary: its ``name``, the ``model`` and ``site`` that it reads, and the ``sha256`` of its weights."""

    name: str
    model: str
    site: str
    sha256: str

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return Path(str(resources.files("otoscope") / SHIPPED / self.name))


BUILTIN: dict[str, Builtin] = {
    known.name: known
    for known in (
        Builtin(
            "whisper-tiny.en-encoder.2",
            "whisper-tiny.en",
            "encoder.2.resid_post",
            "08c7f62e31d91f18b6c1d6595f176a18a479b1d814f13f2435f6333a85a21f27",
        ),
        Builtin(
            "whisper-tiny.en-encoder.3",
            "whisper-tiny.en",
            "encoder.3.resid_post",
            "3267154e239e6a1d2092f0f35b89da728c5cb750931166b48156eb1a280e4f0b",
        ),
    )
}


def folder_of(name: str) -> Path | None:
    """The folder of a dictionary that the package brings along, checked; None where there is none of that name.

    Raises:
        ModelError: its weights are missing or were altered.
    """
    if name not in BUILTIN:
        return None
    known = BUILTIN[name]
    weights = known.folder / "sae_weights.safetensors"
    if not weights.is_file() or sha256(weights) != known.sha256:
        raise ModelError(f"{weights} is missing or was altered: install otoscope again.")
    return known.folder
