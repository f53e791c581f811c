"""All corruptions by name, and ``apply``, the one way to use them."""

import dataclasses
import typing
from typing import Any

import numpy as np

from otoscope.audio.clip import TIME_SLACK, Clip, Span
from otoscope.audio.corruptions.base import Corrupted, Corruption, Target
from otoscope.audio.corruptions.codec import BitDepth, Codec, MuLaw
from otoscope.audio.corruptions.filters import BandPass, HighPass, LowPass
from otoscope.audio.corruptions.level import Clipping
from otoscope.audio.corruptions.noise import Babble, NoiseReplacement, PinkNoise, RecordedNoise, WhiteNoise
from otoscope.audio.corruptions.room import Reverberation
from otoscope.audio.corruptions.silence import Silence
from otoscope.audio.corruptions.speech import OtherSpeaker, Splice
from otoscope.audio.corruptions.time import Reverse, TimeShuffle
from otoscope.errors import AudioError

_CLASSES: tuple[type[Corruption], ...] = (
    WhiteNoise,
    PinkNoise,
    Babble,
    RecordedNoise,
    NoiseReplacement,
    Silence,
    OtherSpeaker,
    Splice,
    LowPass,
    HighPass,
    BandPass,
    Reverberation,
    Clipping,
    TimeShuffle,
    Reverse,
    MuLaw,
    BitDepth,
    Codec,
)

#: name -> class; a new corruption is added to ``_CLASSES`` above.
CORRUPTIONS: dict[str, type[Corruption]] = {kind.name: kind for kind in _CLASSES}


def make(name: str, **params: Any) -> Corruption:
    """The corruption of that name with its parameters checked. ``AudioError`` names what is unknown or missing."""
    kind = CORRUPTIONS.get(name)
    if kind is None:
        raise AudioError(f"There is no corruption {name!r}; choose one of {', '.join(CORRUPTIONS)}.")
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]  # every corruption is a dataclass
    known = [field.name for field in fields]
    if unknown := [key for key in params if key not in known]:
        raise AudioError(f"The corruption {name!r} has no parameter {unknown[0]!r}; it takes {', '.join(known)}.")
    needed = [field.name for field in fields if field.default is dataclasses.MISSING]
    if missing := [key for key in needed if key not in params]:
        raise AudioError(f"The corruption {name!r} needs the parameter {missing[0]!r}; see describe({name!r}).")
    return kind(**params)


def apply(name: str, clip: Clip, span: tuple[float, float] | None = None, seed: int = 0, **params: Any) -> Corrupted:
    """Corrupt a clip over ``span`` (start and end in seconds; None: all of it).

    The result has the same length and rate, is bit-identical outside the span, and depends on nothing but the
    arguments. Where the corruption breaks words, the words and phones that overlap the span leave the annotation (a
    spliced word is named when known); ``text`` becomes what is left, or None when no word times are known.

    Raises ``AudioError`` for an unknown name or parameter, a value out of range, a span outside the clip (with its
    duration), and a silent span where a level relative to it is needed.
    """
    corruption = make(name, **params)
    where = clip.span_samples(*span) if span is not None else slice(0, len(clip))
    whole = clip.samples.astype(np.float64)
    whole.flags.writeable = False
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise AudioError(f"The seed is {seed!r}; give a whole number that is not negative.")
    altered = corruption.alter(Target(clip, where, whole, np.random.default_rng(seed)))
    samples = clip.samples.copy()
    samples[where] = altered.astype(np.float32)
    seconds = (where.start / clip.rate, where.stop / clip.rate)
    result = _annotated(clip, corruption, seconds).replace(samples=samples)
    if (peak := float(np.abs(samples[where]).max())) > max(1.0, float(np.abs(clip.samples).max())):
        result = result.noticed(f"{name} takes the peak to {peak:.2f}, beyond full scale; samples are not clipped")
    return Corrupted(
        result, name, seconds, int(seed), corruption.params(), type(corruption).keeps, type(corruption).breaks
    )


def describe(name: str | None = None) -> list[dict[str, Any]]:
    """What there is: ``name``, ``summary``, ``params`` (name -> type and default), ``keeps`` and ``breaks`` of each.

    ``name``: only that one. A parameter without default is required; its type says whether it is a clip.
    """
    if name is not None and name not in CORRUPTIONS:
        make(name)
    return [_described(kind) for key, kind in CORRUPTIONS.items() if name in (None, key)]


def _described(kind: type[Corruption]) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    params: dict[str, dict[str, Any]] = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        params[field.name] = {"type": _type_name(hints[field.name])}
        if field.default is not dataclasses.MISSING:
            params[field.name]["default"] = field.default
    summary = " ".join((kind.__doc__ or "").split("\n\n")[0].split())
    return {"name": kind.name, "summary": summary, "params": params, "keeps": kind.keeps, "breaks": kind.breaks}


def _type_name(hint: Any) -> str:
    options = [option for option in typing.get_args(hint) if option is not type(None)]
    if typing.get_origin(hint) is tuple:
        return "clips"
    if typing.get_origin(hint) is typing.Literal:
        return " | ".join(map(str, options))
    if options:
        return _type_name(options[0])
    return "clip" if hint is Clip else hint.__name__


def _annotated(clip: Clip, corruption: Corruption, span: tuple[float, float]) -> Clip:
    """The clip with the annotation that holds after the corruption (samples still the old ones)."""
    if "words" not in type(corruption).breaks:
        return clip
    start, end = span

    def untouched(item: Span) -> bool:
        return item.end <= start + TIME_SLACK or item.start >= end - TIME_SLACK

    words = [word for word in clip.words if untouched(word)]
    if (said := corruption.text()) and clip.words:
        words = sorted([*words, Span(start, end, said)])
    phones = tuple(phone for phone in clip.phones if untouched(phone))
    text = " ".join(word.text for word in words) if clip.words else None
    return clip.replace(text=text, words=tuple(words), phones=phones)
