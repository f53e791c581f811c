"""The task ``minimal-pairs``: two English words that differ in one phonological feature of one phone, said in one frame."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from otoscope.errors import TaskError
from otoscope.tasks.minimal import spoken_pair
from otoscope.tasks.phonology import FEATURES, WordPair, word_pairs
from otoscope.tasks.source import Made, Request, TaskSource
from otoscope.tasks.speakers import Voice, voices
from otoscope.tasks.task import Card, TaskItem

FRAME = "please say {} again"


class _Said(NamedTuple):
    """What one item says, and by which voice."""

    words: WordPair
    answer: str
    foil: str
    values: tuple[str, str]
    voice: Voice


def _build(request: Request) -> Made:
    options = request.options
    frame = str(options.get("frame", FRAME))
    before, slot, after = frame.partition("{}")
    if not slot or not (before.strip() or after.strip()):
        raise TaskError(
            f"the frame '{frame}' has no place for the word: give a sentence with one {{}}, such as '{FRAME}'."
        )
    spoken = _order(word_pairs(options.get("feature")), voices(str(options.get("engine", "auto"))), request.seed)
    items = [_item(said, frame, request.seed) for said in spoken[: request.n]]
    return Made(items, source=f"speech synthesis ({spoken[0].voice.engine})", licence="free of rights")


def _order(lexicon: list[WordPair], known: tuple[Voice, ...], seed: int) -> list[_Said]:
    """Every pair by every voice, features and voices in turn, each word the answer and the foil in turn."""
    rng = np.random.default_rng(seed)
    queues: list[list[_Said]] = []
    for feature in FEATURES:
        pairs = [pair for pair in lexicon if pair.feature == feature]
        pairs = [pairs[i] for i in rng.permutation(len(pairs))]
        first, turned = rng.permutation(len(known)), int(rng.integers(2))
        queue = []
        for lap in range(len(known)):
            for place, pair in enumerate(pairs):
                said = (pair.first, pair.second, pair.values)
                # the words change roles from pair to pair, and each pair's from lap to lap
                if (place + lap + turned) % 2:
                    said = (pair.second, pair.first, pair.values[::-1])
                queue.append(_Said(pair, *said, known[first[(place + lap) % len(known)]]))
        if queue:
            queues.append(queue)
    longest = max(len(queue) for queue in queues)
    return [queue[i] for i in range(longest) for queue in queues if i < len(queue)]


def _item(said: _Said, frame: str, seed: int) -> TaskItem:
    pair = spoken_pair(
        frame.format(said.answer), frame.format(said.foil), engine=said.voice.engine, voice=said.voice.name, join=True
    )
    name = f"{said.voice.unit}/{said.words.feature}/{said.answer}-{said.foil}"
    labels = {
        "feature": said.words.feature, "phones": "/".join(said.words.phones), "values": " -> ".join(said.values),
        "voice": said.voice.unit, "sex": said.voice.sex,
    }  # fmt: skip
    # in the order of the alphabet, so that the question does not tell the answer
    one, other = sorted((said.answer, said.foil))
    question = f"Which word was said, {one} or {other}?"
    return TaskItem(pair.replace(name=name, seed=seed), said.answer, said.foil, question, said.voice.unit, labels)


TASK = TaskSource(
    name="minimal-pairs",
    version=1,
    card=Card(
        summary="Two English words that differ in one phonological feature: voicing, place, manner or vowel height.",
        factor="one phonological feature",
        source="speech synthesis",
        licence="free of rights",
        made_by=(
            f"Both words are spoken in the frame '{FRAME}' by one voice, and the corrupt sound begins with the clean one's own "
            "samples up to the phone that differs (cross-fade of 5 ms). The span runs from there to the end of the word. "
            "Features and voices take turns; either word of a pair is the answer."
        ),
        limits=(
            "Synthetic speech is more regular than people's. What a voice does to the phones before the change is that of the "
            "clean word in both sounds; a voice shapes the phones after it as well, and where the two words last differently, "
            "what follows is shifted by a constant. Words are rare and out of context, so that a recogniser may write the two "
            "sounds differently and neither word as it was said: for Whisper tiny.en, `python truth/minimal_pairs.py` counts "
            "both, and the ledger has them (rows minimal_pairs_told and minimal_pairs_written). What it writes instead is then "
            "compared, not the words themselves."
        ),
        citation="Ladefoged and Johnson, A Course in Phonetics (features); CMUdict (phones)",
    ),
    build=_build,
    sources=("synthetic",),
    options={
        "feature": f"only pairs that differ in it: {', '.join(FEATURES)}",
        "frame": f"the sentence around the word, with one {{}}; default '{FRAME}'",
        "engine": "of the synthesis: auto, flite or espeak",
    },
)
