"""The four runs that an exchange of states compares, and whether a model can be asked an item at all.

A corner is named by what the sound says and then by what the context says: in ``AB`` the sound says A and the context B.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple, get_args

from otoscope.engine.model import Model
from otoscope.errors import TaskError
from otoscope.models.prompt import Asked
from otoscope.tasks.conflict import ConflictItem, ConflictTask, Context
from otoscope.tasks.conflict_sounds import Sound

Corner = Literal["AA", "AB", "BA", "BB"]

CORNERS: tuple[Corner, ...] = get_args(Corner)
_SOUND: dict[str, Sound] = {"A": "clean", "B": "counterfactual"}
_CONTEXT: dict[str, Context] = {"A": "agreeing", "B": "conflicting"}


class Refused(NamedTuple):
    """An item that a model cannot be asked, and the sentence that says why."""

    id: str
    why: str


def usable(model: Model, task: ConflictTask) -> tuple[ConflictTask, tuple[Refused, ...]]:
    """The items whose labels and corner runs this model can be compared on, and those refused, with the reason.

    Raises:
        TaskError: no item is left; the sentence holds the first refusal.
    """
    kept: list[ConflictItem] = []
    refused: list[Refused] = []
    tokens: dict[str, tuple[int, ...]] = {}
    for item in task:
        try:
            check_labels(model, item, tokens)
            _asked(model, item, CORNERS if "counterfactual" in item.clips else ("AA", "AB"))
            kept.append(item)
        except TaskError as error:
            refused.append(Refused(item.id, str(error)))
    if not kept:
        raise TaskError(f"{model.name} can be asked no item of the task '{task.name}': {refused[0].why}")
    return replace(task, items=tuple(kept)), tuple(refused)


def check_labels(model: Model, item: ConflictItem, tokens: dict[str, tuple[int, ...]] | None = None) -> None:
    """Refuse an item two of whose labels begin with the same token: the first token would not tell them apart.

    Args:
        model: whose tokens they are.
        item: its labels.
        tokens: labels whose tokens are known, filled here; for many items with the same options.

    Raises:
        TaskError: the sentence names the labels and the model.
    """
    first: dict[int, str] = {}
    known = {} if tokens is None else tokens
    for label in item.labels:
        if label not in known:
            known[label] = model.label_tokens(label)
        if not known[label]:
            raise TaskError(f"The label '{label}' of item '{item.id}' has no tokens in {model.name}; leave it out.")
        if (other := first.setdefault(known[label][0], label)) != label:
            raise TaskError(
                f"'{other}' and '{label}' of item '{item.id}' begin with the same token in {model.name}, so its first token "
                "cannot tell them apart: choose labels that begin differently."
            )


def corners(model: Model, item: ConflictItem) -> dict[Corner, Asked]:
    """The four runs of an item: sound says A or B (first letter), context says A or B (second letter).

    All four have equally many tokens, with every group at the same positions, so that states can be exchanged.

    Raises:
        TaskError: the item has no counterfactual sound, its labels collide, or its runs differ in length.
    """
    check_labels(model, item)
    item.clip("counterfactual")
    return _asked(model, item, CORNERS)


def _asked(model: Model, item: ConflictItem, wanted: Sequence[Corner]) -> dict[Corner, Asked]:
    made: dict[Corner, Asked] = {corner: item.ask(model, _SOUND[corner[0]], _CONTEXT[corner[1]]) for corner in wanted}
    (name, one), *others = made.items()
    for other_name, other in others:
        lengths = [0 if a.inputs.tokens is None else a.inputs.tokens.shape[1] for a in (one, other)]
        if lengths[0] != lengths[1]:
            raise TaskError(
                f"Item '{item.id}' makes {lengths[0]} tokens in the run {name} and {lengths[1]} in {other_name} (sound, then "
                f"context; A is '{item.sound_label}', B '{item.text_label}'); states can only be exchanged between runs of "
                "equal length, so pair labels with equally many tokens."
            )
        if dict(one.groups) != dict(other.groups):
            group = next(g for g in {**one.groups, **other.groups} if one.groups.get(g) != other.groups.get(g))
            raise TaskError(
                f"Item '{item.id}' has its {group} at other positions in the run {name} than in {other_name}; use contexts "
                "that differ in the label alone."
            )
    return made
