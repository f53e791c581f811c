"""What a measure looks at: labelled frames, and what a dictionary (or a rival of it) makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse

from otoscope.errors import TaskError

#: a ``scipy.sparse.csr_array``, whose own types leave out half of what it can do
Sparse = Any


def csr(values: Any, shape: tuple[int, int] | None = None) -> Sparse:
    """A ``csr_array`` of a matrix, sparse or not, or of scipy's triples."""
    return sparse.csr_array(values, shape=shape)


class Label(NamedTuple):
    """A label of every frame.

    ``codes`` ``[frame]`` index ``names``, -1 where it is not known; ``of_recordings``: one value per recording, such as its
    speaker, so that recordings and not frames are told apart.
    """

    codes: Int[np.ndarray, " frame"]
    names: tuple[str, ...]
    of_recordings: bool = False


@dataclass(frozen=True, eq=False)
class Frames:
    """Activations, in the order of time within each recording.

    Attributes:
        x: ``[frame, d]`` activations.
        utterance: ``[frame]`` number of its recording, frames of one recording side by side.
        phone: the phone of each frame; -1 where none is said or known.
        silent: ``[frame]`` whether nothing is said, where that is known.
        labels: what else is known, by name.
        speaker: ``[frame]`` number of its speaker; probes keep speakers apart. None: recordings are kept apart.
    """

    x: Float[np.ndarray, "frame d"]
    utterance: Int[np.ndarray, " frame"]
    phone: Label
    silent: Bool[np.ndarray, " frame"]
    labels: Mapping[str, Label] = field(default_factory=dict)
    speaker: Int[np.ndarray, " frame"] | None = None

    def __post_init__(self) -> None:
        n = len(self.x)
        for name, values in (("utterance", self.utterance), ("phone", self.phone.codes), ("silent", self.silent)):
            if len(values) != n:
                raise TaskError(f"{name} has {len(values)} entries for {n} frames: give one per frame.")
        if n == 0 or not np.isfinite(self.x).all():
            raise TaskError("there are no frames, or they hold NaN or infinite values: harvest the recordings again.")

    def take(self, rows: Bool[np.ndarray, " frame"]) -> Frames:
        """Some of the frames, in their order."""
        return Frames(
            self.x[rows], self.utterance[rows], Label(self.phone.codes[rows], self.phone.names), self.silent[rows],
            {k: Label(v.codes[rows], v.names, v.of_recordings) for k, v in self.labels.items()},
            None if self.speaker is None else self.speaker[rows],
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Reading:
    """What a dictionary makes of frames.

    Attributes:
        codes: ``[frame, feature]``, mostly zero; a feature is active where its code is above 0. Those of raw activations and
            of principal components have both signs, with the mean at 0.
        rebuilt: ``[frame, d]``, the frames from their codes.
        decoder: ``[feature, d]``, what each feature writes; None where there is no such thing.
    """

    codes: Sparse
    rebuilt: Float[np.ndarray, "frame d"]
    decoder: Float[np.ndarray, "feature d"] | None = None

    def take(self, rows: Bool[np.ndarray, " frame"]) -> Reading:
        """The same of some frames."""
        return Reading(csr(self.codes[np.flatnonzero(rows)]), self.rebuilt[rows], self.decoder)


def numbered(values: Int[np.ndarray, " frame"]) -> tuple[Int[np.ndarray, " frame"], int]:
    """Numbers 0, 1, ... in place of arbitrary ones, and how many there are."""
    known, codes = np.unique(values, return_inverse=True)
    return codes, len(known)


def sums_by(
    group: Int[np.ndarray, " frame"], values: Float[np.ndarray, "frame column"]
) -> Float[np.ndarray, "group column"]:
    """Sum of the rows of each group, groups in the order of their numbers, float64."""
    codes, n = numbered(group)
    return np.asarray(membership(codes, n) @ np.asarray(values, np.float64))


def membership(codes: Int[np.ndarray, " frame"], n: int) -> Sparse:
    """``[group, frame]`` with 1 where a frame belongs to a group; frames with a code below 0 belong to none."""
    there = np.flatnonzero(codes >= 0)
    return csr((np.ones(len(there)), (codes[there], there)), shape=(n, len(codes)))


def active(codes: Sparse) -> Sparse:
    """``[frame, feature]`` with 1 where a feature is active."""
    on = codes.copy()
    on.data = (codes.data > 0).astype(np.float32)
    on.eliminate_zeros()
    return on
