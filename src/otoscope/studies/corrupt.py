"""Parameters of a corruption as a person writes them: NAME=VALUE, with the path of a file where a sound is meant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from otoscope.audio.corruptions import describe
from otoscope.audio.files import read
from otoscope.errors import AudioError


def parameters(kind: str, settings: Sequence[str]) -> dict[str, Any]:
    """Read ``NAME=VALUE`` settings by the types that the corruption declares.

    Raises:
        AudioError: unknown corruption or parameter, a value of the wrong type, or no ``=``.
    """
    known = describe(kind)[0]["params"]
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or name not in known:
            raise AudioError(
                f"'{setting}' is no setting of {kind}: expected NAME=VALUE with one of {', '.join(known) or 'none'}."
            )
        values[name] = _value(kind, name, known[name]["type"], text)
    return values


def _value(kind: str, name: str, type_name: str, text: str) -> Any:
    if type_name == "clip":
        return read(text)
    if type_name == "clips":
        return tuple(read(path) for path in text.split(","))
    if type_name not in ("int", "float"):
        return text
    try:
        return int(text) if type_name == "int" else float(text)
    except ValueError as error:
        raise AudioError(
            f"{name}={text} does not fit {kind}: expected {'a whole number' if type_name == 'int' else 'a number'}."
        ) from error
