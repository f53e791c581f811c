"""The sounds that corruptions are audited on: sentences with word times, and what some corruptions need beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np

from otoscope.audio.align import align
from otoscope.audio.clip import Clip
from otoscope.audio.stretch import stretched
from otoscope.audio.synth import say
from otoscope.errors import AudioError, TaskError
from otoscope.tasks.corpora import librispeech
from otoscope.tasks.minimal import spoken_pair
from otoscope.tasks.pair import Pair
from otoscope.tasks.phonology import word_pairs
from otoscope.tasks.planted import overwrite_pairs
from otoscope.tasks.recordings import Recording
from otoscope.tasks.short_sentences import SENTENCES
from otoscope.tasks.speakers import Voice, voices

#: Longest and shortest recorded sentence, seconds, and fewest words.
LONGEST, SHORTEST, FEWEST_WORDS = 6.0, 2.0, 5
#: Sentences of a speaker that lend words to each other.
_GROUP = 3
#: Utterances of each speaker that the speaker yardstick is tested on.
_RETESTS = 3
FRAME = "please say {} again"
#: Voices that a space of speakers is trained on where there are no recordings: none of them speaks a sentence.
TRAINING_VOICES = (
    "en-gb-x-rp", "en-us+f1", "en-us+m1", "en-us+m2", "en-us+m4", "en-gb-scotland", "en-us+m5", "en-gb+f4", "en-us+m6",
    "en-029",
)  # fmt: skip
_TRAINING_TEXTS = 6


@dataclass(frozen=True, eq=False)
class Utterance:
    """A sentence, one word of it, and what corruptions put in.

    Attributes:
        clip: 16 kHz, with text, speaker and word times.
        span: of the word, seconds.
        spliced: the same sentence with another word of the same speaker (where one fits) in the place of that word.
        other: a sentence by someone else.
        noise: a recording without speech, where there is one.
    """

    clip: Clip
    span: tuple[float, float]
    spliced: Clip
    other: Clip
    noise: Clip | None


@dataclass(frozen=True, eq=False)
class Sounds:
    """All that an audit needs.

    Attributes:
        utterances: sentences, speakers in turn.
        minimal: synthetic pairs of words that differ in one phone.
        word_swaps: synthetic pairs of sentences that differ in one word.
        voice_swaps: pairs of one text by two synthetic voices, the second stretched to the length of the first.
        training: utterances of speakers that are in no other part.
        retests: utterances, two or more of each of some speakers that are not in ``training``.
        source: where the sentences come from, in words.
    """

    utterances: tuple[Utterance, ...]
    minimal: tuple[Pair, ...]
    word_swaps: tuple[Pair, ...]
    voice_swaps: tuple[Pair, ...]
    training: tuple[Clip, ...]
    retests: tuple[Clip, ...]
    source: str


def gather(n: int, seed: int = 0, data: Path | None = None) -> Sounds:
    """Make the sounds: recordings where ``data`` has LibriSpeech, else speech synthesis.

    Args:
        n: sentences.
        seed: of every draw.
        data: folder that holds ``librispeech`` (with texts), and perhaps ``librispeech_speakers`` (other readers) and
            ``esc10`` (noises); None makes all sounds by synthesis.

    Raises:
        TaskError: a folder is given that holds too little.
        AudioError: no engine of speech is installed, or a recording cannot be read.
    """
    known = voices()
    if data is None:
        pairs, source = _spoken(n, known, seed), f"speech synthesis ({known[0].engine})"
        training, retests, noises = _spoken_training(), [pair.clean for pair in pairs], []
    else:
        pairs, retests, source = _recorded(n, data, seed)
        training, noises = _training(data), _noises(data, n)
    utterances = []
    for i, pair in enumerate(pairs):
        others = [p.clean for p in pairs[i + 1 :] + pairs[:i] if p.clean.speaker != pair.clean.speaker]
        if not others:
            raise TaskError("all sentences are by one speaker: give recordings of two or more.")
        noise = noises[i % len(noises)] if noises else None
        utterances.append(Utterance(pair.clean, pair.span, pair.corrupt, others[0], noise))
    return Sounds(
        tuple(utterances), _minimal(n, known, seed), _word_swaps(n, known, seed), _voice_swaps(n, known, seed),
        tuple(training), tuple(retests), source,
    )  # fmt: skip


def _recorded(n: int, data: Path, seed: int) -> tuple[list[Pair], list[Clip], str]:
    if not data.is_dir():
        raise TaskError(f"there is no folder '{data}': give one that holds LibriSpeech, or none for speech synthesis.")
    by_speaker: dict[str, list[Recording]] = {}
    for recording in sorted(librispeech.recordings(data), key=lambda r: r.name):
        if len(recording.text.split()) >= FEWEST_WORDS:
            by_speaker.setdefault(recording.unit, []).append(recording)
    rng = np.random.default_rng(seed)
    order = [sorted(by_speaker)[i] for i in rng.permutation(len(by_speaker))]
    queues = [_of_speaker([by_speaker[s][i] for i in rng.permutation(len(by_speaker[s]))], seed) for s in order]
    pairs: list[Pair] = []
    for lap in zip_longest(*queues):
        pairs += [pair for pair in lap if pair is not None]
        if len(pairs) >= n:
            break
    if len(pairs) < n:
        raise TaskError(
            f"'{data}' has {len(pairs)} sentences of {SHORTEST:g} to {LONGEST:g} s in which one word fits in the place of "
            f"another, and {n} were asked for: give more recordings with their texts, or ask for fewer (--n)."
        )
    retests = [recording.clip() for speaker in order for recording in by_speaker[speaker][:_RETESTS]]
    return pairs[:n], [clip for clip in retests if clip.duration <= 2 * LONGEST], "LibriSpeech (CC BY 4.0)"


def _of_speaker(recordings: list[Recording], seed: int) -> Iterator[Pair]:
    """Sentences of a speaker in small groups, aligned when they are reached, with a word of the group in place of one."""
    group: list[Clip] = []
    for number, recording in enumerate(recordings, start=1):
        clip = recording.clip()
        if SHORTEST <= clip.duration <= LONGEST:
            try:
                group.append(align(clip.replace(text=recording.text.lower())))
            except AudioError as error:
                if "pip install" in str(error):
                    raise
                # a sentence that does not fit its text is passed over
        if group and (len(group) == _GROUP or number == len(recordings)):
            try:
                yield from overwrite_pairs(group, "word", seed=seed)
            except TaskError:  # no word of these fits in the place of another
                pass
            group = []


def _training(data: Path) -> list[Clip]:
    folder = data / "librispeech_speakers"
    if not folder.is_dir():
        return _spoken_training()
    return [recording.clip() for recording in sorted(librispeech.recordings(folder), key=lambda r: r.name)]


def _noises(data: Path, n: int) -> list[Clip]:
    from otoscope.audio.files import read

    paths = sorted((data / "esc10").glob("*/*.ogg"))
    # steady ones alone: a bark fills a part of a sentence only
    steady = [path for path in paths if path.parent.name in ("rain", "sea_waves", "helicopter", "chainsaw")]
    step = max(1, len(steady) // max(n, 1))
    return [read(path, rate=16000) for path in steady[::step][:n]]


def _spoken(n: int, known: Sequence[Voice], seed: int) -> list[Pair]:
    rng = np.random.default_rng(seed)
    frames = [list(SENTENCES)[i] for i in rng.permutation(len(SENTENCES))]
    clips = [
        say(frames[i % len(frames)].format(SENTENCES[frames[i % len(frames)]][i // len(frames) % 2]),
            known[(i + i // len(frames)) % len(known)].name, known[0].engine)
        for i in range(n)
    ]  # fmt: skip
    return overwrite_pairs(clips, "word", seed=seed)


def _spoken_training() -> list[Clip]:
    texts = [frame.format(words[0]) for frame, words in list(SENTENCES.items())[-_TRAINING_TEXTS:]]
    return [say(text, voice, "espeak") for voice in TRAINING_VOICES for text in texts]


def _minimal(n: int, known: Sequence[Voice], seed: int) -> tuple[Pair, ...]:
    lexicon = word_pairs(None)
    order = np.random.default_rng(seed).permutation(len(lexicon))
    made = []
    for i in range(n):
        words, voice = lexicon[order[i % len(lexicon)]], known[i % len(known)]
        made.append(
            spoken_pair(FRAME.format(words.first), FRAME.format(words.second), engine=voice.engine, voice=voice.name, join=True)
        )  # fmt: skip
    return tuple(made)


def _word_swaps(n: int, known: Sequence[Voice], seed: int) -> tuple[Pair, ...]:
    frames = list(SENTENCES)
    made = []
    for i in range(n):
        frame, voice = frames[i % len(frames)], known[(i + i // len(frames)) % len(known)]
        one, other = (frame.format(word) for word in SENTENCES[frame])
        made.append(spoken_pair(one, other, engine=voice.engine, voice=voice.name, join=True))
    return tuple(made)


def _voice_swaps(n: int, known: Sequence[Voice], seed: int) -> tuple[Pair, ...]:
    frames = list(SENTENCES)
    made = []
    for i in range(n):
        frame, voice = frames[i % len(frames)], known[i % len(known)]
        other = known[(i + 1 + i // len(known) % (len(known) - 1)) % len(known)]
        text = frame.format(SENTENCES[frame][0])
        clean, spoken = (say(text, v.name, v.engine) for v in (voice, other))
        corrupt = spoken.replace(
            samples=stretched(spoken.samples.astype(np.float64), len(clean), clean.rate).astype(np.float32),
            words=(), phones=(),
        )  # fmt: skip
        made.append(
            Pair(clean, corrupt, (0.0, clean.duration), "another voice", text, text, f"{voice.unit}/{other.unit}")
        )
    return tuple(made)
