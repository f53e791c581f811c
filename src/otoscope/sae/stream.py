"""Activations straight from a model, without a store: the same batches, from a buffer that is filled in the background.

An epoch's recordings, in the mixture's random order, are gathered in buffers of about ``buffer_frames`` frames; each is
permuted and given out in batches while the next one is heard. So a batch holds frames of a few dozen recordings, and every
frame comes once in an epoch. No more than three buffers are in memory at once. All depends on the mixture, the buffer's
size and the seed alone, so a stream goes on at any batch; buffers before it are passed over without being heard, since
headers tell how many frames they hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from threading import Lock

import numpy as np
import torch
from jaxtyping import Float, Int

from otoscope.audio.clip import Clip
from otoscope.engine.model import Model
from otoscope.errors import RunError, SiteError
from otoscope.models.site import Site
from otoscope.sae import shuffle
from otoscope.sae.activations import Axis, Listener
from otoscope.sae.batch import Batch
from otoscope.sae.mixing import Mixture, Take
from otoscope.sae.moments import Moments, merged
from otoscope.sae.normalise import Normaliser
from otoscope.sae.recordings import Recording
from otoscope.sae.shuffle import Pairs
from otoscope.sae.training_config import Normalisation


class Stream:
    """Frames of a model over a mixture of recordings, with the methods of :class:`otoscope.sae.store.Store` that training
    needs.

    Args:
        model: the model.
        mixture: what is heard.
        site: one site whose positions are time.
        buffer_frames: frames in one buffer: more mix better and take more memory.
        memory_gb: most memory of one forward.
        notify: told of recordings that are skipped.

    Raises:
        SiteError: the model has no such site, the name is of several, or its positions are tokens.
        RunError: the memory is too small, or so is the buffer.
    """

    def __init__(
        self,
        model: Model,
        mixture: Mixture,
        site: str,
        *,
        buffer_frames: int = 200_000,
        memory_gb: float = 2.0,
        notify: Callable[[str], None] = lambda _: None,
    ):
        self.model, self.mixture, self.notify, self.buffer_frames = model, mixture, notify, buffer_frames
        self.listener = Listener(model, [site], memory_gb=memory_gb)
        if len(self.listener.sites) != 1:
            raise SiteError(f"'{site}' names {len(self.listener.sites)} sites of {model.name}: a stream gives one.")
        if self._axis.frame_rate is None:
            raise SiteError(
                f"the positions of '{site}' are tokens, whose number headers do not tell: harvest it instead."
            )
        if buffer_frames < 1:
            raise RunError(f"a buffer of {buffer_frames} frames holds nothing: give at least a few thousand.")
        self.listener.room(max(r.samples_at(model.adapter.rate) for r in mixture.recordings))
        self._chunks = lru_cache(maxsize=2)(self._chunks_of)
        self._hearing = Lock()  # hooks are the model's: of two runs at once, each would note the other's values

    @property
    def site(self) -> str:
        """The site, in full."""
        return str(self._site)

    @property
    def d(self) -> int:
        """Width of the activations."""
        return self.listener.width(self._site)

    @property
    def frame_rate(self) -> float | None:
        """Frames per second."""
        return self._axis.frame_rate

    @property
    def recordings(self) -> tuple[Recording, ...]:
        """The recordings; ``Batch.utterance`` holds their numbers."""
        return self.mixture.recordings

    def n_frames(self, epoch: int = 0) -> int:
        """Frames of an epoch."""
        return sum(chunk.n_frames for chunk in self._chunks(epoch))

    def batches(self, batch_size: int, seed: int = 0, start: int = 0, epochs: int | None = None) -> Iterator[Batch]:
        """Frames in random order: see :func:`otoscope.sae.shuffle.batches`."""
        return shuffle.batches(self._chunks, batch_size, seed, start, epochs)

    def pairs(
        self, batch_size: int, lag_s: float, seed: int = 0, start: int = 0, epochs: int | None = None
    ) -> Iterator[Pairs]:
        """Frames with their partners: see :func:`otoscope.sae.shuffle.pairs`."""
        return shuffle.pairs(self._chunks, batch_size, lag_s, self.frame_rate, seed, start, epochs)

    def normalisation(self, kind: Normalisation = "standard", n_frames: int = 200_000) -> Normaliser:
        """How a dictionary's input is shifted and scaled, fitted to the first ``n_frames`` frames or a little more, in the
        order of the first epoch."""
        parts, n = [], 0
        for chunk in self._chunks(0):
            parts.append(Moments.of(chunk.load().x))
            if (n := n + chunk.n_frames) >= n_frames:
                break
        m = merged(parts)
        return Normaliser.of(m.mean, m.mean_square, float(m.norm), kind)

    @property
    def _site(self) -> Site:
        return self.listener.sites[0]

    @property
    def _axis(self) -> Axis:
        return self.listener.axes[self._site]

    def _chunks_of(self, epoch: int) -> list[_Buffer]:
        number = {id(recording): i for i, recording in enumerate(self.mixture.recordings)}
        found: list[_Buffer] = []
        own: list[tuple[int, Take]] = []
        held: set[int] = set()
        n = 0
        for take in self.mixture.takes(epoch):
            which = number[id(take.recording)]
            # a buffer never holds a recording twice, so that a frame's utterance and time name it there
            if own and (n >= self.buffer_frames or which in held):
                found.append(_Buffer(self, own))
                own, held, n = [], set(), 0
            own.append((which, take))
            held.add(which)
            n += self.listener.n_frames(self._axis, take.recording.samples_at(self.model.adapter.rate))
        found.append(_Buffer(self, own))
        return found


class _Buffer:
    """Some takes of an epoch, with the numbers of their recordings."""

    def __init__(self, stream: Stream, takes: Sequence[tuple[int, Take]]):
        self._stream, self._takes = stream, sorted(takes, key=lambda own: own[0])
        utterance, time = [], []
        listener, rate = stream.listener, stream.model.adapter.rate
        for number, take in self._takes:
            n_samples = take.recording.samples_at(rate)
            if listener.too_short(n_samples):
                continue
            at = take.recording.start + listener.times(stream._axis, n_samples)
            utterance.append(np.full(len(at), number, np.int64))
            time.append(at.astype(np.float32))
        self._utterance = np.concatenate(utterance) if utterance else np.zeros(0, np.int64)
        self._time = np.concatenate(time) if time else np.zeros(0, np.float32)

    @property
    def n_frames(self) -> int:
        return len(self._utterance)

    def places(self) -> tuple[Int[np.ndarray, " frame"], Float[np.ndarray, " frame"]]:
        return self._utterance, self._time

    def load(self) -> Batch:
        """Hear the takes.

        Raises:
            AudioError: one cannot be read.
            RunError: one has another length than its header says.
        """
        stream = self._stream
        listener, rate = stream.listener, stream.model.adapter.rate
        x = []
        for group in _groups([take for _, take in self._takes], listener.batch):
            clips = [take.sound(rate).clip for take in group]

            def skipped(i: int, why: str, clips: list[Clip] = clips) -> None:
                stream.notify(f"skipped: '{clips[i].name}' {why}")

            with stream._hearing:
                heard = listener.hear(clips, skipped)
            for take, made in zip(group, heard):
                n = 0 if made is None else len(made.x[stream._site])
                if n != (due := listener.n_frames(stream._axis, take.recording.samples_at(rate))):
                    raise RunError(
                        f"{take.recording.path} gives {n} frames where its header promises {due}, so a stream could not go "
                        "on exactly: convert it to wav or flac, or harvest it first."
                    )
                if made is not None:
                    x.append(made.x[stream._site])
        frames = torch.cat(x) if x else torch.zeros(0, stream.d)
        return Batch(frames, torch.from_numpy(self._utterance), torch.from_numpy(self._time))


def _groups(takes: Sequence[Take], batch: int) -> Iterator[list[Take]]:
    """Takes that are decoded together."""
    step = 2 * batch
    for i in range(0, len(takes), step):
        yield list(takes[i : i + step])
