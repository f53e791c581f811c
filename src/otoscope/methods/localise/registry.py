"""Methods by name. A method is a function of a :class:`~otoscope.methods.localise.case.Case`; a decorator puts it here.

    @method("largest change", arms=("repair",), summary="the place whose value changed most")
    def largest_change(case):
        rows = []
        for i in range(case.n_items):
            base, donor = case.base_values(i), case.donor_values(i)
            rows.append([float((p.of(donor[p.site]) - p.of(base[p.site])).norm()) for p in case.places])
        return np.array(rows)

A package of yours may name its function under the entry-point group ``otoscope.localisers``; then every leaderboard has
it. ``otoscope bench causal --plugin FILE.py`` runs a file of yours first.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from jaxtyping import Float

from otoscope.errors import TaskError

if TYPE_CHECKING:
    from otoscope.methods.localise.case import Case

Arm = Literal["repair", "pairs", "circuit"]
#: larger is more suspect; NaN where the method cannot say anything about a place
Scores = Float[np.ndarray, "item place"] | Float[np.ndarray, " place"]
Score = Callable[["Case"], Scores]

GROUP = "otoscope.localisers"


@dataclass(frozen=True)
class Method:
    """One method under test.

    Attributes:
        name: its name in tables.
        score: the function.
        arms: the runs it may compare (see :mod:`otoscope.methods.localise.case`).
        summary: one line for tables.
        costly: whether it asks one patched run of every place, so that a quick benchmark gives it fewer items.
    """

    name: str
    score: Score
    arms: tuple[Arm, ...]
    summary: str = ""
    costly: bool = False


_METHODS: dict[str, Method] = {}


def method(
    name: str, *, arms: Sequence[Arm] = ("repair", "pairs"), summary: str = "", costly: bool = False
) -> Callable[[Score], Score]:
    """Register a function as the method ``name``; a name that is there already is replaced.

    Args:
        name: its name in tables.
        arms: which runs it may compare.
        summary: one line for tables.
        costly: whether it asks one patched run of every place.
    """

    def register(score: Score) -> Score:
        _METHODS[name] = Method(name, score, tuple(arms), summary, costly)
        return score

    return register


def methods() -> dict[str, Method]:
    """Every method: our own, those of installed packages, and those that were registered in this process."""
    _load()
    return dict(_METHODS)


def get(name: str) -> Method:
    """A method by name.

    Raises:
        TaskError: there is none.
    """
    known = methods()
    if name not in known:
        raise TaskError(f"there is no method '{name}': the methods are {', '.join(known)}.")
    return known[name]


@cache
def _load() -> None:
    """Import our own files, and what installed packages name."""
    package = importlib.import_module("otoscope.methods.localise")
    mine = dict(_METHODS)
    for module in sorted(m.name for m in pkgutil.iter_modules(package.__path__)):
        importlib.import_module(f"{package.__name__}.{module}")
    for entry in entry_points(group=GROUP):
        found: Any = entry.load()
        if callable(found) and entry.name not in _METHODS:
            method(entry.name, summary=(found.__doc__ or "").strip().split("\n")[0])(cast(Score, found))
    _METHODS.update(mine)  # what the user registered first stays theirs
