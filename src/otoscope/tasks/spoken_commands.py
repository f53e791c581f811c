"""The task ``commands``: which command word is spoken?"""

from __future__ import annotations

from otoscope.errors import TaskError
from otoscope.models.mini_labels import COMMANDS
from otoscope.tasks import hub
from otoscope.tasks.corpora import speech_commands
from otoscope.tasks.source import Made, Request, TaskSource
from otoscope.tasks.spoken_word_items import recorded, spoken
from otoscope.tasks.task import Card


def _build(request: Request) -> Made:
    words = words_of(request, COMMANDS)
    if request.source == "synthetic":
        items, engine = spoken(words, request.n, request.seed, str(request.options.get("engine", "auto")))
        return Made(items, words, f"speech synthesis ({engine})", "free of rights")
    found = hub.speech_commands(words) if request.source == "hub" else speech_commands.recordings(request.folder, words)
    items = recorded(found, words, request.n, request.seed, "Speech Commands")
    return Made(items, words, "Speech Commands v0.02", speech_commands.LICENCE)


def words_of(request: Request, default: tuple[str, ...]) -> tuple[str, ...]:
    """The words that a caller asked for with ``words=``, a list or a text with commas.

    Raises:
        TaskError: fewer than two, or one twice.
    """
    given = request.options.get("words", default)
    words = tuple(word.strip() for word in given.split(",")) if isinstance(given, str) else tuple(given)
    if len(words) < 2 or len(set(words)) < len(words) or not all(words):
        raise TaskError(f"words is '{', '.join(words)}': give at least two words, each once, such as words='yes,no'.")
    return words


TASK = TaskSource(
    name="commands",
    version=1,
    card=Card(
        summary="One spoken command word against another.",
        factor="word",
        source="Speech Commands v0.02, or speech synthesis",
        licence="CC BY 4.0 (Speech Commands); free of rights (synthesis)",
        made_by=(
            "Two recordings of one second, of one speaker where one has said both words; every word is answer and foil "
            "equally often, and no speaker is used more often than needed. Where the corpus has its own list of test "
            "recordings, only these are used."
        ),
        limits=(
            "The two recordings differ in everything that two utterances differ in, timing and loudness included, so "
            "effects at single frames say little. Where no speaker has said both words, the speaker differs as well."
        ),
        citation=speech_commands.CITATION,
    ),
    build=_build,
    options={"words": "the vocabulary, separated by commas", "engine": "of the synthesis: auto, flite or espeak"},
)
