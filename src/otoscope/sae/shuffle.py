"""Frames in random order, in batches, from chunks that fit into memory: exact, deterministic, and resumable anywhere.

An epoch is a sequence of chunks. Within a chunk all frames are permuted, every permutation equally likely; chunks follow
each other without a gap in the batches, and so do epochs. Every frame comes once in an epoch. Where one chunk holds all
frames, the order of an epoch is therefore an exactly uniform permutation; else a batch holds frames of one chunk (or of
two, at its edge).

The permutation of a chunk depends on (seed, epoch, number of the chunk), so batch ``start`` is found without computing the
batches before it, and what follows it is the same bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int

from otoscope.errors import RunError
from otoscope.sae.ahead import ahead
from otoscope.sae.batch import Batch

#: bits of a frame's key that hold its time
_TIME_BITS = 40


class Chunk(Protocol):
    """Frames of whole utterances, in the order of utterance and time."""

    @property
    def n_frames(self) -> int:
        """How many."""
        ...

    def places(self) -> tuple[Int[np.ndarray, " frame"], Float[np.ndarray, " frame"]]:
        """Utterance and time (seconds) of each frame, without its values."""
        ...

    def load(self) -> Batch:
        """The frames themselves."""
        ...


class Pairs(NamedTuple):
    """Three batches side by side: frames ``now``, the frames of the same utterances at the lag ``before`` them, and
    ``other`` frames of the same utterances, drawn uniformly among all but ``now``."""

    now: Batch
    before: Batch
    other: Batch


def batches(
    epoch_chunks: Callable[[int], Sequence[Chunk]],
    batch_size: int,
    seed: int = 0,
    start: int = 0,
    epochs: int | None = None,
) -> Iterator[Batch]:
    """Batches of frames in random order.

    Args:
        epoch_chunks: epoch -> its chunks.
        batch_size: frames in a batch; with ``epochs``, the last batch holds what is left.
        seed: of the order.
        start: number of the first batch; those before it are passed over.
        epochs: how often every frame comes; None for ever.

    Raises:
        RunError: there are no frames, or the batch size or start is no such number.
    """

    def rows(chunk: Chunk, rng: np.random.Generator) -> tuple[Int[np.ndarray, " row"], ...]:
        return (rng.permutation(chunk.n_frames),)

    for (batch,) in _stream(epoch_chunks, lambda chunk: chunk.n_frames, rows, batch_size, seed, start, epochs):
        yield batch


def pairs(
    epoch_chunks: Callable[[int], Sequence[Chunk]],
    batch_size: int,
    lag_s: float,
    frame_rate: float | None,
    seed: int = 0,
    start: int = 0,
    epochs: int | None = None,
) -> Iterator[Pairs]:
    """Batches of frames with their partners; a frame without one comes in no pair.

    Args:
        epoch_chunks: epoch -> its chunks.
        batch_size: pairs in a batch.
        lag_s: from ``before`` to ``now``, seconds; the nearest whole number of frames.
        frame_rate: frames per second.
        seed, start, epochs: as for :func:`batches`.

    Raises:
        RunError: positions are tokens, the lag is shorter than a frame, or no utterance is as long as the lag.
    """
    lag = lag_frames(lag_s, frame_rate)
    assert frame_rate is not None

    def rows(chunk: Chunk, rng: np.random.Generator) -> tuple[Int[np.ndarray, " row"], ...]:
        utterance, time = chunk.places()
        now, before = partners(utterance, time, lag, frame_rate)
        order = rng.permutation(len(now))
        now, before = now[order], before[order]
        # utterances lie in one piece: the other frame is some steps further round in it
        edges = np.flatnonzero(np.diff(utterance)) + 1
        edges = np.concatenate(([0], edges, [len(utterance)]))
        at = np.searchsorted(edges, now, side="right") - 1
        low, n = edges[at], edges[at + 1] - edges[at]
        step = 1 + (rng.random(len(now)) * (n - 1)).astype(np.int64)
        return now, before, low + (now - low + step) % n

    def n_pairs(chunk: Chunk) -> int:
        return len(partners(*chunk.places(), lag, frame_rate)[0])

    for made in _stream(epoch_chunks, n_pairs, rows, batch_size, seed, start, epochs):
        yield Pairs(*made)


def lag_frames(lag_s: float, frame_rate: float | None) -> int:
    """A lag as a whole number of frames, at least one.

    Raises:
        RunError: there is no such number.
    """
    if frame_rate is None:
        raise RunError("positions of this site are tokens, which have no lag in seconds: harvest a site of an encoder.")
    lag = round(lag_s * frame_rate)
    if lag < 1:
        raise RunError(
            f"a lag of {lag_s * 1000:g} ms is shorter than a frame of {1000 / frame_rate:g} ms: give at least that."
        )
    return lag


def partners(
    utterance: Int[np.ndarray, " frame"], time: Float[np.ndarray, " frame"], lag: int, frame_rate: float
) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]]:
    """Rows of the frames that have one ``lag`` frames before them in their utterance, and the rows of those."""
    if not len(utterance):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    # times of one axis differ by whole frames; where two pieces of a long sound meet, a frame may be missing
    steps = np.round((time.astype(np.float64) - float(time.min())) * frame_rate).astype(np.int64)
    key = (utterance.astype(np.int64) << _TIME_BITS) + steps
    found = np.searchsorted(key, key - lag)
    there = (steps >= lag) & (key[np.minimum(found, len(key) - 1)] == key - lag)
    return np.flatnonzero(there), found[there]


def _stream(
    epoch_chunks: Callable[[int], Sequence[Chunk]],
    count_of: Callable[[Chunk], int],
    rows_of: Callable[[Chunk, np.random.Generator], tuple[Int[np.ndarray, " row"], ...]],
    batch_size: int,
    seed: int,
    start: int,
    epochs: int | None,
) -> Iterator[tuple[Batch, ...]]:
    if batch_size < 1 or start < 0:
        raise RunError(
            f"batch {start} of {batch_size} frames cannot be made: give a size of at least 1 and a start from 0."
        )
    held: list[tuple[Batch, ...]] = []
    n_held = 0
    for frames, rows in ahead(_jobs(epoch_chunks, count_of, rows_of, start * batch_size, seed, epochs)):
        at, n = 0, len(rows[0])
        while at < n:
            take = min(batch_size - n_held, n - at)
            held.append(tuple(_picked(frames, r[at : at + take]) for r in rows))
            at, n_held = at + take, n_held + take
            if n_held == batch_size:
                yield _joined(held)
                held, n_held = [], 0
        del frames, rows
    if held:
        yield _joined(held)


def _jobs(
    epoch_chunks: Callable[[int], Sequence[Chunk]],
    count_of: Callable[[Chunk], int],
    rows_of: Callable[[Chunk, np.random.Generator], tuple[Int[np.ndarray, " row"], ...]],
    skip: int,
    seed: int,
    epochs: int | None,
) -> Iterator[Callable[[], tuple[Batch, tuple[Int[np.ndarray, " row"], ...]]]]:
    """Work that gives a chunk's frames and the rows to take of them, from the ``skip``-th row on."""
    for epoch in count() if epochs is None else range(epochs):
        anything = False
        for number, chunk in enumerate(epoch_chunks(epoch)):
            n = count_of(chunk)
            anything |= n > 0
            if skip >= n:
                skip -= n
                continue

            def job(
                chunk: Chunk = chunk, number: int = number, skip: int = skip, epoch: int = epoch
            ) -> tuple[Batch, tuple[Int[np.ndarray, " row"], ...]]:
                rows = rows_of(chunk, np.random.default_rng([seed, epoch, number]))
                return chunk.load(), tuple(r[skip:] for r in rows)

            skip = 0
            yield job
        if not anything:
            raise RunError("there is no frame (or no pair at this lag) to make a batch of: harvest longer recordings.")


def _picked(frames: Batch, rows: Int[np.ndarray, " row"]) -> Batch:
    at = torch.from_numpy(rows)
    return Batch(frames.x[at].float(), frames.utterance[at].long(), frames.time[at])


def _joined(parts: list[tuple[Batch, ...]]) -> tuple[Batch, ...]:
    if len(parts) == 1:
        return parts[0]
    return tuple(Batch(*(torch.cat(field) for field in zip(*of))) for of in zip(*parts))


def whole(parts: Sequence[Batch], d: int) -> Batch:
    """Batches behind each other as one; an empty one of width ``d`` where there is none."""
    if not parts:
        return Batch(torch.zeros(0, d), torch.zeros(0, dtype=torch.long), torch.zeros(0))
    return parts[0] if len(parts) == 1 else Batch(*(torch.cat(field) for field in zip(*parts)))
