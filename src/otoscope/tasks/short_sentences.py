"""The task ``sentences``: one content word of a sentence is another one, and all else is the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from otoscope.audio.align import align
from otoscope.audio.clip import Clip
from otoscope.errors import AudioError, TaskError
from otoscope.tasks import hub
from otoscope.tasks.corpora import librispeech
from otoscope.tasks.minimal import spoken_pair
from otoscope.tasks.pair import Pair
from otoscope.tasks.planted import overwrite_pairs
from otoscope.tasks.recordings import Recording
from otoscope.tasks.source import Made, Request, TaskSource, number_of
from otoscope.tasks.speakers import voices
from otoscope.tasks.task import Card, TaskItem

#: longest recorded sentence, seconds, and fewest words
LONGEST, FEWEST_WORDS = 8.0, 4
#: sentences of a speaker that lend words to each other
_GROUP = 3

#: sentence -> the two words that fit its gap
SENTENCES = {
    "the old man sold his {} this morning": ("horse", "house"),
    "she put the {} on the kitchen table": ("letter", "bottle"),
    "we walked along the {} until dark": ("river", "street"),
    "my brother is afraid of the {} next door": ("dog", "doctor"),
    "they painted the {} blue last summer": ("door", "boat"),
    "he wrote a long {} about the war": ("book", "story"),
    "the children found a {} in the garden": ("bird", "coin"),
    "please bring the {} back on monday": ("money", "keys"),
    "her mother bought a new {} in town": ("dress", "chair"),
    "there is a small {} behind the church": ("school", "garden"),
    "he lost his {} on the train yesterday": ("ticket", "jacket"),
    "the farmer keeps his {} in the barn": ("tractor", "chickens"),
    "i would like some {} with my dinner": ("water", "bread"),
    "the teacher asked for {} in the room": ("silence", "windows"),
    "they crossed the {} before the storm": ("mountain", "border"),
    "a tall {} was waiting at the corner": ("woman", "soldier"),
    "the captain saw an {} on the horizon": ("island", "army"),
    "nobody heard the {} that night": ("music", "thunder"),
    "we had to leave our {} at the station": ("luggage", "uncle"),
    "the king gave the {} to his daughter": ("castle", "ring"),
}


def _build(request: Request) -> Made:
    if request.source == "synthetic":
        return _spoken(request)
    found = hub.librispeech() if request.source == "hub" else librispeech.recordings(request.folder)
    longest = number_of(request, "seconds", LONGEST)
    if not any(r.text for r in found):
        raise TaskError(
            "none of the recordings has a text: give LibriSpeech with its transcripts, or a manifest.tsv with a column 'text'."
        )
    items = [_item(pair, request.seed) for pair, _ in zip(_replaced(found, longest, request.seed), range(request.n))]
    if not items:
        raise TaskError(
            f"no sentence of at most {longest:g} s has a word that another one of its speaker's fits: give more sentences."
        )
    return Made(items, source="LibriSpeech", licence=librispeech.LICENCE)


def _replaced(found: list[Recording], longest: float, seed: int) -> Iterator[Pair]:
    """Pairs of recorded sentences: one of each speaker, then a second one of each, and so on.

    Each speaker's sentences come in small groups, in which every one lends words to the others: a group is aligned only
    when it is reached, and its pairs do not depend on how many are asked for.
    """
    rng = np.random.default_rng(seed)
    by_unit: dict[str, list[Recording]] = defaultdict(list)
    for recording in sorted(found, key=lambda r: r.name):
        if len(recording.text.split()) >= FEWEST_WORDS:
            by_unit[recording.unit].append(recording)
    order = [sorted(by_unit)[i] for i in rng.permutation(len(by_unit))]
    queues = [
        _of_speaker([by_unit[unit][i] for i in rng.permutation(len(by_unit[unit]))], longest, seed) for unit in order
    ]
    while queues:
        left = []
        for queue in queues:
            pair = next(queue, None)
            if pair is not None:
                left.append(queue)
                yield pair
        queues = left


def _of_speaker(recordings: list[Recording], longest: float, seed: int) -> Iterator[Pair]:
    group: list[Clip] = []
    for number, recording in enumerate(recordings, start=1):
        clip = recording.clip()
        # the capitals of the corpus would look like initials to a reader
        clip = clip.replace(text=recording.text.lower())
        if clip.duration <= longest:
            try:
                group.append(align(clip))
            except AudioError as error:
                if "pip install" in str(error):
                    raise
                # a sentence that cannot be aligned is passed over
        if group and (len(group) == _GROUP or number == len(recordings)):
            try:
                yield from overwrite_pairs(group, "word", seed=seed)
            except TaskError:  # no word of these fits in the place of another
                pass
            group = []


def _item(pair: Pair, seed: int) -> TaskItem:
    word, donor = (pair.corrupt.labels[key].lower() for key in ("word", "donor"))
    place = int(pair.name.rpartition("/")[2].partition("-")[0])
    words = [span.text.lower() for span in pair.clean.words]
    gapped = " ".join([*words[:place], "...", *words[place + 1 :]])
    return TaskItem(pair, word, donor, _question(gapped), pair.clean.speaker or "", {"kind": "recorded"})


def _question(gapped: str) -> str:
    return f"Which word was said in the gap: {gapped}?"


def _spoken(request: Request) -> Made:
    known = voices(str(request.options.get("engine", "auto")))
    rng = np.random.default_rng(request.seed)
    frames = list(SENTENCES)
    frames = [frames[i] for i in rng.permutation(len(frames))]
    first, turned = rng.permutation(len(known)), int(rng.integers(2))
    items = []
    for index in range(min(request.n, len(frames) * len(known))):
        lap, place = divmod(index, len(frames))
        voice, frame = known[first[(place + lap) % len(known)]], frames[place]
        answer, foil = SENTENCES[frame][:: -1 if (place + lap + turned) % 2 else 1]
        pair = spoken_pair(frame.format(answer), frame.format(foil), engine=voice.engine, voice=voice.name, join=True)
        pair = pair.replace(name=f"{voice.unit}/{answer}-{foil}", seed=request.seed)
        labels = {"kind": "spoken", "voice": voice.unit, "sex": voice.sex}
        items.append(TaskItem(pair, answer, foil, _question(frame.format("...")), voice.unit, labels))
    return Made(items, source=f"speech synthesis ({known[0].engine})", licence="free of rights")


TASK = TaskSource(
    name="sentences",
    version=1,
    card=Card(
        summary="A short sentence, and the same one with one content word replaced by another.",
        factor="word",
        source="LibriSpeech, or speech synthesis",
        licence="CC BY 4.0 (LibriSpeech); free of rights (synthesis)",
        made_by=(
            "Recorded: words are found by forced alignment, and another word of the same speaker is put in the place of one, "
            "stretched to its length, so both sentences are bit-identical outside it. Synthetic: one voice speaks a "
            "sentence with either word, and both begin with the same samples. Speakers take turns."
        ),
        limits=(
            "A spliced word need not fit the sense, and its edges can be heard; a model that guesses from context may write the "
            "word that was there. In synthetic pairs, what follows the word is shifted where the words last differently."
        ),
        citation=librispeech.CITATION,
    ),
    build=_build,
    options={"seconds": "longest recorded sentence, default 8", "engine": "of the synthesis: auto, flite or espeak"},
)
