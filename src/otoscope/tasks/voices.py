"""The task ``voices``: does a man or a woman speak?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import product

import numpy as np

from otoscope.audio.clip import Clip
from otoscope.audio.synth import say
from otoscope.errors import TaskError
from otoscope.models.mini_labels import QUESTIONS, SEXES
from otoscope.tasks import hub
from otoscope.tasks.corpora import librispeech
from otoscope.tasks.pair import Pair
from otoscope.tasks.recordings import Recording, fitted
from otoscope.tasks.source import Made, Request, TaskSource, number_of
from otoscope.tasks.speakers import Voice, voices
from otoscope.tasks.task import Card, TaskItem

#: length of every clip, seconds
SECONDS = 3.0

#: what synthetic voices say: nothing in it speaks of a sex
TEXTS = (
    "the weather will be fine again tomorrow", "please leave the window open tonight",
    "the train to the city is late today", "there is fresh bread on the table",
    "we can meet at the corner at noon", "the library closes early on friday",
    "a cold wind came down from the hills", "the shop sells paper and pencils",
    "turn left after the second bridge", "the garden is green after the rain",
)  # fmt: skip


def _build(request: Request) -> Made:
    seconds = number_of(request, "seconds", SECONDS)
    if request.source == "synthetic":
        return _spoken(request, seconds)
    found = hub.librispeech() if request.source == "hub" else librispeech.recordings(request.folder)
    items = [
        _item(_cut(clean, seconds), _cut(corrupt, seconds), answer, clean.unit, request.seed)
        for (clean, corrupt), answer in _opposed(found, request.n, request.seed)
    ]
    return Made(items, SEXES, "LibriSpeech", librispeech.LICENCE)


def _opposed(found: Sequence[Recording], n: int, seed: int) -> list[tuple[tuple[Recording, Recording], str]]:
    """Recordings of readers of different sex: readers take turns, and each sex is the answer in turn."""
    rng = np.random.default_rng(seed)
    queues: dict[str, list[list[Recording]]] = {}
    for sex in SEXES:
        by_reader: dict[str, list[Recording]] = defaultdict(list)
        for recording in sorted(found, key=lambda r: r.name):
            if recording.labels.get("sex") == sex:
                by_reader[recording.unit].append(recording)
        readers = [by_reader[reader] for reader in sorted(by_reader)]
        queues[sex] = [[readers[i][j] for j in rng.permutation(len(readers[i]))] for i in rng.permutation(len(readers))]
        if not readers:
            raise TaskError(
                f"there is no recording of a {sex} reader: give LibriSpeech with its SPEAKERS.TXT, or a manifest.tsv with a "
                "column 'sex' (male or female)."
            )
    orders = {sex: _in_turns(queues[sex]) for sex in SEXES}
    pairs = []
    for index in range(min(n, 2 * min(map(len, orders.values())))):
        lap, turn = divmod(index, 2)
        answer, foil = SEXES[:: -1 if turn else 1]
        # half a list away, so that a recording is the foil long before or after it is the clean one
        other = (lap + len(orders[foil]) // 2 + turn) % len(orders[foil])
        pairs.append(((orders[answer][lap], orders[foil][other]), answer))
    return pairs


def _in_turns(queues: Sequence[list[Recording]]) -> list[Recording]:
    return [queue[i] for i in range(max(map(len, queues))) for queue in queues if i < len(queue)]


def _cut(recording: Recording, seconds: float) -> Clip:
    return fitted(recording.clip(), seconds)


def _spoken(request: Request, seconds: float) -> Made:
    known = voices(str(request.options.get("engine", "auto")))
    male, female = ([voice for voice in known if voice.sex == sex] for sex in SEXES)
    if not male or not female:
        raise TaskError(f"the engine '{known[0].engine}' has no voice of either sex here: use engine='espeak'.")
    rng = np.random.default_rng(request.seed)
    couples = list(product(male, female))
    couples = [couples[i] for i in rng.permutation(len(couples))]
    texts = [TEXTS[i] for i in rng.permutation(len(TEXTS))]
    items = []
    # every text by every couple, first with the man as the answer
    for index in range(min(request.n, 2 * len(texts) * len(couples))):
        lap, turn = divmod(index, 2)
        shift, place = divmod(lap, len(texts))
        man, woman = couples[(place + shift) % len(couples)]
        if turn == 0:
            items.append(_said(texts[place], man, woman, seconds, request.seed))
        else:
            items.append(_said(texts[place], woman, man, seconds, request.seed))
    return Made(items, SEXES, f"speech synthesis ({known[0].engine})", "free of rights")


def _said(text: str, clean: Voice, corrupt: Voice, seconds: float, seed: int) -> TaskItem:
    clips = [fitted(say(text, voice.name, voice.engine), seconds) for voice in (clean, corrupt)]
    # voices have levels of their own, which would tell them apart as well
    level = clips[0].rms
    clips[1] = clips[1].replace(samples=clips[1].samples * np.float32(level / clips[1].rms))
    return _item(clips[0], clips[1], clean.sex, clean.unit, seed, text)


def _item(clean: Clip, corrupt: Clip, answer: str, unit: str, seed: int, text: str = "") -> TaskItem:
    foil = next(sex for sex in SEXES if sex != answer)
    labels = {"sex": answer, "speaker": clean.speaker or "", "other_speaker": corrupt.speaker or ""}
    pair = Pair(
        clean, corrupt, (0.0, clean.duration), f"{clean.speaker} -> {corrupt.speaker}", text or None, text or None,
        name=f"{clean.name} ({clean.speaker} -> {corrupt.speaker})", seed=seed,
    )  # fmt: skip
    return TaskItem(pair, answer, foil, QUESTIONS["sex"][0], unit, labels)


TASK = TaskSource(
    name="voices",
    version=1,
    card=Card(
        summary="The same words by a man and by a woman; recorded speakers say different words.",
        factor="speaker",
        source="LibriSpeech, or speech synthesis",
        licence="CC BY 4.0 (LibriSpeech); free of rights (synthesis)",
        made_by=(
            "Synthetic: two voices say one text, brought to one length with silence at the end and to one level. Recorded: the "
            "loudest three seconds of two readers. Each sex is the answer as often as the other; speakers take turns."
        ),
        limits=(
            "Sex is the corpus's label for a reader, or the design of a voice; the task asks for what a voice sounds like. "
            "Recorded pairs differ in their words and their room as well, and synthetic ones in tempo."
        ),
        families=("audio-llm",),
        citation=librispeech.CITATION,
    ),
    build=_build,
    options={"seconds": "length of every clip, default 3", "engine": "of the synthesis: auto, flite or espeak"},
)
