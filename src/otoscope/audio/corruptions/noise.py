"""Noise: added at a signal-to-noise ratio, or put in the place of the sound.

The ratio is defined on mean power over the span: ``snr_db = 10 log10(mean(speech^2) / mean(noise^2))``. The speech
underneath is untouched, so words stay what they are; whether they can still be heard is the experiment's question.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import signal

from otoscope.audio.clip import Clip
from otoscope.audio.corruptions.base import Corruption, Target, check_clip, in_range, sounding
from otoscope.errors import AudioError

#: Amplitude by frequency in Hz, both arrays of one shape.
Gain = Callable[[np.ndarray], np.ndarray]
_UNDERNEATH = ("words", "phones", "speaker", "pitch", "rhythm", "duration")
_ADDED = ("loudness", "background")


def scaled_to_snr(target: Target, noise: Float[np.ndarray, " span"], snr_db: float) -> Float[np.ndarray, " span"]:
    """``noise`` at the level that gives exactly ``snr_db`` over the span. ``AudioError`` when either is silent."""
    power = float(np.mean(np.square(noise)))
    if power <= 0:
        raise AudioError("The sound to mix in is silent over the span; choose another recording or another seed.")
    return noise * np.sqrt(target.power / power * 10 ** (-snr_db / 10))


@dataclass(frozen=True)
class WhiteNoise(Corruption):
    """Add white Gaussian noise: equal power in every hertz."""

    name = "white_noise"
    keeps = _UNDERNEATH
    breaks = _ADDED
    snr_db: float = 0.0

    def __post_init__(self) -> None:
        in_range("snr_db", self.snr_db, -60, 120, "dB")

    def alter(self, target: Target) -> Float[np.ndarray, " span"]:
        """Span plus noise at ``snr_db`` (dB)."""
        noise = target.rng.standard_normal(len(target.samples))
        return target.samples + scaled_to_snr(target, noise, self.snr_db)


@dataclass(frozen=True)
class PinkNoise(Corruption):
    """Add pink noise: power falls by 3 dB per octave above 20 Hz, as in many rooms and streets."""

    name = "pink_noise"
    keeps = _UNDERNEATH
    breaks = _ADDED
    snr_db: float = 0.0

    def __post_init__(self) -> None:
        in_range("snr_db", self.snr_db, -60, 120, "dB")

    def alter(self, target: Target) -> Float[np.ndarray, " span"]:
        """Span plus noise at ``snr_db`` (dB)."""
        noise = shaped_noise(len(target.samples), target.rate, target.rng, lambda hz: 1 / np.sqrt(np.maximum(hz, 20)))
        return target.samples + scaled_to_snr(target, noise, self.snr_db)


@dataclass(frozen=True)
class Babble(Corruption):
    """Add many voices at once: the given clips, or, without any, synthetic voices.

    A given clip is drawn from a seeded offset, repeated when too short, and all are made equally loud. A synthetic
    voice is noise with the long-term spectrum of speech (flat to 500 Hz, then -9 dB per octave; after Byrne et al.
    1994) whose loudness wavers at the rate of syllables (2-6 Hz).
    """

    name = "babble"
    keeps = _UNDERNEATH
    breaks = _ADDED
    snr_db: float = 0.0
    voices: tuple[Clip, ...] = ()
    n_synthetic: int = 6

    def __post_init__(self) -> None:
        in_range("snr_db", self.snr_db, -60, 120, "dB")
        in_range("n_synthetic", self.n_synthetic, 1, 1000, whole=True)
        voices = (self.voices,) if isinstance(self.voices, Clip) else tuple(self.voices)
        object.__setattr__(self, "voices", voices)
        for voice in voices:
            check_clip("voices", voice)

    def alter(self, target: Target) -> Float[np.ndarray, " span"]:
        """Span plus voices at ``snr_db`` (dB)."""
        length = len(target.samples)
        babble = np.zeros(length)
        if self.voices:
            for voice in self.voices:
                excerpt = looped(sounding(voice, target.rate), length, target.rng)
                babble += excerpt / max(float(np.sqrt(np.mean(np.square(excerpt)))), 1e-12)
        else:
            for _ in range(self.n_synthetic):
                voice = shaped_noise(length, target.rate, target.rng, _speech_spectrum)
                babble += voice * _syllables(length, target.rate, target.rng)
        return target.samples + scaled_to_snr(target, babble, self.snr_db)


@dataclass(frozen=True)
class RecordedNoise(Corruption):
    """Add a given recording, from a seeded offset, repeated when it is too short; silence at its ends is left out."""

    name = "recorded_noise"
    keeps = _UNDERNEATH
    breaks = _ADDED
    recording: Clip
    snr_db: float = 0.0

    def __post_init__(self) -> None:
        in_range("snr_db", self.snr_db, -60, 120, "dB")
        check_clip("recording", self.recording)

    def alter(self, target: Target) -> Float[np.ndarray, " span"]:
        """Span plus recording at ``snr_db`` (dB)."""
        noise = looped(sounding(self.recording, target.rate), len(target.samples), target.rng)
        return target.samples + scaled_to_snr(target, noise, self.snr_db)


@dataclass(frozen=True)
class NoiseReplacement(Corruption):
    """Put white noise in the place of the sound, at the span's own level plus ``level_db``."""

    name = "noise_replacement"
    keeps = ("loudness", "duration")
    breaks = ("words", "phones", "speaker", "pitch", "background", "rhythm")
    level_db: float = 0.0

    def __post_init__(self) -> None:
        in_range("level_db", self.level_db, -60, 60, "dB")

    def alter(self, target: Target) -> Float[np.ndarray, " span"]:
        """White noise whose RMS is that of the span, plus ``level_db`` (dB)."""
        return scaled_to_snr(target, target.rng.standard_normal(len(target.samples)), -self.level_db)


def shaped_noise(length: int, rate: int, rng: np.random.Generator, gain: Gain) -> Float[np.ndarray, " length"]:
    """Gaussian noise of ``length`` samples whose spectrum is ``gain(hz)`` (amplitude, hz as an array), without DC."""
    padded = max(length, 16)
    spectrum = np.fft.rfft(rng.standard_normal(padded))
    spectrum *= gain(np.fft.rfftfreq(padded, 1 / rate))
    spectrum[0] = 0
    return np.fft.irfft(spectrum, padded)[:length]


def looped(samples: Float[np.ndarray, " n"], length: int, rng: np.random.Generator) -> Float[np.ndarray, " length"]:
    """An excerpt of ``length`` samples: from a random offset, or repeated from a random phase when it is too short."""
    if len(samples) > length:
        offset = int(rng.integers(len(samples) - length + 1))
        return samples[offset : offset + length]
    offset = int(rng.integers(len(samples)))
    return np.tile(samples, -(-(length + offset) // len(samples)))[offset : offset + length]


def _speech_spectrum(hz: Float[np.ndarray, " f"]) -> Float[np.ndarray, " f"]:
    low = np.minimum(hz / 100, 1.0) ** 2
    return low * np.where(hz <= 500, 1.0, (np.maximum(hz, 500) / 500) ** (-9 / 6.0206))


def _syllables(length: int, rate: int, rng: np.random.Generator) -> Float[np.ndarray, " length"]:
    """A positive envelope that wavers between about 2 and 6 Hz."""
    # drawn at 50 Hz, since a 2 Hz filter at 16 kHz would be badly conditioned
    coarse = int(np.ceil(length / rate * 50)) + 200
    sos = signal.butter(2, (2, 6), btype="bandpass", fs=50, output="sos")
    wave = np.asarray(signal.sosfilt(sos, rng.standard_normal(coarse)))[100:]
    wave = np.exp(wave / wave.std())
    return np.interp(np.arange(length) / rate, np.arange(len(wave)) / 50, wave)
