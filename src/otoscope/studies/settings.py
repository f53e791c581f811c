"""Settings as a person writes them on a command line: NAME=VALUE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from otoscope.errors import RunError


def parsed(pairs: Sequence[str]) -> dict[str, Any]:
    """``["alpha=0.5", "groups=[0.2, 0.8]"]`` as values, read as YAML.

    Raises:
        RunError: one has no ``=``, or its value cannot be read.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.strip():
            raise RunError(f"--set {pair} names no value: write NAME=VALUE, such as alpha=0.5.")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as problem:
            raise RunError(
                f"--set {pair} cannot be read: write a number, a word or a list such as [1, 2]."
            ) from problem
        # YAML 1.1 takes 1e-4 for text
        found[name.strip()] = _number(value) if isinstance(value, str) else value
    return found


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
