"""The ways of making clean / corrupt pairs that are audited, at which strength, over what, and what people use them for.

All of it stands here before any run: a way's level ``default`` has the corruption's own parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from otoscope.audio.clip import Clip
from otoscope.audio.corruptions import CORRUPTIONS, apply
from otoscope.studies.corruption_sounds import Sounds, Utterance
from otoscope.tasks.pair import Pair

Level = Literal["mild", "default", "strong"]
Scope = Literal["clip", "word"]

#: Corruptions of which the strength has one parameter: name -> (parameter, mild, strong).
LEVELS: dict[str, tuple[str, float, float]] = {
    "white_noise": ("snr_db", 10.0, -10.0),
    "pink_noise": ("snr_db", 10.0, -10.0),
    "babble": ("snr_db", 10.0, -10.0),
    "recorded_noise": ("snr_db", 10.0, -10.0),
    "other_speaker": ("snr_db", 10.0, -10.0),
    "low_pass": ("cutoff_hz", 3000.0, 500.0),
    "high_pass": ("cutoff_hz", 300.0, 2000.0),
    "reverberation": ("rt60", 0.3, 1.2),
    "clipping": ("threshold", 0.5, 0.05),
    "time_shuffle": ("block_ms", 150.0, 20.0),
    "mu_law": ("bits", 10, 4),
    "bit_depth": ("bits", 10, 4),
    "codec": ("band_snr_db", 15.0, 0.0),
}
#: Corruptions that are put in the place of one word; all others act on the whole clip.
OF_A_WORD = ("noise_replacement", "silence", "splice", "time_shuffle", "reverse")

#: What each way is commonly used for: the factor that it is said to change.
USED_FOR: dict[str, str] = {
    "white_noise": "words",
    "pink_noise": "background",
    "babble": "background",
    "recorded_noise": "background",
    "noise_replacement": "words",
    "silence": "words",
    "other_speaker": "background",
    "splice": "words",
    "low_pass": "phones",
    "high_pass": "background",
    "band_pass": "background",
    "reverberation": "background",
    "clipping": "background",
    "time_shuffle": "words",
    "reverse": "words",
    "mu_law": "background",
    "bit_depth": "background",
    "codec": "background",
    "minimal_pair": "words",
    "word_swap": "words",
    "voice_swap": "speaker",
}
#: Why, in words, for the documentation and the report.
USES = {
    "words": "take away or replace what is said",
    "phones": "take away how it is pronounced",
    "speaker": "change who says it",
    "background": "change what lies under it, or the channel",
}


class Sample(NamedTuple):
    """One clean / corrupt pair, and the span that is measured; None is the whole clip."""

    clean: Clip
    corrupt: Clip
    span: tuple[float, float] | None
    unit: str
    """the speaker of the clean clip"""


@dataclass(frozen=True)
class Way:
    """One way of making pairs, at one level.

    Attributes:
        name: the corruption, or what people call the way.
        level: of strength.
        scope: whether it acts on the whole clip or on one word.
        settings: parameters of the corruption that are not the default.
        keeps: factors that the corruption declares to keep ...
        breaks: ... and to break; both empty where it is no corruption of ours.
    """

    name: str
    level: Level
    scope: Scope
    make: Callable[[Sounds, int, int], Sample] = field(compare=False)
    settings: dict[str, Any] = field(default_factory=dict)
    keeps: tuple[str, ...] = ()
    breaks: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """``white_noise`` at its default, ``white_noise mild`` at another level."""
        return self.name if self.level == "default" else f"{self.name} {self.level}"

    @property
    def target(self) -> str:
        """The factor that it is commonly used to change."""
        return USED_FOR[self.name]


def ways(sounds: Sounds) -> list[Way]:
    """Every way at every level, those that lack a sound (a recorded noise) left out."""
    made = []
    for name, kind in CORRUPTIONS.items():
        if name == "recorded_noise" and any(u.noise is None for u in sounds.utterances):
            continue
        scope: Scope = "word" if name in OF_A_WORD else "clip"
        parameter, mild, strong = LEVELS.get(name, ("", 0.0, 0.0))
        settings: dict[Level, dict[str, Any]] = {"default": {}}
        if parameter:
            settings = {"mild": {parameter: mild}, "default": {}, "strong": {parameter: strong}}
        for level, values in settings.items():
            make = _corrupter(name, scope, values)
            made.append(Way(name, level, scope, make, values, kind.keeps, kind.breaks))
    made.append(Way("minimal_pair", "default", "word", _of_pairs("minimal")))
    made.append(Way("word_swap", "default", "word", _of_pairs("word_swaps")))
    made.append(Way("voice_swap", "default", "clip", _of_pairs("voice_swaps")))
    return made


def _corrupter(name: str, scope: Scope, values: dict[str, Any]) -> Callable[[Sounds, int, int], Sample]:
    def make_sample(sounds: Sounds, index: int, seed: int) -> Sample:
        utterance = sounds.utterances[index]
        span = utterance.span if scope == "word" else None
        unit = utterance.clip.speaker or utterance.clip.name
        if name == "splice":
            return Sample(utterance.clip, utterance.spliced, span, unit)
        needed = _needed(name, utterance)
        corrupt = apply(name, utterance.clip, span, seed * 10_007 + index, **needed, **values).clip
        return Sample(utterance.clip, corrupt, span, unit)

    return make_sample


def _needed(name: str, utterance: Utterance) -> dict[str, Any]:
    return {"other_speaker": {"other": utterance.other}, "recorded_noise": {"recording": utterance.noise}}.get(name, {})


def _of_pairs(which: Literal["minimal", "word_swaps", "voice_swaps"]) -> Callable[[Sounds, int, int], Sample]:
    def make_sample(sounds: Sounds, index: int, seed: int) -> Sample:
        pair: Pair = getattr(sounds, which)[index]
        span = None if which == "voice_swaps" else pair.span
        return Sample(pair.clean, pair.corrupt, span, pair.clean.speaker or pair.name)

    return make_sample
