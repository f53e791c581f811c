"""The protocol of the causal benchmark: read from YAML, checked, and part of a run's identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from otoscope.errors import TaskError


@dataclass(frozen=True)
class Faults:
    """How many faults, and by how many items each is looked for (fewer by a costly method) and tuned."""

    model: int
    inputs: int
    items: int
    costly_items: int
    tuning: int


@dataclass(frozen=True)
class Healthy:
    """Items of the healthy model that set and test the verdict "no fault"."""

    calibration: int
    test: int


@dataclass(frozen=True)
class Faithful:
    """Items and fractions of the faithfulness curves."""

    items: int
    fractions: tuple[float, ...]


@dataclass(frozen=True)
class Thresholds:
    """What the claims are judged by."""

    exact_top1: float
    random_alpha: float
    no_fault: float
    conformal_alpha: float


@dataclass(frozen=True)
class Protocol:
    """What is asked. The fields are those of ``causal_protocol.yaml``, where each is explained."""

    version: int
    seed: int
    tasks: tuple[str, ...] | None
    methods: tuple[str, ...] | None
    faults: Faults
    healthy: Healthy
    faithfulness: Faithful
    thresholds: Thresholds

    def describe(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    def limited(
        self, tasks: Sequence[str] | None, methods: Sequence[str] | None, n_faults: int | None, seed: int | None
    ) -> Protocol:
        """The same with what the command line names instead.

        Raises:
            TaskError: fewer than one fault is asked for.
        """
        if n_faults is not None and n_faults < 1:
            raise TaskError(f"{n_faults} faults are too few: ask for at least 1.")
        return replace(
            self,
            tasks=tuple(tasks) if tasks else self.tasks,
            methods=tuple(methods) if methods else self.methods,
            faults=self.faults if n_faults is None else replace(self.faults, model=n_faults),
            seed=self.seed if seed is None else seed,
        )


def read_protocol(path: Path | None = None, *, quick: bool = False) -> Protocol:
    """The protocol in a YAML file; None for the package's own.

    Args:
        path: the file.
        quick: with the numbers of its section ``quick``.

    Raises:
        TaskError: the file cannot be read, or a field is missing, unknown, or of the wrong kind.
    """
    import yaml

    source = path or files("otoscope.studies") / "causal_protocol.yaml"
    try:
        text = source.read_text("utf-8")
        given = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise TaskError(
            f"the protocol '{source}' cannot be read ({error}): give a YAML file like the package's own."
        ) from error
    if not isinstance(given, dict):
        raise TaskError(f"the protocol '{source}' is no mapping: give a YAML file like the package's own.")
    quicker = given.pop("quick", None) or {}
    for section, changes in quicker.items() if quick else ():
        given[section] = {**given[section], **changes} if isinstance(changes, dict) else changes
    parts: dict[str, Any] = {
        "faults": Faults, "healthy": Healthy, "faithfulness": Faithful, "thresholds": Thresholds,
    }  # fmt: skip
    _check(str(source), "", given, Protocol)
    for name, kind in parts.items():
        _check(str(source), f"{name}.", given[name], kind)
        given[name] = kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in given[name].items()})
    for name in ("tasks", "methods"):
        given[name] = None if given[name] is None else tuple(given[name])
    return Protocol(**given)


def _check(source: str, prefix: str, given: Any, kind: Any) -> None:
    """Refuse missing and unknown fields, and numbers that are none."""
    names = [field.name for field in fields(kind)]
    found = given if isinstance(given, Mapping) else {}
    wrong = [n for n in names if n not in found] or [n for n in found if n not in names]
    if wrong:
        raise TaskError(
            f"the protocol '{source}' has a missing or unknown field '{prefix}{wrong[0]}': its fields are "
            f"{', '.join(prefix + n for n in names)}."
        )
    for field in fields(kind):
        value = found[field.name]
        if field.type in ("int", "float") and (
            isinstance(value, bool) or not isinstance(value, int | float) or value < 0
        ):
            raise TaskError(
                f"the protocol '{source}' says {prefix}{field.name}: {value!r}; give a number that is not negative."
            )
