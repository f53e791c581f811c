"""Pose a task's item to a model: the inputs of both sounds, and the one number that tells which of the two it heard.

The number is the logit of the answer's next token minus that of the foil's. A speech recogniser is posed the place where
its own two transcripts part; an audio-LLM is asked the item's question. An item whose healthy answers are wrong shows no
behaviour that could be explained, so it is passed over.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from otoscope.engine.metrics import LogitDiff
from otoscope.engine.model import Model
from otoscope.errors import TaskError
from otoscope.methods.contrast import contrast
from otoscope.models.inputs import Inputs
from otoscope.models.wer import normaliser
from otoscope.tasks.task import Task, TaskItem


@dataclass(frozen=True, eq=False)
class Posed:
    """An item as a model reads it.

    Attributes:
        item: the item.
        clean, corrupt: inputs of equal lengths.
        metric: logit of the answer minus logit of the foil; positive after the clean sound, negative after the corrupt one.
        context: decoder positions of words before the question (none, unless a context was given).
    """

    item: TaskItem
    clean: Inputs
    corrupt: Inputs
    metric: LogitDiff
    context: tuple[int, ...] = ()


def pose(model: Model, item: TaskItem, options: Iterable[str] = ()) -> Posed | None:
    """The item as this model reads it; None where the model does not tell the two sounds apart rightly.

    Args:
        model: a Whisper or an audio-LLM.
        item: the item.
        options: the task's closed set of labels; a recogniser must then write exactly answer and foil.

    Raises:
        ModelError: the model neither transcribes nor can be asked.
    """
    return _asked(model, item) if model.listens_and_reads else _transcribed(model, item, bool(tuple(options)))


def pose_all(model: Model, task: Task, n: int | None = None) -> list[Posed]:
    """The first ``n`` items of a task that the model tells apart rightly.

    Raises:
        TaskError: it does so for none.
    """
    found: list[Posed] = []
    for item in task:
        if n is not None and len(found) == n:
            break
        posed = pose(model, item, task.options)
        if posed is not None:
            found.append(posed)
    if not found:
        raise TaskError(
            f"{model.name} hears none of the {len(task)} pairs of '{task.name}' rightly, so there is no behaviour to explain: "
            "choose another task or a better model."
        )
    return found


def _transcribed(model: Model, item: TaskItem, closed: bool) -> Posed | None:
    pair = item.pair
    try:
        found = contrast(model, pair.clean, pair.corrupt)
    except TaskError:  # the same transcript for both
        return None
    if closed:
        same = normaliser()  # "7." is seven
        heard = [same(text) for text in (found.clean_text, found.corrupt_text)]
        if heard != [same(text) for text in (item.answer, item.foil)]:
            return None
    clean, corrupt = (found.inputs(model, clip) for clip in (pair.clean, pair.corrupt))
    return Posed(item, clean, corrupt, found.metric)


def _asked(model: Model, item: TaskItem) -> Posed | None:
    answer, foil = (model.label_tokens(label)[0] for label in (item.answer, item.foil))
    if answer == foil:  # one token cannot tell them apart
        return None
    clean, corrupt = (model.ask(clip, item.question) for clip in (item.pair.clean, item.pair.corrupt))
    position = clean.groups["answer"][0]
    metric = LogitDiff(answer, foil, position)
    for asked, sign in ((clean, 1), (corrupt, -1)):
        best = int(model.run(asked.inputs).logits[0, position].argmax())
        if best != (answer if sign > 0 else foil):
            return None
    return Posed(item, clean.inputs, corrupt.inputs, metric, clean.groups.get("context", ()))
