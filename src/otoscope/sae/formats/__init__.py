"""Dictionaries in files: SAELens's layout, which is ours too, and those of sparsify and dictionary_learning, to read."""

from __future__ import annotations

from pathlib import Path

from otoscope.errors import ModelError
from otoscope.sae.builtin import BUILTIN, folder_of
from otoscope.sae.dictionary import Dictionary
from otoscope.sae.formats import dictionary_learning, saelens, sparsify

#: format -> (does the folder look like it, read it)
FORMATS = {
    "saelens": (saelens.recognises, saelens.read),
    "sparsify": (sparsify.recognises, sparsify.read),
    "dictionary_learning": (dictionary_learning.recognises, dictionary_learning.read),
}


def load(folder: str | Path) -> Dictionary:
    """A dictionary from a folder in any known format, or one that the package brings along, by its name. Nothing is unpickled.

    Raises:
        ModelError: there is no such folder, its format is not known, or a file in it is damaged or holds what cannot be
            represented; the message says which.
    """
    name, folder = str(folder), Path(folder)
    if not folder.is_dir():
        if (shipped := folder_of(name)) is None:
            raise ModelError(
                f"there is no folder {folder}: give the one that holds cfg.json (or ae.pt) of a dictionary, or a name of "
                f"{', '.join(BUILTIN) or 'none'}."
            )
        folder = shipped
    for recognises, read in FORMATS.values():
        if recognises(folder):
            return read(folder)
    raise ModelError(
        f"{folder} holds no dictionary: expected cfg.json with sae_weights.safetensors (SAELens, otoscope), cfg.json with "
        "sae.safetensors (sparsify), or ae.pt with config.json (dictionary_learning)."
    )
