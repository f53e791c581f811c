"""Recordings whose tokens hang on known features at known frames, in place of a model: the truth that measures must find."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import sparse

from otoscope.sae.measures.forced import Scores
from otoscope.sae.measures.frames import Reading

#: features of the planted dictionary; one row of the identity each
D = 12


def read_identity(x: np.ndarray) -> Reading:
    """A dictionary whose features are the channels; what is below 0.1 is no feature, and is its error."""
    codes = np.where(x > 0.1, x, 0)
    return Reading(sparse.csr_array(codes), codes, np.eye(x.shape[1]))


@dataclass(frozen=True, eq=False)
class Told:
    """A recording in which token ``i`` lies in frames ``5 i`` to ``5 i + 4``.

    A token's log-probability is ``weight`` times the sum of its own frames' listened-to channels; with ``everywhere`` it is that
    of all frames.
    """

    x: np.ndarray
    listens: Sequence[int] = (0,)
    everywhere: bool = False
    weight: float = 0.1
    asked: list[int] = field(default_factory=list)

    @property
    def spans(self) -> np.ndarray:
        starts = np.arange(0, len(self.x), 5)
        return np.stack([starts, starts + 5], axis=1)

    def scores(self, edited: Sequence[np.ndarray]) -> Scores:
        self.asked.append(len(edited))
        rows = np.stack([[self._token(x, a, b) for a, b in self.spans] for x in edited])
        return Scores(rows, rows > -1)

    def _token(self, x: np.ndarray, start: int, end: int) -> float:
        own = x if self.everywhere else x[start:end]
        return self.weight * float(own[:, list(self.listens)].sum()) - 2


@dataclass(frozen=True, eq=False)
class TwoSounds:
    """Two sounds of one factor: the answer follows the mean of the factor's own channels."""

    factor: str
    unit: str
    x: np.ndarray
    donor: np.ndarray
    channels: Sequence[int]

    def effects(self, edited: Sequence[np.ndarray]) -> np.ndarray:
        read: Callable[[np.ndarray], float] = lambda v: float(v[:, list(self.channels)].mean())  # noqa: E731
        span = read(self.donor) - read(self.x)
        return np.array([(read(e) - read(self.x)) / span for e in edited])
