"""Other speech: a second speaker mixed in, or another word in the place of one."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from otoscope.audio.clip import Clip
from otoscope.audio.corruptions.base import Corruption, Target, at_rate, check_clip, fade_samples, in_range, sounding
from otoscope.audio.corruptions.noise import scaled_to_snr
from otoscope.audio.stretch import stretched
from otoscope.errors import AudioError

#: A word that must become shorter or longer than this is no longer natural.
MAX_STRETCH = 2.0


@dataclass(frozen=True)
class OtherSpeaker(Corruption):
    """Mix another speaker in. A longer recording is cut from a seeded offset; a shorter one is placed at one, once.

    The ratio is on mean power over the span, also where the other speaker fills only a part of it.
    """

    name = "other_speaker"
    keeps = ("words", "phones", "speaker", "pitch", "rhythm", "duration")
    breaks = ("loudness", "background")
    other: Clip
    snr_db: float = 0.0

    def __post_init__(self) -> None:
        in_range("snr_db", self.snr_db, -60, 120, "dB")
        check_clip("other", self.other)

    def alter(self, target: Target) -> Float[np.ndarray, " span"]:
        """Span plus the other speaker at ``snr_db`` (dB)."""
        voice, length = sounding(self.other, target.rate), len(target.samples)
        offset = int(target.rng.integers(abs(len(voice) - length) + 1))
        if len(voice) >= length:
            mixed_in = voice[offset : offset + length]
        else:
            mixed_in = np.zeros(length)
            mixed_in[offset : offset + len(voice)] = voice
        return target.samples + scaled_to_snr(target, mixed_in, self.snr_db)


@dataclass(frozen=True)
class Splice(Corruption):
    """Put another word in the place of the span, at the span's level, cross-faded at the edges.

    ``donor`` is the clip it comes from, ``start`` and ``end`` (seconds) where it lies there (default: all of it). It is
    fitted to the exact length of the span: ``fit="stretch"`` keeps all of it and its pitch (WSOLA, at most 2 x),
    ``fit="cut"`` keeps its rate and cuts it at the end, or leaves silence there.
    """

    name = "splice"
    keeps = ("loudness", "duration")
    breaks = ("words", "phones", "pitch", "rhythm")
    donor: Clip
    start: float | None = None
    end: float | None = None
    fit: Literal["stretch", "cut"] = "stretch"
    fade_ms: float = 8.0

    def __post_init__(self) -> None:
        check_clip("donor", self.donor)
        in_range("fade_ms", self.fade_ms, 0, 100, "ms")
        if self.fit not in ("stretch", "cut"):
            raise AudioError(f"The parameter fit is {self.fit!r}; give 'stretch' or 'cut'.")
        self._word()

    def _word(self) -> Clip:
        end = self.donor.duration if self.end is None else self.end
        return self.donor.slice(self.start or 0.0, end)

    def text(self) -> str | None:
        """What the donor says in its span, when known."""
        whole = self.start is None and self.end is None
        return self.donor.text if whole else self._word().text

    def alter(self, target: Target) -> Float[np.ndarray, " span"]:
        """The other word, exactly as long as the span."""
        word, length = at_rate(self._word(), target.rate), len(target.samples)
        ratio = length / len(word)
        if self.fit == "stretch":
            if not 1 / MAX_STRETCH <= ratio <= MAX_STRETCH:
                raise AudioError(
                    f"The word to splice in lasts {len(word) / target.rate:.2f} s and the span "
                    f"{length / target.rate:.2f} s; choose one at most {MAX_STRETCH:g} times as long or short, "
                    "or fit='cut'."
                )
            word = stretched(word, length, target.rate)
        else:
            fade = fade_samples(self.fade_ms, target.rate, min(length, len(word)))
            word = word[:length].copy()
            if len(word) < length and fade:
                word[-fade:] *= (np.arange(fade)[::-1] + 0.5) / fade
            word = np.pad(word, (0, length - len(word)))
        return target.faded(scaled_to_snr(target, word, 0.0), self.fade_ms)
