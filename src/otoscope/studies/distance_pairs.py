"""Sentences of which one word is changed in many ways, so that the place of the change is known.

Recorded sentences are changed by corruptions of the span of one content word. The minimal pair is spoken: both of its
sentences come from a synthetic voice. Without recordings, all sentences are spoken.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from otoscope.audio.align import align
from otoscope.audio.clip import Clip, Span
from otoscope.audio.corruptions import apply
from otoscope.audio.files import read_manifest
from otoscope.audio.synth.speech import say
from otoscope.errors import AudioError, TaskError
from otoscope.tasks.minimal import spoken_pair
from otoscope.tasks.planted import overwrite_pairs

#: corruption -> (what a person reads, name among the corruptions of sounds, its parameters)
CORRUPTIONS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "noise": ("noise instead of the word", "noise_replacement", {}),
    "snr-10": ("noise added at -10 dB", "white_noise", {"snr_db": -10.0}),
    "snr0": ("noise added at 0 dB", "white_noise", {"snr_db": 0.0}),
    "snr10": ("noise added at 10 dB", "white_noise", {"snr_db": 10.0}),
    "silence": ("silence instead of the word", "silence", {}),
    "word": ("another word in its place", "splice", {}),
    "shuffle": ("its 50-ms blocks shuffled", "time_shuffle", {}),
    "reverse": ("the word backwards", "reverse", {}),
    "speaker": ("another voice over it at -5 dB", "other_speaker", {"snr_db": -5.0}),
    "low_pass": ("only what lies below 500 Hz", "low_pass", {"cutoff_hz": 500.0}),
    "minimal_pair": ("a spoken minimal pair", "", {}),
}
#: nulls: nothing is changed, or nothing that could be heard
NULLS: dict[str, float | None] = {"identical": None, "inaudible": 60.0}

#: recordings of at most so many seconds: a window of time costs one patch
MAX_SECONDS = 4.0
#: a donor word may be this much longer or shorter than the word it replaces
_STRETCH = 1.5
_VOICES = ("en-us", "en-gb-x-rp")
_FRAMES = (
    ("I want to buy a {} today", "cat dog", "table cable", "jacket lantern", "guitar sandwich"),
    ("She has a very big {} at home", "house mouse", "garden kitchen", "window mirror", "piano family"),
    ("They found an old {} near the river", "boat coat", "castle wagon", "bottle camera", "letter ladder"),
    ("We talked about the new {} on the phone", "teacher doctor", "picture project", "station hotel", "problem system"),
    ("He put the {} under the chair", "book box", "pencil hammer", "basket blanket", "money paper"),
    ("Nobody saw the little {} behind the door", "bird girl", "spider tiger", "monkey donkey", "baby lady"),
)
_ELSEWHERE = (
    "The weather is going to change before the evening",
    "Please read the first page again and write it down",
    "My brother works in a small shop on the corner",
    "It takes about two hours to walk up the mountain",
    "All the lights went out when the storm began",
    "You can leave your shoes and your bag over there",
    "Her sister sent a short message early this morning",
    "The soup was so hot that we had to wait",
    "Some people never learn how to swim or dance",
    "After the meeting everyone went back to work",
    "There is enough bread and cheese for six people",
    "The children played outside until it got dark",
)


@dataclass(frozen=True, eq=False)
class Sentence:
    """A clean sentence, the word of it that is changed, and what each corruption makes of it.

    Attributes:
        clip: the clean sound, with word times.
        word: the word and its span in seconds.
        before: how many words stand before it.
        source: ``recorded`` or ``spoken``; what is natural is learnt from sounds of the same source.
        sounds: corruption -> the changed sound, and the span in which it was changed (seconds).
    """

    clip: Clip
    word: Span
    before: int
    source: str
    sounds: dict[str, tuple[Clip, tuple[float, float]]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its clip's name."""
        return self.clip.name or self.clip.digest()[:12]


@dataclass(frozen=True)
class Material:
    """Sentences to change, in the order they are tried, and per source other sounds that say what is natural.

    ``notices`` are for a person: what had to be left out.
    """

    sentences: list[Sentence]
    references: dict[str, list[Clip]]
    notices: tuple[str, ...] = ()


def material(
    data: Path | None,
    corruptions: Sequence[str],
    n: int,
    n_spoken: int,
    references: int,
    seed: int = 0,
    notify: Callable[[str], None] = lambda _: None,
) -> Material:
    """Sentences for the study.

    Args:
        data: folder with a ``manifest.tsv`` (``path``, ``text``, perhaps ``speaker``), or one whose folder
            ``librispeech`` has it; None for spoken sentences alone.
        corruptions: which ones, of :data:`CORRUPTIONS`.
        n: how many sentences; twice as many are offered, since a model hears some of them as nothing else.
        n_spoken: spoken sentences for the minimal pair beside recorded ones; twice as many are offered.
        references: sounds per source that say what is natural.
        seed: of every draw.
        notify: told what is being done.

    Raises:
        TaskError: too few sentences, or an unknown corruption.
        AudioError: there are no recordings and no speech synthesis.
    """
    if unknown := [c for c in corruptions if c not in CORRUPTIONS]:
        raise TaskError(f"there is no corruption '{unknown[0]}' in this study: choose of {', '.join(CORRUPTIONS)}.")
    if data is None:
        notify("speaking the sentences")
        return Material(spoken(corruptions, 2 * n, seed), {"spoken": elsewhere(references)})
    notify("finding the words of the recordings")
    sentences, others = recorded(data, corruptions, 2 * n, references, seed)
    made = {"recorded": others}
    notices: tuple[str, ...] = ()
    if "minimal_pair" in corruptions:
        try:
            sentences = interleaved(sentences, spoken(("minimal_pair",), 2 * n_spoken, seed))
            made["spoken"] = elsewhere(references)
        except AudioError as error:
            notices = (f"the spoken minimal pairs are left out: {error}",)
    return Material(sentences, made, notices)


def recorded(
    data: Path, corruptions: Sequence[str], n: int, references: int, seed: int
) -> tuple[list[Sentence], list[Clip]]:
    """At most ``n`` recorded sentences with one word changed, and other recordings for what is natural.

    Recordings are drawn in a seeded order; the last ``references`` of it (at most half) say what is natural.

    Raises:
        TaskError: fewer than eight recordings are short enough.
    """
    folder = data / "librispeech" if (data / "librispeech" / "manifest.tsv").is_file() else data
    clips = [clip for clip in read_manifest(folder, 16000) if clip.duration <= MAX_SECONDS and clip.text]
    if len(clips) < 8:
        raise TaskError(
            f"{folder} has {len(clips)} recordings with a text of at most {MAX_SECONDS:g} s, and this study needs 8: give a "
            "folder with more short sentences, or no folder."
        )
    order = np.random.default_rng(seed).permutation(len(clips))
    kept = min(references, len(clips) // 2)
    natural = [clips[i] for i in order[len(clips) - kept :]]
    aligned = []
    for i in order[: min(len(clips) - kept, n)]:
        try:
            aligned.append(align(clips[i]))
        except AudioError:  # a text that does not fit its sound
            continue
    places = []
    for pair in overwrite_pairs(aligned, "noise", seed=seed):
        before = next(k for k, word in enumerate(pair.clean.words) if abs(word.start - pair.span[0]) < 1e-3)
        places.append((pair.clean, pair.clean.words[before], before))
    return [_sentence(place, "recorded", places, corruptions, seed) for place in places], natural


def spoken(corruptions: Sequence[str], n: int, seed: int) -> list[Sentence]:
    """At most ``n`` spoken sentences with one word changed; the minimal pair has the other word of its frame.

    Raises:
        AudioError: there is no speech synthesis.
    """
    texts = [(frame, *words[turn].split()) for turn in range(4) for frame, *words in _FRAMES]
    pairs = []
    for i, (frame, word, other) in enumerate(texts[:n]):
        voice = _VOICES[(i + i // len(_FRAMES)) % len(_VOICES)]
        pair = spoken_pair(frame.format(word), frame.format(other), voice=voice, join=True)
        clean = pair.clean.replace(name=f"{word} / {other} ({voice})", speaker=voice)
        pairs.append((clean, pair.corrupt, pair.span, frame.split().index("{}")))
    places = [(clean, clean.words[before], before) for clean, _, _, before in pairs]
    made = [_sentence(place, "spoken", places, corruptions, seed) for place in places]
    if "minimal_pair" in corruptions:
        for sentence, (_, other, span, _) in zip(made, pairs):
            sentence.sounds["minimal_pair"] = (other, (min(span[0], sentence.word.start), span[1]))
    return made


def elsewhere(n: int) -> list[Clip]:
    """At most ``n`` spoken sentences of other words, by the same voices.

    Raises:
        AudioError: there is no speech synthesis.
    """
    texts = [(text, voice) for voice in _VOICES for text in _ELSEWHERE]
    return [say(text, voice).replace(name=f"{text} ({voice})") for text, voice in texts[:n]]


def nulls(sentence: Sentence, seed: int) -> Sentence:
    """The sentence with the changes of :data:`NULLS` alone, in which there is nothing to find."""
    span = (sentence.word.start, sentence.word.end)
    sounds = {}
    for name, snr in NULLS.items():
        sound = sentence.clip if snr is None else apply("white_noise", sentence.clip, span, seed, snr_db=snr).clip
        sounds[name] = (sound, span)
    return Sentence(sentence.clip, sentence.word, sentence.before, sentence.source, sounds)


def interleaved(first: Sequence[Sentence], second: Sequence[Sentence]) -> list[Sentence]:
    """Both lists as one, evenly mixed, so that a study that stops early has some of each."""
    keyed = [((i + 0.5) / len(first), 0, s) for i, s in enumerate(first)]
    keyed += [((i + 0.5) / len(second), 1, s) for i, s in enumerate(second)]
    return [s for *_, s in sorted(keyed, key=lambda item: item[:2])]


_Place = tuple[Clip, Span, int]


def _sentence(place: _Place, source: str, places: Sequence[_Place], corruptions: Sequence[str], seed: int) -> Sentence:
    clip, word, before = place
    own = (seed * 1_000_003 + zlib.crc32(clip.digest().encode())) % 2**31
    rng = np.random.default_rng(own)
    donor, voice = _donor(place, places, rng), _voice(clip, places, rng)
    sounds = {}
    for name in corruptions:
        _, kind, parameters = CORRUPTIONS[name]
        if kind == "splice":
            if donor is None:
                continue
            parameters = {"donor": donor[0], "start": donor[1].start, "end": donor[1].end}
        elif kind == "other_speaker":
            if voice is None:
                continue
            parameters = {**parameters, "other": voice}
        if kind:
            done = apply(kind, clip, (word.start, word.end), own, **parameters)
            sounds[name] = (done.clip, done.span)
    return Sentence(clip, word, before, source, sounds)


def _donor(place: _Place, places: Sequence[_Place], rng: np.random.Generator) -> tuple[Clip, Span] | None:
    """A word of about the same length that the sentence does not hold, of the same speaker where there is one."""
    clip, word, _ = place
    said = {w.text.casefold() for w in clip.words}
    fits = [
        (c, w)
        for c, w, _ in places
        if w.text.casefold() not in said and 1 / _STRETCH <= w.duration / word.duration <= _STRETCH
    ]
    pool = [(c, w) for c, w in fits if c.speaker == clip.speaker] or fits
    return pool[int(rng.integers(len(pool)))] if pool else None


def _voice(clip: Clip, places: Sequence[_Place], rng: np.random.Generator) -> Clip | None:
    """A sentence of another speaker."""
    pool = [c for c, *_ in places if c is not clip and (c.speaker != clip.speaker or not clip.speaker)]
    return pool[int(rng.integers(len(pool)))] if pool else None
