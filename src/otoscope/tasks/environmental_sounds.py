"""The task ``sounds``: which environmental sound is heard?"""

from __future__ import annotations

from functools import partial

from otoscope.errors import TaskError
from otoscope.models.mini_labels import OPTIONS, QUESTIONS
from otoscope.tasks import hub
from otoscope.tasks.corpora import esc50
from otoscope.tasks.made_sounds import MADE, made_sound
from otoscope.tasks.opposed import Opposed, oppose
from otoscope.tasks.pair import Pair
from otoscope.tasks.recordings import Recording, fitted
from otoscope.tasks.source import Made, Request, TaskSource, number_of
from otoscope.tasks.task import Card, TaskItem

#: length of every clip, seconds: that of the corpus
SECONDS = 5.0
#: sounds of each class that are made where there is no data
_MADE_EACH = 20


def _build(request: Request) -> Made:
    seconds = number_of(request, "seconds", SECONDS)
    if request.source == "synthetic":
        labels = tuple(MADE)
        found = [_made(label, seed, seconds) for label in labels for seed in range(_MADE_EACH)]
        name, licence = "sounds made by rule", "free of rights"
    else:
        found = _recorded(request)
        there = {recording.label for recording in found}
        labels = tuple(label for label in OPTIONS["sound"] if label in there)
        name, licence = "ESC-50 / ESC-10", esc50.LICENCE
        if len(labels) < 2:
            raise TaskError(
                f"of the ten classes of ESC-10 there is {', '.join(labels) or 'none'}: give the whole corpus."
            )
    pairs = oppose(found, labels, request.n, request.seed, corpus=name)
    return Made([_item(pair, seconds, request.seed) for pair in pairs], labels, name, licence)


def _recorded(request: Request) -> list[Recording]:
    found = hub.esc50() if request.source == "hub" else esc50.recordings(request.folder)
    fold = request.options.get("fold")
    if fold is None:
        return found
    kept = [recording for recording in found if recording.labels.get("fold") == str(fold)]
    if not kept:
        raise TaskError(
            f"there is no fold '{fold}': folds are {', '.join(sorted({r.labels.get('fold', '') for r in found}))}."
        )
    return kept


def _made(label: str, seed: int, seconds: float) -> Recording:
    name = f"{label}-{seed}"
    return Recording(name, label, name, partial(made_sound, label, seconds, seed))


def _item(pair: Opposed, seconds: float, seed: int) -> TaskItem:
    clean, corrupt = (fitted(recording.clip(), seconds) for recording in pair)
    answer, foil = pair.clean.label, pair.corrupt.label
    made = Pair(
        clean, corrupt, (0.0, clean.duration), f"{answer!r} -> {foil!r}",
        name=f"{pair.clean.name} -> {pair.corrupt.name}", seed=seed,
    )  # fmt: skip
    return TaskItem(made, answer, foil, QUESTIONS["sound"][0], pair.clean.unit, dict(pair.clean.labels))


TASK = TaskSource(
    name="sounds",
    version=1,
    card=Card(
        summary="One environmental sound against another.",
        factor="sound class",
        source="ESC-50 (the ten classes of ESC-10), or sounds made by rule",
        licence=f"{esc50.LICENCE}; free of rights (made by rule)",
        made_by=(
            "Two clips of five seconds of different classes; every class is answer and foil equally often, and clips that were "
            "cut from one recording count as one unit."
        ),
        limits=(
            "The two differ everywhere, level and silence included, so nothing can be said about single frames. Sounds that "
            "are made by rule are sketches: a model that knows recordings may not know them."
        ),
        families=("audio-llm",),
        citation=esc50.CITATION,
    ),
    build=_build,
    options={"fold": "only that one of the corpus's five folds", "seconds": "length of every clip, default 5"},
)
