"""Which recordings are heard, in which order, and with what noise: mixtures of corpora, drawn with a seed.

Weights are shares of the sound's *time*. A recording is drawn from corpus c with probability
``p_c = (w_c / s_c) / sum_k (w_k / s_k)``, where s_c is the mean length of its recordings, so that the expected share of
frames is w_c whatever the lengths. Within a corpus every recording comes once before any comes twice.

Noise is put in on-line, as in AudioSAE (arXiv 2602.05027: noise with p = .05 and music with p = .025, at 0 to 20 dB).
Every draw depends on the seed, the epoch and the number of the take alone, so a mixture goes on anywhere exactly.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from otoscope.audio.align import align
from otoscope.audio.clip import Clip
from otoscope.audio.corruptions.registry import apply
from otoscope.audio.files import read
from otoscope.errors import AudioError
from otoscope.sae.recordings import Recording

_COLOURS = ("white_noise", "pink_noise")


@dataclass(frozen=True)
class Noise:
    """Noise that some of the recordings get.

    Attributes:
        probability: that a recording gets it.
        snr_db: lowest and highest signal-to-noise ratio, drawn uniformly, dB of mean power over the recording.
        sounds: files of which one is drawn; empty for white and pink noise, equally often.

    Raises:
        AudioError: no probability, or no range.
    """

    probability: float
    snr_db: tuple[float, float] = (0.0, 20.0)
    sounds: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise AudioError(f"The probability of noise is {self.probability:g}; give a number from 0 to 1.")
        low, high = self.snr_db
        if not (math.isfinite(low) and math.isfinite(high) and -60 <= low <= high <= 120):
            raise AudioError(f"The noise lies at {low:g} to {high:g} dB; give the lower end first, from -60 to 120 dB.")

    def added(self, clip: Clip, rng: np.random.Generator) -> tuple[Clip, str | None]:
        """The clip with noise or without, as it is drawn, and what was added."""
        # all is drawn at once, so that what one recording gets does not depend on what it is
        gets, place, which, seed = rng.random(), rng.random(), rng.random(), int(rng.integers(2**31))
        if gets >= self.probability:
            return clip, None
        snr = self.snr_db[0] + place * (self.snr_db[1] - self.snr_db[0])
        if not np.any(clip.samples):
            return clip.noticed("silent, so it gets no noise at a ratio to its sound"), None
        if self.sounds:
            path = self.sounds[int(which * len(self.sounds))]
            noisy = apply("recorded_noise", clip, seed=seed, recording=_noise(path), snr_db=snr).clip
            return noisy, f"{path.name} at {snr:.2f} dB"
        colour = _COLOURS[int(which * len(_COLOURS))]
        return apply(colour, clip, seed=seed, snr_db=snr).clip, f"{colour} at {snr:.2f} dB"


@lru_cache(maxsize=16)
def _noise(path: Path) -> Clip:
    return read(path)


class Sound(NamedTuple):
    """A take as the model hears it: the ``clip`` with its words and phones, the ``digest`` of the recording before noise,
    and what ``noise`` was added."""

    clip: Clip
    digest: str
    noise: str | None


@dataclass(frozen=True)
class Take:
    """One recording as a mixture gives it: the ``number``-th of its epoch, with noise drawn from ``seed``."""

    recording: Recording
    number: int
    seed: tuple[int, ...] = (0,)
    noises: tuple[Noise, ...] = ()
    align: bool = False

    def sound(self, rate: int) -> Sound:
        """Decode, align if asked, resample and add the noise.

        Raises:
            AudioError: the recording or the noise cannot be read.
        """
        clip = self.recording.clip()
        digest = clip.digest()
        if self.align and clip.text and not clip.phones:
            try:
                clip = align(clip)
            except AudioError as error:
                clip = clip.noticed(f"not aligned: {error}")
        clip = clip.resample(rate)
        rng, added = np.random.default_rng(self.seed), []
        for noise in self.noises:
            clip, what = noise.added(clip, rng)
            added += [what] if what else []
        return Sound(clip, digest, ", ".join(added) or None)


@dataclass(frozen=True)
class Mixture:
    """Recordings of one or several corpora, with an order, weights and noise.

    Without weights every recording comes once in an epoch. With weights an epoch ends when a corpus has none left that was
    not drawn; with a limit as well, it has exactly that many, and recordings of a small corpus come again.

    Attributes:
        recordings: all of them; their ``corpus`` says where they belong.
        weights: corpus -> share of the time; None for what there is.
        noises: kinds of noise, each drawn by itself.
        seed: of the order, the draws and the noise.
        limit: number of recordings in an epoch, a random draw of them; None for all.
        align: find words and phones of recordings that have a transcript but no phones (English).

    Raises:
        AudioError: there are no recordings, or a weight is missing, negative, or of a corpus that is not there.
    """

    recordings: tuple[Recording, ...]
    weights: Mapping[str, float] | None = None
    noises: tuple[Noise, ...] = ()
    seed: int = 0
    limit: int | None = None
    align: bool = False

    def __post_init__(self) -> None:
        if not self.recordings:
            raise AudioError("There are no recordings to harvest; name a sound file, a folder or a manifest.")
        if self.limit is not None and self.limit < 1:
            raise AudioError(f"A limit of {self.limit} recordings leaves none; give at least 1.")
        if self.weights is None:
            return
        there, given = set(self.corpora), set(self.weights)
        if there != given:
            odd = min(there ^ given)
            raise AudioError(
                f"The corpus '{odd}' has {'no weight' if odd in there else 'a weight but no recording'}: give one weight "
                f"for each of {', '.join(self.corpora)}."
            )
        if not all(math.isfinite(w) and w >= 0 for w in self.weights.values()) or not sum(self.weights.values()):
            raise AudioError("The weights of the corpora must be finite numbers, none below 0 and one above it.")

    @cached_property
    def corpora(self) -> dict[str, list[int]]:
        """Corpus -> indices of its recordings, in the order of appearance."""
        found: dict[str, list[int]] = {}
        for i, recording in enumerate(self.recordings):
            found.setdefault(recording.corpus, []).append(i)
        return found

    @cached_property
    def probabilities(self) -> dict[str, float]:
        """Corpus -> probability that the next recording is one of its own (with weights)."""
        weights = self.weights or {}
        mean = {c: float(np.mean([self.recordings[i].seconds for i in own])) for c, own in self.corpora.items()}
        raw = {c: weights[c] / mean[c] for c in self.corpora}
        return {c: p / sum(raw.values()) for c, p in raw.items()}

    def takes(self, epoch: int = 0) -> list[Take]:
        """What is heard in an epoch, in its order."""
        rng = np.random.default_rng([self.seed, epoch])
        n = len(self.recordings)
        if self.weights is None:
            order = [int(i) for i in rng.permutation(n)[: self.limit]]
        else:
            order = self._drawn(rng)
        if self.limit is not None and self.weights is None and self.limit > n:
            raise AudioError(
                f"There are {n} recordings, fewer than the limit of {self.limit}; lower it, or give weights."
            )
        return [
            Take(self.recordings[i], number, (self.seed, epoch, number), self.noises, self.align)
            for number, i in enumerate(order)
        ]

    def _drawn(self, rng: np.random.Generator) -> list[int]:
        corpora, p = list(self.corpora), list(self.probabilities.values())
        left: dict[str, list[int]] = {c: [] for c in corpora}
        passes = dict.fromkeys(corpora, 0)
        order: list[int] = []
        while self.limit is None or len(order) < self.limit:
            corpus = corpora[int(rng.choice(len(corpora), p=p))]
            if not left[corpus]:
                if passes[corpus] and self.limit is None:
                    break
                left[corpus] = [self.corpora[corpus][int(i)] for i in rng.permutation(len(self.corpora[corpus]))]
                passes[corpus] += 1
            order.append(left[corpus].pop())
        return order

    def fingerprint(self) -> str:
        """SHA-256 (hex) of all that decides what is heard: recordings, labels, weights, noise and seed."""
        told = {
            "recordings": [r.described() for r in self.recordings], "weights": self.weights and dict(self.weights),
            "noises": [(n.probability, n.snr_db, [_size(p) for p in n.sounds]) for n in self.noises],
            "seed": self.seed, "limit": self.limit, "align": self.align,
        }  # fmt: skip
        return hashlib.sha256(json.dumps(told, sort_keys=True, default=list).encode()).hexdigest()


def _size(path: Path) -> tuple[str, int]:
    return str(path), path.stat().st_size


def mixture(
    corpora: Sequence[Sequence[Recording]], weights: Sequence[float] | None = None, **options: object
) -> Mixture:
    """A mixture of corpora given one by one, with their weights in the same order; ``options`` are those of :class:`Mixture`.

    Raises:
        AudioError: there are not as many weights as corpora, or as :class:`Mixture` says.
    """
    recordings = tuple(recording for corpus in corpora for recording in corpus)
    if weights is None:
        return Mixture(recordings, **options)  # type: ignore[arg-type]
    if len(weights) != len(corpora):
        raise AudioError(f"There are {len(weights)} weights for {len(corpora)} corpora: give one for each --data.")
    names = [{recording.corpus for recording in corpus} for corpus in corpora]
    if any(len(of) != 1 for of in names) or len(set().union(*names)) != len(corpora):
        raise AudioError("Corpora with weights need one name each, and two of these share one: rename a folder.")
    return Mixture(recordings, {of.pop(): float(w) for of, w in zip(names, weights)}, **options)  # type: ignore[arg-type]
