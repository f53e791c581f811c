"""What every corruption is: a small frozen dataclass of parameters with one method, ``alter``.

To add one: subclass ``Corruption`` in a file of this package, give it ``name``, ``keeps``, ``breaks`` and fields with
defaults, check the fields in ``__post_init__``, and add the class to ``CORRUPTIONS`` in ``registry.py``.
"""

import dataclasses
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from otoscope.audio.clip import Clip
from otoscope.errors import AudioError

#: The factors of a spoken clip that a corruption says it keeps or breaks.
FACTORS = ("words", "phones", "speaker", "pitch", "loudness", "background", "rhythm", "duration")


@dataclass(frozen=True)
class Target:
    """The stretch of a clip that a corruption may change.

    ``where`` the sample indices, ``whole`` all samples of the clip as float64 ``[n]`` (a filter needs the context),
    ``rng`` the only source of chance.
    """

    clip: Clip
    where: slice
    whole: Float[np.ndarray, " n"]
    rng: np.random.Generator

    @property
    def samples(self) -> Float[np.ndarray, " span"]:
        """The stretch itself, float64, not to be written to."""
        return self.whole[self.where]

    @property
    def rate(self) -> int:
        """Samples per second."""
        return self.clip.rate

    @property
    def power(self) -> float:
        """Mean square over the stretch; ``AudioError`` when it is silent, since no ratio to it exists."""
        power = float(np.mean(np.square(self.samples)))
        if power <= 0:
            raise AudioError(
                f"The span {self.where.start / self.rate:g}-{self.where.stop / self.rate:g} s of {self.clip.who} is "
                "silent, so no level relative to it exists; choose a span that holds sound."
            )
        return power

    def faded(self, altered: Float[np.ndarray, " span"], fade_ms: float) -> Float[np.ndarray, " span"]:
        """``altered``, cross-faded with the original inside the stretch at each edge that joins it, against clicks.

        Equal-gain ramps of ``fade_ms`` milliseconds, at most a quarter of the stretch. No fade where the stretch
        begins or ends with the clip.
        """
        count = fade_samples(fade_ms, self.rate, len(altered))
        weight = np.ones(len(altered))
        ramp = (np.arange(count) + 0.5) / count if count else np.zeros(0)
        if self.where.start > 0:
            weight[:count] = ramp
        if self.where.stop < len(self.whole):
            weight[len(weight) - count :] = ramp[::-1]
        return weight * altered + (1 - weight) * self.samples


class Corruption(ABC):
    """One way to damage a clip over a span. Subclasses are frozen dataclasses whose fields are the parameters."""

    #: How users call it.
    name: ClassVar[str]
    #: Factors (see ``FACTORS``) that stay as they are inside the span ...
    keeps: ClassVar[tuple[str, ...]]
    #: ... and those that do not. A factor in neither list may or may not survive, depending on parameters.
    breaks: ClassVar[tuple[str, ...]]

    @abstractmethod
    def alter(self, target: Target) -> Float[np.ndarray, " span"]:
        """New samples for the span, as many as there were; a pure function of the target and its ``rng``."""

    def text(self) -> str | None:
        """What is said inside the span afterwards, if the corruption breaks the words and knows what replaces them."""
        return None

    def params(self) -> dict[str, str | float | int | None]:
        """The parameters as plain values; a clip is given by its name or digest."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]  # subclasses are dataclasses
        return {field.name: _plain(getattr(self, field.name)) for field in fields}


@dataclass(frozen=True, eq=False)
class Corrupted:
    """A corrupted clip and how it came about.

    ``clip`` as long as the original, bit-identical to it outside ``span`` (seconds); ``params`` and ``seed`` reproduce
    it; ``keeps`` and ``breaks`` name factors of ``FACTORS``.
    """

    clip: Clip
    name: str
    span: tuple[float, float]
    seed: int
    params: dict[str, str | float | int | None]
    keeps: tuple[str, ...]
    breaks: tuple[str, ...]

    @property
    def change(self) -> str:
        """One line for tables: the corruption with its parameters, ``white_noise(snr_db=0.0)``."""
        inside = ", ".join(f"{key}={value}" for key, value in self.params.items() if value is not None)
        return f"{self.name}({inside})"


def in_range(name: str, value: Any, low: float, high: float, unit: str = "", whole: bool = False) -> None:
    """Raise ``AudioError`` unless ``value`` is a finite number (a whole one if asked) with ``low <= value <= high``."""
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not low <= value <= high or (whole and value != int(value)):
        kind = "a whole number" if whole else "a number"
        raise AudioError(
            f"The parameter {name} is {value!r}; give {kind} from {low:g} to {high:g} {unit}".rstrip() + "."
        )


def fade_samples(fade_ms: float, rate: int, length: int) -> int:
    """Samples in a fade of ``fade_ms`` milliseconds, at most a quarter of ``length``."""
    return min(round(fade_ms * rate / 1000), length // 4)


def check_clip(name: str, value: Any) -> None:
    """Raise ``AudioError`` unless ``value`` is a clip."""
    if not isinstance(value, Clip):
        raise AudioError(f"The parameter {name} must be a clip, not {type(value).__name__}; read one with files.read.")


def at_rate(clip: Clip, rate: int) -> Float[np.ndarray, " n"]:
    """The samples of a clip at ``rate`` Hz, float64."""
    return clip.resample(rate).samples.astype(np.float64)


def sounding(clip: Clip, rate: int) -> Float[np.ndarray, " n"]:
    """The samples of a clip at ``rate`` Hz without the silence (60 dB under its peak) before and after its sound.

    Many collections pad their recordings with zeros, and an excerpt of those would be no sound at all. Raises
    ``AudioError`` when the whole clip is silent.
    """
    samples = at_rate(clip, rate)
    loud = np.flatnonzero(np.abs(samples) > 1e-3 * np.abs(samples).max())
    if not len(loud):
        raise AudioError(f"The sound to mix in, {clip.who}, is silent; choose another recording.")
    return samples[loud[0] : loud[-1] + 1]


def _plain(value: Any) -> str | float | int | None:
    if isinstance(value, Clip):
        return value.name or value.digest()[:12]
    if isinstance(value, tuple | list):
        return " ".join(str(_plain(item)) for item in value)
    return value
