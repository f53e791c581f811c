"""A ``Clip``: mono samples, their rate, and what is known of them: transcript, words, phones, speaker."""

import builtins
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import soxr
from jaxtyping import Float

from otoscope.errors import AudioError

#: Times that exceed the end of a clip by less than this (seconds) are rounding, not a mistake.
TIME_SLACK = 1e-3


@dataclass(frozen=True, order=True)
class Span:
    """A stretch of time with a name: a word or a phone.

    ``start`` and ``end`` are seconds from the beginning of the clip, ``0 <= start <= end``.
    Raises ``AudioError`` when they are not finite or out of order.
    """

    start: float
    end: float
    text: str

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start) and math.isfinite(self.end) and 0 <= self.start <= self.end):
            raise AudioError(
                f"The span {self.text!r} runs from {self.start} s to {self.end} s; "
                "give finite seconds with 0 <= start <= end."
            )

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.end - self.start

    def shifted(self, seconds: float) -> "Span":
        """The same span, ``seconds`` later (earlier when negative)."""
        return Span(self.start + seconds, self.end + seconds, self.text)


@dataclass(frozen=True, eq=False)
class Clip:
    """Mono sound and what is known of it. Immutable: ``samples`` is read-only, every change makes a new Clip.

    Fields: ``samples`` float32 ``[n]``, full scale at +-1 (louder is allowed, never NaN or infinite); ``rate`` Hz;
    ``text`` the transcript; ``words`` and ``phones`` with start and end in seconds; ``speaker``; ``labels`` anything
    else that is known, as text; ``name`` for tables and messages; ``notices`` what was done to it on the way in.

    Two clips compare by identity; ``digest()`` compares by content.

    Raises ``AudioError`` when the samples are not one-dimensional floats, are empty or not finite, when the rate is
    not positive, or when a word or phone lies beyond the end.
    """

    samples: Float[np.ndarray, " n"]
    rate: int
    text: str | None = None
    words: tuple[Span, ...] = ()
    phones: tuple[Span, ...] = ()
    speaker: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    notices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # object.__setattr__ is the one way to normalise a field of a frozen dataclass
        object.__setattr__(self, "rate", _checked_rate(self.rate, self.who))
        object.__setattr__(self, "samples", _frozen(_checked_samples(self.samples, self.rate, self.who)))
        for kind in ("words", "phones", "notices"):
            object.__setattr__(self, kind, tuple(getattr(self, kind)))
        object.__setattr__(self, "labels", dict(self.labels))
        for span in (*self.words, *self.phones):
            if span.end > self.duration + TIME_SLACK:
                raise AudioError(
                    f"In {self.who}, {span.text!r} ends at {span.end:.3f} s but the sound at {self.duration:.3f} s; "
                    "check that the times are in seconds and belong to this recording."
                )

    @property
    def who(self) -> str:
        """How messages call this clip."""
        return f"clip {self.name!r}" if self.name else "the clip"

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.rate

    @cached_property
    def rms(self) -> float:
        """Root mean square of the samples, full scale = 1."""
        return float(np.sqrt(np.mean(np.square(self.samples, dtype=np.float64))))

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.samples)

    def __repr__(self) -> str:
        text = f", text={self.text!r}" if self.text else ""
        return f"Clip({self.name!r}, {self.duration:.3f} s at {self.rate} Hz{text})"

    def replace(self, **fields: Any) -> "Clip":
        """A copy with some fields changed, checked again."""
        return replace(self, **fields)

    def noticed(self, *notices: str) -> "Clip":
        """A copy with more notices."""
        return self.replace(notices=(*self.notices, *notices)) if notices else self

    def resample(self, rate: int) -> "Clip":
        """The clip at another rate (Hz), band-limited resampling by soxr at its "very high" quality.

        Times in seconds stay valid; the length becomes ``round(n * rate / self.rate)`` samples. A notice is added.
        """
        rate = _checked_rate(rate, self.who)
        if rate == self.rate:
            return self
        samples = soxr.resample(np.asarray(self.samples), self.rate, rate, quality="VHQ")
        if not len(samples):
            raise AudioError(
                f"Resampled from {self.rate} to {rate} Hz, {self.who} of {len(self)} samples has none left; "
                "use a longer recording."
            )
        notice = f"resampled from {self.rate} to {rate} Hz"
        if self.rate < rate:
            notice += f", so it holds nothing above {self.rate // 2} Hz"
        end = len(samples) / rate
        return self.replace(
            samples=samples,
            rate=rate,
            words=_cut(self.words, 0.0, end),
            phones=_cut(self.phones, 0.0, end),
            notices=(*self.notices, notice),
        )

    def slice(self, start: float, end: float) -> "Clip":
        """The part from ``start`` to ``end`` (seconds), with the words and phones whose middle lies inside, shifted.

        ``text`` becomes the words that are left, or None when no word times are known. Raises ``AudioError`` when the
        part is empty or not inside the clip.
        """
        where = self.span_samples(start, end)
        first, last = where.start / self.rate, where.stop / self.rate
        words = _cut(self.words, first, last)
        return self.replace(
            samples=self.samples[where],
            text=" ".join(word.text for word in words) if self.words else None,
            words=words,
            phones=_cut(self.phones, first, last),
        )

    def span_samples(self, start: float, end: float) -> builtins.slice:
        """Sample indices of the time from ``start`` to ``end`` (seconds), both rounded to the nearest sample.

        Raises ``AudioError``, naming the duration, when the span is empty, not finite or not inside the clip.
        """
        good = math.isfinite(start) and math.isfinite(end) and start < end
        if not good or start < -TIME_SLACK or end > self.duration + TIME_SLACK:
            raise AudioError(
                f"The span {start:g}-{end:g} s is not inside {self.who}, which lasts {self.duration:.3f} s; "
                "give seconds with 0 <= start < end <= duration."
            )
        first, last = max(0, round(start * self.rate)), min(len(self), round(end * self.rate))
        if first >= last:
            raise AudioError(
                f"The span {start:g}-{end:g} s of {self.who} holds no sample at {self.rate} Hz; give a longer span."
            )
        return builtins.slice(first, last)

    def digest(self) -> str:
        """SHA-256 (hex) of samples and rate: equal exactly when two clips sound the same, sample by sample."""
        head = f"clip float32 {self.rate} {len(self)}\n".encode()
        # + 0 makes a negative zero a plain one: they sound the same, and files do not keep the difference
        return hashlib.sha256(head + (self.samples + np.float32(0)).astype("<f4").tobytes()).hexdigest()


def _checked_rate(rate: Any, who: str) -> int:
    if isinstance(rate, bool) or not isinstance(rate, int | float | np.integer | np.floating) or rate != rate // 1:
        raise AudioError(f"The rate of {who} is {rate!r}; give a whole number of samples per second, such as 16000.")
    if rate <= 0:
        raise AudioError(f"The rate of {who} is {rate} Hz; it must be positive, such as 16000.")
    return int(rate)


def _checked_samples(samples: Any, rate: int, who: str) -> np.ndarray:
    array = np.asarray(samples)
    if array.ndim != 1:
        raise AudioError(
            f"The samples of {who} have the shape {list(array.shape)}; "
            "give one dimension, with channels averaged first (otoscope.audio.files.read does that)."
        )
    if array.dtype.kind != "f":
        raise AudioError(
            f"The samples of {who} are of type {array.dtype}; "
            "give floats with full scale at 1 (16-bit integers are divided by 32768)."
        )
    if not len(array):
        raise AudioError(f"There is no sound in {who}: it has zero samples; give a recording that is not empty.")
    # the check runs after the cast, because a float64 may become infinite in it
    with np.errstate(over="ignore"):
        array = array.astype(np.float32, copy=False)
    finite = np.isfinite(array)
    if not finite.all():
        first = int(np.argmin(finite))
        raise AudioError(
            f"NaN or infinite samples in {who}: {np.count_nonzero(~finite)}, the first at {first / rate:.3f} s; "
            "give finite samples (export the recording again)."
        )
    return array


def _frozen(array: np.ndarray) -> np.ndarray:
    """The array made read-only; copied unless nobody else can write to it."""
    holder = array
    while isinstance(holder.base, np.ndarray):
        holder = holder.base
    if holder.flags.writeable or holder.base is not None or not array.flags.c_contiguous:
        array = array.copy()
        array.flags.writeable = False
    return array


def _cut(spans: tuple[Span, ...], start: float, end: float) -> tuple[Span, ...]:
    """The spans whose middle lies in ``start..end``, cut to it, times counted from ``start``."""
    return tuple(
        Span(max(span.start, start) - start, min(span.end, end) - start, span.text)
        for span in spans
        if start <= (span.start + span.end) / 2 <= end
    )
