"""When features are active: how often, how strongly, at which moments, and during which phones, words and labels.

One pass over recordings, whose codes are sparse, with memory that does not grow with them: per feature a count, a sum, its
strongest moments, moments at random, and how many of its active frames carry each label. Parts that were counted apart are
merged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from otoscope.errors import ModelError
from otoscope.sae.codes import Codes

#: label of a frame in which no phone (word) is said, where their times are known
SILENCE = "(none)"
#: pairs of feature and label that are held before equal ones are added up
_HELD = 2_000_000


class Moments(NamedTuple):
    """A few frames of every feature, the first ones first; at most one of each recording.

    ``rank`` ``[feature, moment]``: what they were chosen by, falling; -inf where a feature has fewer moments. ``value``:
    the feature's strength there. ``recording``: number of the recording, -1 where there is none. ``time``: seconds.
    """

    rank: Float[np.ndarray, "feature moment"]
    value: Float[np.ndarray, "feature moment"]
    recording: Int[np.ndarray, "feature moment"]
    time: Float[np.ndarray, "feature moment"]

    @classmethod
    def none(cls, n_features: int, n: int) -> Moments:
        """No moments yet."""
        shape = (n_features, n)
        return cls(np.full(shape, -np.inf), np.zeros(shape), np.full(shape, -1, np.int64), np.zeros(shape))

    def joined(self, other: Moments) -> Moments:
        """The best of both, as many as each holds."""
        both = [np.concatenate(pair, axis=1) for pair in zip(self, other)]
        order = np.argsort(-both[0], axis=1, kind="stable")[:, : self.rank.shape[1]]
        return Moments(*(np.take_along_axis(part, order, axis=1) for part in both))


@dataclass
class Tally:
    """How many frames carry each label, and how many active frames of each feature do.

    ``names``: the labels. ``frames`` ``[label]``. ``features``, ``codes``, ``counts`` ``[pair]``: the active frames of a
    feature that carry a label, for the pairs that occur, sorted.
    """

    names: list[str]
    frames: Int[np.ndarray, " label"]
    features: Int[np.ndarray, " pair"]
    codes: Int[np.ndarray, " pair"]
    counts: Int[np.ndarray, " pair"]

    def of(self, feature: int) -> list[tuple[str, int]]:
        """(label, active frames that carry it) of a feature, the most frequent first."""
        own = slice(*np.searchsorted(self.features, (feature, feature + 1)))
        order = np.argsort(-self.counts[own], kind="stable")
        return [(self.names[c], int(n)) for c, n in zip(self.codes[own][order], self.counts[own][order])]

    def labelled(self, n_features: int) -> Int[np.ndarray, " feature"]:
        """Active frames of each feature that carry any label."""
        return np.bincount(self.features, self.counts, n_features).astype(np.int64)


@dataclass
class Activity:
    """What features did over recordings.

    Attributes:
        n_frames: frames seen.
        active: ``[feature]`` frames in which each was active.
        total: ``[feature]`` sum of its values.
        top, random: its strongest moments, and moments drawn at random from its active frames.
        tallies: kind of label (``phone``, ``word``, ...) -> counts.
        centre, square: ``[d]`` mean of the activations, and the mean of their squared norm.
    """

    n_frames: int
    active: Int[np.ndarray, " feature"]
    total: Float[np.ndarray, " feature"]
    top: Moments
    random: Moments
    tallies: dict[str, Tally]
    centre: Float[np.ndarray, " d"]
    square: float

    @property
    def density(self) -> Float[np.ndarray, " feature"]:
        """Share of frames in which each feature is active."""
        return self.active / max(1, self.n_frames)

    @property
    def mean(self) -> Float[np.ndarray, " feature"]:
        """Mean value of each feature over the frames in which it is active; 0 where it never is."""
        return self.total / np.maximum(1, self.active)

    @property
    def strongest(self) -> Float[np.ndarray, " feature"]:
        """Largest value of each feature; 0 where it is never active."""
        return np.where(np.isfinite(self.top.rank[:, 0]), self.top.value[:, 0], 0.0)

    @property
    def spread(self) -> float:
        """Root of the mean squared distance of a frame from the mean frame: ``sqrt(E|x - E x|^2)``."""
        return float(np.sqrt(max(0.0, self.square - float(self.centre @ self.centre))))

    def plain(self) -> dict[str, Any]:
        """As a tree of plain data and arrays, for :meth:`of_plain`."""
        return {
            "n_frames": self.n_frames, "active": self.active, "total": self.total, "top": list(self.top),
            "random": list(self.random), "centre": self.centre, "square": self.square,
            "tallies": {
                kind: {"names": t.names, "frames": t.frames, "features": t.features, "codes": t.codes, "counts": t.counts}
                for kind, t in self.tallies.items()
            },
        }  # fmt: skip

    @classmethod
    def of_plain(cls, tree: Mapping[str, Any]) -> Activity:
        """What :meth:`plain` gave."""
        tallies = {kind: Tally(**own) for kind, own in tree["tallies"].items()}
        return cls(**{**tree, "top": Moments(*tree["top"]), "random": Moments(*tree["random"]), "tallies": tallies})


class Watch:
    """Counts what features do, recording after recording.

    Args:
        n_features: of the dictionary.
        top, random: moments to keep of each feature.
        seed: of the random moments.
    """

    def __init__(self, n_features: int, top: int = 8, random: int = 4, seed: int = 0):
        self.n_features = n_features
        self._active, self._total = np.zeros(n_features, np.int64), np.zeros(n_features)
        self._top, self._random = Moments.none(n_features, top), Moments.none(n_features, random)
        self._draws = np.random.default_rng(seed)
        self._kinds: dict[str, _Counter] = {}
        self._n_frames, self._sum, self._square = 0, 0.0, 0.0

    def add(
        self,
        recording: int,
        x: Float[np.ndarray, "frame d"],
        codes: Codes,
        time: Float[np.ndarray, " frame"],
        labels: Mapping[str, Sequence[str | None]],
    ) -> None:
        """Count one recording.

        Args:
            recording: its number.
            x: its activations.
            codes: what the dictionary makes of them; entries of value 0 do not count.
            time: seconds of each frame.
            labels: kind -> label of each frame, None where it is not known.

        Raises:
            ModelError: they do not have the same frames.
        """
        if wrong := [k for k, own in (("time", time), *labels.items()) if len(own) != codes.n_frames]:
            raise ModelError(f"the {wrong[0]} of recording {recording} does not have its {codes.n_frames} frames.")
        values, features, frames = (t.cpu().numpy() for t in (codes.values, codes.features, codes.frames))
        on = values > 0
        values, features, frames = values[on].astype(float), features[on], frames[on]
        self._n_frames += codes.n_frames
        self._sum = self._sum + x.sum(0, dtype=np.float64)
        self._square += float(np.square(x, dtype=np.float64).sum())
        self._active += np.bincount(features, minlength=self.n_features)
        self._total += np.bincount(features, values, self.n_features)
        self._top = _with_best(self._top, values, values, features, frames, recording, time)
        draws = self._draws.random(len(values))
        self._random = _with_best(self._random, draws, values, features, frames, recording, time)
        for kind, own in labels.items():
            self._kinds.setdefault(kind, _Counter()).add(own, features, frames)

    def activity(self) -> Activity:
        """What was counted so far."""
        n = max(1, self._n_frames)
        return Activity(
            self._n_frames, self._active, self._total, self._top, self._random,
            {kind: counter.tally() for kind, counter in self._kinds.items()}, np.atleast_1d(self._sum / n), self._square / n,
        )  # fmt: skip


def merged(parts: Iterable[Activity]) -> Activity:
    """Parts that were counted apart, as if they had been counted together.

    Raises:
        ModelError: there are none.
    """
    parts = list(parts)
    if not parts:
        raise ModelError("there is nothing to count: give at least one recording.")
    n = sum(p.n_frames for p in parts)
    top, random = parts[0].top, parts[0].random
    for part in parts[1:]:
        top, random = top.joined(part.top), random.joined(part.random)
    kinds = dict.fromkeys(kind for part in parts for kind in part.tallies)
    return Activity(
        n, np.sum([p.active for p in parts], 0), np.sum([p.total for p in parts], 0), top, random,
        {kind: _together([p.tallies[kind] for p in parts if kind in p.tallies]) for kind in kinds},
        np.sum([p.centre * p.n_frames for p in parts], 0) / max(1, n),
        sum(p.square * p.n_frames for p in parts) / max(1, n),
    )  # fmt: skip


def _with_best(
    moments: Moments, rank: np.ndarray, values: np.ndarray, features: np.ndarray, frames: np.ndarray, recording: int,
    time: np.ndarray,
) -> Moments:  # fmt: skip
    """The moments with each feature's best frame of one recording, where it is better than the last one kept."""
    if not len(rank) or not moments.rank.shape[1]:
        return moments
    order = np.lexsort((-rank, features))
    best = order[np.flatnonzero(np.diff(features[order], prepend=-1))]
    best = best[rank[best] > moments.rank[features[best], -1]]
    rows = features[best]
    new = Moments(
        rank[best][:, None],
        values[best][:, None],
        np.full((len(best), 1), recording, np.int64),
        time[frames[best], None],
    )
    joined = Moments(*(part[rows] for part in moments)).joined(new)
    for part, own in zip(moments, joined):
        part[rows] = own
    return moments


class _Counter:
    """One kind of label, while it is counted."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._frames: list[int] = []
        self._keys: list[np.ndarray] = []
        self._counts: list[np.ndarray] = []

    def add(self, labels: Sequence[str | None], features: np.ndarray, frames: np.ndarray) -> None:
        codes = np.array([-1 if name is None else self._codes.setdefault(name, len(self._codes)) for name in labels])
        self._frames += [0] * (len(self._codes) - len(self._frames))
        for code, n in zip(*np.unique(codes[codes >= 0], return_counts=True)):
            self._frames[code] += int(n)
        own = codes[frames]
        keys, counts = np.unique(features[own >= 0].astype(np.int64) << 32 | own[own >= 0], return_counts=True)
        self._keys.append(keys)
        self._counts.append(counts)
        if sum(map(len, self._keys)) > _HELD:
            self._add_up()

    def _add_up(self) -> None:
        keys, inverse = np.unique(np.concatenate(self._keys), return_inverse=True)
        counts = np.bincount(inverse, np.concatenate(self._counts), len(keys)).astype(np.int64)
        self._keys, self._counts = [keys], [counts]

    def tally(self) -> Tally:
        if self._keys:
            self._add_up()
        keys = self._keys[0] if self._keys else np.zeros(0, np.int64)
        counts = self._counts[0] if self._counts else np.zeros(0, np.int64)
        return Tally(list(self._codes), np.array(self._frames, np.int64), keys >> 32, keys & 0xFFFFFFFF, counts)


def _together(tallies: list[Tally]) -> Tally:
    names = sorted({name for tally in tallies for name in tally.names})
    code = {name: i for i, name in enumerate(names)}
    frames = np.zeros(len(names), np.int64)
    keys, counts = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for tally in tallies:
        table = np.array([code[name] for name in tally.names], np.int64)
        np.add.at(frames, table, tally.frames)
        keys.append(tally.features << 32 | (table[tally.codes] if len(tally.codes) else tally.codes))
        counts.append(tally.counts)
    unique, inverse = np.unique(np.concatenate(keys), return_inverse=True)
    summed = np.bincount(inverse, np.concatenate(counts), len(unique)).astype(np.int64)
    return Tally(names, frames, unique >> 32, unique & 0xFFFFFFFF, summed)
