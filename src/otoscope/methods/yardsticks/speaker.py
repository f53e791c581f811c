"""Speaker: the distance of two utterances' cepstral statistics in a space trained on other speakers.

An utterance becomes the mean and standard deviation over its active frames of 19 mel cepstra, and the standard deviation of
their slopes. A linear discriminant analysis (Fisher 1936) over training speakers, each of whose utterances is also heard with
noise, through a telephone's band and in a room, finds the directions that tell people apart and that a channel does not move
(multi-condition training, as in Snyder et al. 2018). ``moved = 1 - cosine``.

It is a small recogniser of speakers from seconds of speech; its equal error rate on speakers that it was not trained on is
measured beside every study, and on single words it knows little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import fft

from otoscope.audio.clip import Clip
from otoscope.audio.corruptions import apply
from otoscope.errors import TaskError
from otoscope.methods.yardsticks.base import Seconds, Yardstick
from otoscope.methods.yardsticks.frames import active, bands, deltas, inside, once_per_clip

#: Conditions that each training utterance is heard in beside its own.
CONDITIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("pink_noise", {"snr_db": 15.0}),
    ("band_pass", {}),
    ("reverberation", {"rt60": 0.3, "drr_db": 3.0}),
)
#: What lies so far (dB) below a band's loud frames is not looked at.
_DEPTH = 40.0
#: Weight of the identity in the within-speaker covariance, whose size is far above the number of utterances.
_SHRINKAGE = 0.3
_FEWEST_FRAMES = 10


@dataclass(frozen=True, eq=False)
class SpeakerSpace:
    """A trained space: ``(x - mean) / scale @ directions``, arrays ``[d]``, ``[d]``, ``[d, k]``."""

    mean: Float[np.ndarray, " d"]
    scale: Float[np.ndarray, " d"]
    directions: Float[np.ndarray, "d k"]

    @classmethod
    def train(cls, clips: Sequence[Clip], seed: int = 0) -> SpeakerSpace:
        """The space of the speakers of these clips, which name their ``speaker``.

        Raises:
            TaskError: fewer than three speakers, or none with two utterances.
        """
        speakers = [clip.speaker or "" for clip in clips]
        counts = [speakers.count(name) for name in set(speakers)]
        if len(counts) < 3 or max(counts) < 2:
            raise TaskError(
                f"A space of speakers needs at least 3 speakers with 2 utterances; {len(clips)} clips of {len(counts)} were given."
            )
        rows, labels = [], []
        for number, (clip, speaker) in enumerate(zip(clips, speakers)):
            versions = [clip, *(apply(name, clip, None, seed + number, **params).clip for name, params in CONDITIONS)]
            rows += [statistics(version) for version in versions]
            labels += [speaker] * len(versions)
        return _discriminant(np.array(rows), np.array(labels))

    def place(self, clip: Clip, span: Seconds | None = None) -> Float[np.ndarray, " k"]:
        """Where an utterance, or a span of it, lies: a vector of length 1."""
        found = ((statistics(clip, span) - self.mean) / self.scale) @ self.directions
        return found / max(float(np.linalg.norm(found)), 1e-12)


class Speaker(Yardstick):
    """Distance in a space of speakers."""

    factor = "speaker"
    unit = "1 - cosine"
    summary = "distance of cepstral statistics in a discriminant space trained on other speakers"

    def __init__(self, space: SpeakerSpace) -> None:
        self.space = space

    def moved(
        self, clean: Clip, corrupt: Clip, span: Seconds | None = None, corrupt_span: Seconds | None = None
    ) -> float:
        """0 for the same statistics, about 1 for two people, at most 2."""
        first, second = self.space.place(clean, span), self.space.place(corrupt, corrupt_span or span)
        return max(0.0, 1 - float(first @ second))


def statistics(clip: Clip, span: Seconds | None = None) -> Float[np.ndarray, " d"]:
    """Mean and deviation of the cepstra and deviation of their slopes, over active frames (all, where hardly one is)."""
    values = _cepstra(clip)
    where = inside(len(values), span)
    chosen: Bool[np.ndarray, " frame"] = active(clip, span)
    if chosen.sum() < _FEWEST_FRAMES:
        chosen = np.ones(len(chosen), bool)
    own, slopes = values[where][chosen], deltas(values)[where][chosen]
    return np.concatenate([own.mean(axis=0), own.std(axis=0), slopes.std(axis=0)])


def equal_error_rate(same: Float[np.ndarray, " n"], different: Float[np.ndarray, " m"]) -> float:
    """Share of errors at the threshold where as many same pairs lie above as different pairs at or below."""
    thresholds = np.sort(np.concatenate([same, different]))
    missed = np.array([(same > t).mean() for t in thresholds])
    accepted = np.array([(different <= t).mean() for t in thresholds])
    at = int(np.argmin(np.abs(missed - accepted)))
    return float(missed[at] + accepted[at]) / 2


@once_per_clip
def _cepstra(clip: Clip) -> Float[np.ndarray, "frame coefficient"]:
    power = bands(clip)
    raised = power + 10 ** (-_DEPTH / 10) * np.quantile(power, 0.95, axis=0)
    level = 10 * np.log10(np.maximum(raised, 1e-10))
    return np.asarray(fft.dct(level, type=2, norm="ortho", axis=1))[:, 1:20]


def _discriminant(rows: Float[np.ndarray, "n d"], labels: np.ndarray) -> SpeakerSpace:
    names = np.unique(labels)
    mean, scale = rows.mean(axis=0), np.maximum(rows.std(axis=0), 1e-9)
    normal = (rows - mean) / scale
    within = sum(np.cov(normal[labels == name].T, bias=True) * float((labels == name).mean()) for name in names)
    size = len(mean)
    within = (1 - _SHRINKAGE) * within + _SHRINKAGE * np.eye(size) * float(np.trace(within)) / size
    values, vectors = np.linalg.eigh(within)
    whitening = vectors / np.sqrt(np.maximum(values, 1e-9))
    centres = np.stack([normal[labels == name].mean(axis=0) for name in names]) @ whitening
    _, _, axes = np.linalg.svd(centres - centres.mean(axis=0), full_matrices=False)
    return SpeakerSpace(mean, scale, whitening @ axes[: len(names) - 1].T)
