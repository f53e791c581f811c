"""Planted truth in real speech: one word of a sentence is overwritten, so the place of the difference is known.

Each pair is a real sentence and the same sentence, sample for sample, except in the span of one word. A method that
looks for the place where the two differ must find that span.
"""

import string
import zlib
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

from otoscope.audio.clip import Clip, Span
from otoscope.audio.corruptions import Corrupted, apply
from otoscope.audio.corruptions.speech import MAX_STRETCH
from otoscope.errors import TaskError
from otoscope.tasks.pair import Pair

Kind = Literal["noise", "word", "silence"]

_FUNCTION_WORDS = """
a about above after again against all am among an and any are as at be because been before being below between both but
by can could did do does doing down during each either else ever every few for from further had has have having he her
here hers herself him himself his how i if in into is it its itself just me might more most much must my myself neither
no nor not now of off on once only or other our ours ourselves out over own same shall she should so some such than that
the their theirs them themselves then there these they this those though through thus to too under until up upon us very
was we were what when where which while who whom whose why will with would yet you your yours yourself yourselves
i'm i've i'll i'd don't won't can't it's that's he's she's
"""
#: Words that carry little content: a model may guess them from the rest, or leave them out, whatever it hears.
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
#: A donor word may be this much longer or shorter than the word it replaces; the corruption itself allows more.
_EASY_STRETCH = min(1.5, MAX_STRETCH)


class _Place(NamedTuple):
    clip: int
    word: int
    span: Span


def overwrite_pairs(
    clips: Sequence[Clip],
    kind: Kind = "noise",
    *,
    n: int | None = None,
    per_clip: int = 1,
    min_duration: float = 0.2,
    max_duration: float = 1.5,
    snr_db: float | None = None,
    seed: int = 0,
) -> list[Pair]:
    """Pairs in which one content word of a real sentence is overwritten.

    ``clips`` need word times (``otoscope.audio.align.align`` finds them); those without a fitting word are passed over.
    ``kind``: ``noise`` replaces the word by white noise at its own level, or, with ``snr_db`` (dB), adds noise to it;
    ``word`` puts another word in its place, from the same speaker where one fits, else from any clip; ``silence``
    replaces it by silence. ``n``: at most so many pairs, clips drawn at random; ``per_clip``: words per clip, one pair
    each. A fitting word is no function word, neither first nor last, and lasts ``min_duration`` to ``max_duration``
    seconds.

    The pairs' ``span`` (seconds) is the word's; outside it clean and corrupt are bit-identical. ``clean_text`` is the
    sentence; ``corrupt_text`` has the other word in it, or lacks the word. ``labels`` of the corrupt clip name the
    ``word`` and the ``donor``. The same arguments give the same pairs, and a clip's pair does not depend on which other
    clips are given, except for donor words and the draw of ``n``.

    Raises ``TaskError`` when ``kind`` is unknown, no clip has word times, or no word fits.
    """
    _check(kind, clips, n, per_clip, min_duration, max_duration)
    places = [_fitting(index, clip, min_duration, max_duration) for index, clip in enumerate(clips)]
    donors = [place for group in places for place in group]
    if not donors:
        raise TaskError(
            f"None of the {len(clips)} clips has a content word inside it of {min_duration:g} to {max_duration:g} s; "
            "give longer sentences or a smaller min_duration."
        )
    order: list[int] = list(range(len(clips)))
    if n is not None:
        order = np.random.default_rng(seed).permutation(len(clips)).tolist()
    pairs: list[Pair] = []
    for index in order:
        clip = clips[index]
        own_seed = _own_seed(seed, clip)
        rng = np.random.default_rng(own_seed)
        taken = 0
        for choice in rng.permutation(len(places[index])):
            if taken == per_clip or len(pairs) == n:
                break
            place = places[index][choice]
            pair = _pair(clips, place, kind, snr_db, donors, own_seed, rng)
            # a word for which no donor fits is passed over, and the next one tried
            if pair is not None:
                pairs.append(pair)
                taken += 1
    if not pairs:
        raise TaskError("No word of any clip fits in the place of another; give more clips, or another kind.")
    return pairs


def _check(kind: str, clips: Sequence[Clip], n: int | None, per_clip: int, shortest: float, longest: float) -> None:
    if kind not in get_args(Kind):
        raise TaskError(f"There is no kind {kind!r} of planted pair; choose one of {', '.join(get_args(Kind))}.")
    if not any(clip.words for clip in clips):
        raise TaskError("None of the clips has word times; find them first with otoscope.audio.align.align(clip).")
    if (n is not None and n < 1) or per_clip < 1 or not 0 < shortest <= longest:
        raise TaskError("n and per_clip must be at least 1, and 0 < min_duration <= max_duration must hold.")


def _fitting(index: int, clip: Clip, shortest: float, longest: float) -> list[_Place]:
    inner = list(enumerate(clip.words))[1:-1]
    return [
        _Place(index, position, word)
        for position, word in inner
        if shortest <= word.duration <= longest and _key(word.text) not in FUNCTION_WORDS
    ]


def _key(word: str) -> str:
    return word.lower().replace("’", "'").strip(string.punctuation)


def _own_seed(seed: int, clip: Clip) -> int:
    """A seed of the clip's own, so that adding a clip to the list changes no other pair."""
    return (seed * 1_000_003 + zlib.crc32(clip.digest().encode())) % 2**31


def _pair(
    clips: Sequence[Clip],
    place: _Place,
    kind: Kind,
    snr_db: float | None,
    donors: list[_Place],
    seed: int,
    rng: np.random.Generator,
) -> Pair | None:
    clip, word = clips[place.clip], place.span
    span = (word.start, word.end)
    donor: _Place | None = None
    if kind == "word":
        if (donor := _donor(clips, place, donors, rng)) is None:
            return None
        source = clips[donor.clip]
        done = apply("splice", clip, span, seed, donor=source, start=donor.span.start, end=donor.span.end)
        change = f"{word.text!r} replaced by {donor.span.text!r}"
    elif kind == "silence":
        done = apply("silence", clip, span, seed)
        change = f"{word.text!r} replaced by silence"
    elif snr_db is None:
        done = apply("noise_replacement", clip, span, seed)
        change = f"{word.text!r} replaced by white noise"
    else:
        done = apply("white_noise", clip, span, seed, snr_db=snr_db)
        change = f"{word.text!r} under white noise at {snr_db:g} dB"
    return _made(clip, done, place, donor, kind, change)


def _made(clip: Clip, done: Corrupted, place: _Place, donor: _Place | None, kind: Kind, change: str) -> Pair:
    words = [word.text for word in clip.words]
    words[place.word : place.word + 1] = [donor.span.text] if donor else []
    labels = {**clip.labels, "kind": kind, "word": place.span.text}
    if donor:
        labels["donor"] = donor.span.text
    name = f"{clip.name or clip.digest()[:12]}/{place.word}-{kind}"
    text = " ".join(words)
    return Pair(
        clean=clip,
        corrupt=done.clip.replace(name=name, text=text, labels=labels),
        span=done.span,
        change=change,
        clean_text=clip.text or " ".join(word.text for word in clip.words),
        corrupt_text=text,
        name=name,
        seed=done.seed,
    )


def _donor(clips: Sequence[Clip], place: _Place, donors: list[_Place], rng: np.random.Generator) -> _Place | None:
    """Another word of about the same length: of the same speaker where there is one, else of anyone."""
    clip = clips[place.clip]
    said = {_key(word.text) for word in clip.words}
    fitting = [
        donor
        for donor in donors
        if _key(donor.span.text) not in said
        and 1 / _EASY_STRETCH <= donor.span.duration / place.span.duration <= _EASY_STRETCH
    ]
    own = [donor for donor in fitting if clip.speaker and clips[donor.clip].speaker == clip.speaker]
    pool = own or fitting
    return pool[int(rng.integers(len(pool)))] if pool else None
