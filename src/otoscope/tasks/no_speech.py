"""Sounds in which nobody speaks, and speech beside them, divided into parts to search on, to choose on and to report on.

Sounds are recordings of yours, noise of several colours and levels, hum, clicks and silence. Whole kinds (classes of
recordings, colours of noise) are kept for the report, so that what is reported is about other sounds than those that were
looked at; recordings of one source, and sentences of one speaker, are in one part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from otoscope.audio.clip import Clip

Part = Literal["search", "choose", "report"]
PARTS: tuple[Part, ...] = ("search", "choose", "report")
#: shares of what is not kept for the report as a whole kind
SHARES = (0.35, 0.3, 0.35)
#: share of the kinds of recordings that only the report hears
HELD = 0.3
#: columns of a manifest that say which recordings have one source
SOURCES = ("source", "group", "freesound_id", "speaker")
RATE = 16000

#: noise that is made: name -> exponent of its power over frequency, by the part that may hear it
_SEEN = {"white": 0.0, "pink": -1.0}
_HELD = {"brown": -2.0, "blue": 1.0, "violet": 2.0}
#: root mean square of made noise, dB of full scale
LEVELS = (-60.0, -45.0, -30.0, -15.0)


@dataclass(frozen=True, eq=False)
class Sound:
    """One recording of a part.

    Attributes:
        clip: the sound.
        kind: class of a sound without speech; ``speech``, ``speech in noise`` or ``short speech``.
        said: whether somebody speaks.
    """

    clip: Clip
    kind: str
    said: bool

    def digest(self) -> str:
        """Of its samples, kind and text."""
        text = f"{self.clip.digest()}/{self.kind}/{self.clip.text}"
        return hashlib.sha256(text.encode()).hexdigest()


def noises(part: Part, seed: int = 0, seconds: Sequence[float] = (2.0, 5.0)) -> list[Sound]:
    """Noise of several colours and levels, hum, clicks and silence; the report hears colours that the others do not.

    Args:
        part: that hears them. No two parts hear the same samples, but for silence.
        seed: of the noise.
        seconds: lengths.
    """
    rng = np.random.default_rng([seed, PARTS.index(part)])
    colours = _SEEN | (_HELD if part == "report" else {})
    made: list[tuple[str, np.ndarray]] = []
    for length in seconds:
        n = round(length * RATE)
        made += [
            (f"{name} noise", _coloured(n, power, level, rng)) for name, power in colours.items() for level in LEVELS
        ]
        made.append(("hum", _hum(n, rng)))
        if part == "report":
            made.append(("clicks", _clicks(n, rng)))
        made.append(("silence", np.zeros(n, np.float32)))
    return [Sound(Clip(samples, RATE, name=f"{kind} {i}"), kind, False) for i, (kind, samples) in enumerate(made)]


def divided_sounds(clips: Sequence[Clip], seed: int = 0) -> dict[Part, list[Sound]]:
    """Recordings without speech by part; of three kinds or more, some are heard by the report alone.

    The kind is the label ``label`` (or ``class``) of a clip, else the folder in its name, else "recording".
    """
    kinds = sorted({kind_of(clip) for clip in clips})
    rng = np.random.default_rng(seed)
    held = set(rng.permutation(kinds)[: int(np.ceil(HELD * len(kinds)))].tolist()) if len(kinds) >= 3 else set()
    parts: dict[Part, list[Sound]] = {part: [] for part in PARTS}
    rest = [clip for clip in clips if kind_of(clip) not in held]
    parts["report"] += [Sound(clip, kind_of(clip), False) for clip in clips if kind_of(clip) in held]
    for kind in sorted({kind_of(clip) for clip in rest}):
        these = [clip for clip in rest if kind_of(clip) == kind]
        for part, members in _by_group(these, [_source(clip) for clip in these], seed).items():
            parts[part] += [Sound(clip, kind, False) for clip in members]
    return parts


def divided_speech(clips: Sequence[Clip], seed: int = 0) -> dict[Part, list[Sound]]:
    """Speech by part; a speaker (where known) is in one part."""
    groups = [clip.speaker or clip.labels.get("speaker") or clip.name or clip.digest() for clip in clips]
    return {
        part: [Sound(c, "speech", True) for c in members] for part, members in _by_group(clips, groups, seed).items()
    }


def harder_speech(
    speech: Sequence[Sound], sounds: Sequence[Sound], seed: int = 0, n: int = 24, snr_db: float = 5.0
) -> list[Sound]:
    """Speech that a careless fix would silence: sentences in other sounds, and short pieces of sentences.

    Args:
        speech: sentences.
        sounds: what may lie under them.
        seed: of the draws.
        n: of each kind, at most.
        snr_db: of the sound under the sentence.
    """
    rng = np.random.default_rng([seed, 7])
    loud = [s for s in sounds if s.clip.samples.std() > 1e-3]
    made: list[Sound] = []
    for i in rng.permutation(len(speech))[:n]:
        clip = speech[i].clip.resample(RATE)
        if loud:
            under = loud[int(rng.integers(len(loud)))].clip.resample(RATE)
            made.append(Sound(_mixed(clip, under, snr_db), "speech in noise", True))
        piece = _loudest(clip, float(rng.uniform(0.5, 1.2)))
        made.append(Sound(piece, "short speech", True))
    return made


def kind_of(clip: Clip) -> str:
    """What kind of sound a clip is."""
    named = clip.labels.get("label") or clip.labels.get("class")
    if named:
        return named
    folder, slash, _ = clip.name.replace("\\", "/").rpartition("/")
    return folder.rpartition("/")[2] if slash and folder else "recording"


def _source(clip: Clip) -> str:
    return next((clip.labels[key] for key in SOURCES if clip.labels.get(key)), clip.name or clip.digest())


def _by_group(clips: Sequence[Clip], groups: Sequence[str], seed: int) -> dict[Part, list[Clip]]:
    """Whole groups by part, as near the shares as groups allow; every part gets one where there are three."""
    names = sorted(set(groups))
    order = np.random.default_rng([seed, 1]).permutation(names).tolist()
    counts = [max(1, round(share * len(order))) for share in SHARES[:2]]
    edges = (counts[0], min(len(order), counts[0] + counts[1]))
    cut = {name: "search" if i < edges[0] else "choose" if i < edges[1] else "report" for i, name in enumerate(order)}
    return {part: [clip for clip, group in zip(clips, groups) if cut[group] == part] for part in PARTS}


def _coloured(n: int, power: float, level: float, rng: np.random.Generator) -> Float[np.ndarray, " n"]:
    """Noise whose power goes with ``frequency ** power``, at ``level`` dB of full scale (root mean square)."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    frequency = np.maximum(np.arange(len(spectrum)), 1.0)
    samples = np.fft.irfft(spectrum * frequency ** (power / 2), n)
    return (samples / samples.std() * 10 ** (level / 20)).astype(np.float32)


def _hum(n: int, rng: np.random.Generator) -> Float[np.ndarray, " n"]:
    """Mains hum: 50 or 60 Hz with overtones, -25 dB."""
    time, base = np.arange(n) / RATE, float(rng.choice([50.0, 60.0]))
    samples = sum(np.sin(2 * np.pi * k * base * time + rng.uniform(0, 6)) / k for k in range(1, 8))
    return np.asarray(samples / np.std(samples) * 10 ** (-25 / 20), np.float32)


def _clicks(n: int, rng: np.random.Generator) -> Float[np.ndarray, " n"]:
    """Short clicks at random times over a faint floor."""
    samples = 1e-4 * rng.standard_normal(n)
    for start in rng.integers(0, n - 80, 3 + n // RATE):
        samples[start : start + 80] += rng.uniform(0.1, 0.6) * np.exp(-np.arange(80) / 12) * rng.choice([-1, 1])
    return samples.astype(np.float32)


def _mixed(clip: Clip, under: Clip, snr_db: float) -> Clip:
    """A clip over another sound, repeated to its length."""
    noise = np.resize(under.samples, len(clip.samples))
    gain = np.sqrt(np.mean(clip.samples**2) / max(float(np.mean(noise**2)), 1e-12) * 10 ** (-snr_db / 10))
    return Clip(
        (clip.samples + gain * noise).astype(np.float32),
        clip.rate,
        text=clip.text,
        name=f"{clip.name} over {under.name}",
    )


def _loudest(clip: Clip, seconds: float) -> Clip:
    """The stretch of a clip with the most energy; its text is not known."""
    n = min(round(seconds * clip.rate), len(clip.samples))
    energy = np.concatenate([[0.0], np.cumsum(clip.samples.astype(float) ** 2)])
    start = int(np.argmax(energy[n:] - energy[:-n]))
    return Clip(clip.samples[start : start + n].copy(), clip.rate, name=f"{clip.name} from {start / clip.rate:.2f} s")
