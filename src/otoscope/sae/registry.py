"""The architectures by name. A new one is one file and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

import torch

from otoscope.errors import ModelError
from otoscope.sae.batchtopk import BatchTopK
from otoscope.sae.dictionary import Dictionary, DictionaryConfig
from otoscope.sae.jumprelu import JumpReLU
from otoscope.sae.matryoshka import Matryoshka
from otoscope.sae.standard import Standard
from otoscope.sae.temporal import Temporal
from otoscope.sae.topk import TopK

ARCHITECTURES: dict[str, type[Dictionary]] = {
    kind.architecture: kind for kind in (Standard, TopK, BatchTopK, JumpReLU, Matryoshka, Temporal)
}


def architecture(name: str) -> type[Dictionary]:
    """The class of an architecture.

    Raises:
        ModelError: there is none of that name; the message lists them.
    """
    if name not in ARCHITECTURES:
        raise ModelError(f"there is no architecture '{name}': architectures are {', '.join(ARCHITECTURES)}.")
    return ARCHITECTURES[name]


def config_from(name: str, settings: Mapping[str, Any]) -> DictionaryConfig:
    """The config of an architecture from plain data.

    Raises:
        ModelError: an unknown setting, a missing one, or one out of range.
    """
    kind = architecture(name).config_class
    known = {field.name: field for field in fields(kind)}
    unknown = [key for key in settings if key not in known]
    if unknown:
        raise ModelError(f"{name} has no setting '{unknown[0]}': its settings are {', '.join(known)}.")
    missing = [key for key, field in known.items() if field.default is MISSING and key not in settings]
    if missing:
        raise ModelError(f"{name} needs {' and '.join(missing)}.")
    try:
        return kind(**settings)
    except TypeError as problem:  # text where a number belongs
        raise ModelError(f"the settings of {name} cannot be used: {problem}.") from problem


def build(described: Mapping[str, Any], generator: torch.Generator | None = None) -> Dictionary:
    """A new dictionary from what :meth:`Dictionary.describe` gave.

    Raises:
        ModelError: an unknown architecture or setting.
    """
    settings = {key: value for key, value in described.items() if key != "architecture"}
    name = described.get("architecture", "")
    return architecture(name)(config_from(name, settings), generator)
