"""The task ``digits``: which digit is spoken?"""

from __future__ import annotations

from typing import get_args

from otoscope.errors import TaskError
from otoscope.models.mini_labels import DIGITS
from otoscope.tasks import hub
from otoscope.tasks.corpora import fsdd, speech_commands
from otoscope.tasks.source import Made, Request, TaskSource
from otoscope.tasks.spoken_word_items import recorded, spoken
from otoscope.tasks.task import Card


def _build(request: Request) -> Made:
    if request.source == "synthetic":
        items, engine = spoken(DIGITS, request.n, request.seed, str(request.options.get("engine", "auto")))
        return Made(items, DIGITS, f"speech synthesis ({engine})", "free of rights")
    split = request.options.get("split", "all")
    if split not in get_args(fsdd.Split):
        raise TaskError(f"split is '{split}': choose one of {', '.join(get_args(fsdd.Split))}.")
    name, licence = "Free Spoken Digit Dataset", fsdd.LICENCE
    if request.source == "hub":
        found = hub.fsdd(split)
    elif fsdd.is_there(request.folder):
        found = fsdd.recordings(request.folder, split)
    else:  # the words zero to nine of Speech Commands
        found = speech_commands.recordings(request.folder, DIGITS)
        name, licence = "Speech Commands v0.02", speech_commands.LICENCE
    return Made(recorded(found, DIGITS, request.n, request.seed, name), DIGITS, name, licence)


TASK = TaskSource(
    name="digits",
    version=1,
    card=Card(
        summary="One spoken digit against another.",
        factor="word",
        source="Free Spoken Digit Dataset or Speech Commands v0.02, or speech synthesis",
        licence="CC BY-SA 4.0 (FSDD); CC BY 4.0 (Speech Commands); free of rights (synthesis)",
        made_by=(
            "Two recordings of one speaker, brought to one second with silence at their end; every digit is answer and foil "
            "equally often, and speakers take turns."
        ),
        limits=(
            "The Free Spoken Digit Dataset has few speakers and is recorded at 8 kHz, so intervals over speakers are wide "
            "and nothing above 4 kHz can matter."
        ),
        citation=f"{fsdd.CITATION}; {speech_commands.CITATION}",
    ),
    build=_build,
    options={
        "split": "of the Free Spoken Digit Dataset: all, test (takes 0 to 4) or train",
        "engine": "of the synthesis: auto, flite or espeak",
    },
)
