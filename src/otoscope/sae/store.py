"""A store of activations on disk: frames with their utterance, time, phone and word, for training and for looking.

Frames are numbered in the order of the utterances, which is the random order of the harvest. What does not fit into
memory is read in windows of several shards, drawn anew in every epoch; see :mod:`otoscope.sae.shuffle` for the order of
frames. The harvest puts recordings into shards at random, so a window is a random sample of recordings.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from otoscope.errors import RunError, SiteError
from otoscope.runs.files import read_json
from otoscope.sae import shards, shuffle
from otoscope.sae.batch import Batch
from otoscope.sae.moments import Moments, merged
from otoscope.sae.normalise import Normaliser
from otoscope.sae.shuffle import Pairs
from otoscope.sae.training_config import Normalisation
from otoscope.sae.utterances import Labels, Utterance


class Store:
    """Activations at one site, as :class:`otoscope.sae.harvest.Harvest` wrote them.

    Args:
        path: its folder.
        site: which of its sites; may be left out where there is one.
        memory_gb: most memory for frames; what needs more is read in windows of shards.
        verify: compare each file with its checksum when it is first read.

    Raises:
        RunError: there is no finished store in the folder, or it was written by a later version.
        SiteError: it has no such site.
    """

    def __init__(self, path: str | Path, site: str | None = None, *, memory_gb: float = 4.0, verify: bool = True):
        self.path = Path(path)
        self.index: dict[str, Any] = _index(self.path)
        self.memory_gb, self._wanted = memory_gb, site
        self._subset: frozenset[int] | None = None
        if site is not None and site not in self.sites:
            raise SiteError(f"{self.path} does not hold '{site}': it holds {', '.join(self.sites)}.")
        known = {name: about for shard in self.index["shards"] for name, about in shard["files"].items()}
        self._files = shards.Files(self.path, known, verify)
        self._resident: tuple[tuple[int, ...], Batch] | None = None

    # -- what it holds -------------------------------------------------------------------------------------------------

    @property
    def sites(self) -> list[str]:
        """Sites whose activations it holds."""
        return list(self.index["sites"])

    @property
    def site(self) -> str:
        """The site of this view.

        Raises:
            SiteError: there are several and none was named.
        """
        if self._wanted is None and len(self.sites) > 1:
            raise SiteError(f"{self.path} holds several sites: name one of {', '.join(self.sites)}.")
        return self._wanted or self.sites[0]

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.index["model"]

    @property
    def weights(self) -> str:
        """Hash of its weights."""
        return self.index["weights"]

    @property
    def rate(self) -> int:
        """Sampling rate that the model hears, Hz."""
        return self.index["rate"]

    @property
    def axis(self) -> str:
        """Name of the positions that the site shares with others."""
        return self.index["sites"][self.site]["axis"]

    @property
    def frame_rate(self) -> float | None:
        """Frames per second; None where positions are tokens."""
        return self.index["axes"][self.axis]["frame_rate"]

    @property
    def d(self) -> int:
        """Width of the activations."""
        return self.index["sites"][self.site]["d"]

    @cached_property
    def n_frames(self) -> int:
        """How many frames there are."""
        return sum(u.n_frames for u in self.utterances)

    @cached_property
    def _all(self) -> list[Utterance]:
        """Every utterance of the folder; ``first`` counts all frames."""
        found, first = [], 0
        for number, about in enumerate(self.index["utterances"]):
            own = {key: value for key, value in about.items() if key != "frames"}
            n = about["frames"][self.axis]
            found.append(Utterance(number=number, first=first, n_frames=n, **own))
            first += n
        return found

    @cached_property
    def utterances(self) -> list[Utterance]:
        """Its utterances, in the order of their frames."""
        if self._subset is None:
            return self._all
        found, first = [], 0
        for utterance in self._all:
            if utterance.number in self._subset:
                found.append(replace(utterance, first=first))
                first += utterance.n_frames
        return found

    def subset(self, utterances: Collection[int]) -> Store:
        """A view of some utterances, by their numbers: to train on some and to measure on others. Numbers stay.

        Raises:
            RunError: a number is not in the store.
        """
        chosen = frozenset(int(u) for u in utterances)
        if odd := chosen - {u.number for u in self.utterances}:
            raise RunError(f"{self.path} has no utterance {min(odd)}: its utterances are 0 to {len(self._all) - 1}.")
        view = Store.__new__(Store)
        view.__dict__.update({k: v for k, v in self.__dict__.items() if k not in ("utterances", "n_frames")})
        view._subset, view._resident = chosen, None
        return view

    # -- frames --------------------------------------------------------------------------------------------------------

    def frames(self, utterance: int | str) -> Batch:
        """All frames of one utterance in the order of time, by its number or its name.

        Raises:
            RunError: there is no such utterance, or its shard is damaged.
        """
        found = self.utterance(utterance)
        first = next(u.first for u in self._all if u.shard == found.shard)
        start = self._all[found.number].first - first
        x, number, time = self._shard(found.shard)
        own = slice(start, start + found.n_frames)
        return Batch(x[own].float(), number[own].long(), time[own].clone())

    def utterance(self, which: int | str) -> Utterance:
        """An utterance by its number or its name.

        Raises:
            RunError: there is none.
        """
        for utterance in self.utterances:
            if which in (utterance.number, utterance.name):
                return utterance
        raise RunError(f"{self.path} has no utterance {which!r}: it has {len(self.utterances)}; see Store.utterances.")

    def batches(self, batch_size: int, seed: int = 0, start: int = 0, epochs: int | None = None) -> Iterator[Batch]:
        """Frames in random order: see :func:`otoscope.sae.shuffle.batches`."""
        return shuffle.batches(self._epoch(seed), batch_size, seed, start, epochs)

    def pairs(
        self, batch_size: int, lag_s: float, seed: int = 0, start: int = 0, epochs: int | None = None
    ) -> Iterator[Pairs]:
        """Frames with the frame ``lag_s`` before and another one of the same utterance: see
        :func:`otoscope.sae.shuffle.pairs`."""
        shuffle.lag_frames(lag_s, self.frame_rate)
        return shuffle.pairs(self._epoch(seed), batch_size, lag_s, self.frame_rate, seed, start, epochs)

    # -- labels --------------------------------------------------------------------------------------------------------

    def labels(self, name: str) -> Labels:
        """A label of every frame, in the order of the utterances.

        ``phone`` and ``word`` are those that are said at the frame; ``speaker``, ``corpus`` and any label of the manifests
        are those of its utterance. (A manifest's label ``word`` is found where no times of words are known.)

        Raises:
            RunError: no utterance has this label.
        """
        if name in ("phone", "word") and (found := self._timed(name)).names:
            return found
        values = [getattr(u, name) if name in ("speaker", "corpus") else u.labels.get(name) for u in self.utterances]
        names = sorted({v for v in values if v is not None})
        if not names:
            known = sorted({key for u in self.utterances for key in u.labels})
            raise RunError(
                f"no utterance of {self.path} has the label '{name}': there are phone, word, speaker, corpus"
                f"{''.join(f', {k}' for k in known)}, where they are known."
            )
        code = {v: i for i, v in enumerate(names)}
        per = np.array([-1 if v is None else code[v] for v in values], np.int64)
        return Labels(np.repeat(per, [u.n_frames for u in self.utterances]), names)

    def silent(self) -> Bool[np.ndarray, " frame"]:
        """Whether nothing is said at a frame; False where no times of phones are known."""
        known = np.repeat([u.has_phones for u in self.utterances], [u.n_frames for u in self.utterances]).astype(bool)
        return known & (self._timed("phone").codes < 0)

    def times(self) -> Float[np.ndarray, " frame"]:
        """Seconds of every frame from the start of its file."""
        return self._beside("time")

    def tokens(self) -> Int[np.ndarray, " frame"]:
        """The token at every position.

        Raises:
            RunError: positions are frames of sound.
        """
        if self.frame_rate is not None:
            raise RunError(f"the positions of {self.site} are frames of sound, which are no tokens.")
        return self._beside("token")

    def normalisation(self, kind: Normalisation = "standard") -> Normaliser:
        """How a dictionary's input is shifted and scaled, fitted once to all frames of the folder at this site, exactly (a
        subset's is that of the whole).

        Raises:
            RunError: the frames do not vary.
        """
        m = self.moments()
        return Normaliser.of(m.mean, m.mean_square, float(m.norm), kind)

    def moments(self) -> Moments:
        """Mean, variance and norm of all frames of the folder at this site, float64."""
        return merged(
            Moments(about["tensors"]["x"][1][0], **self._files.load(file, "mean", "m2", "norm"))
            for file, about in self._site_files()
        )

    def verify(self) -> None:
        """Compare every file with its checksum.

        Raises:
            RunError: the first one that is missing, cut short or altered.
        """
        for shard in self.index["shards"]:
            for name in shard["files"]:
                self._files.check(name)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _site_files(self) -> list[tuple[str, dict[str, Any]]]:
        names = [shards.site_file(i, self.site) for i in range(len(self.index["shards"]))]
        held = [shard["files"] for shard in self.index["shards"]]
        return [(name, files[name]) for name, files in zip(names, held) if name in files]

    @cached_property
    def _members(self) -> dict[int, list[Utterance]]:
        """Shard -> the utterances of this view in it."""
        found: dict[int, list[Utterance]] = {}
        for utterance in self.utterances:
            found.setdefault(utterance.shard, []).append(utterance)
        return found

    @cached_property
    def _firsts(self) -> dict[int, int]:
        """Shard -> the number of its first utterance."""
        found: dict[int, int] = {}
        for utterance in self._all:
            found.setdefault(utterance.shard, utterance.number)
        return found

    def _shard(self, shard: int) -> Batch:
        """All frames of a shard, as they are stored; the last one stays in memory."""
        if self._resident is None or self._resident[0] != (shard,):
            self._resident = ((shard,), self._read(shard))
        return self._resident[1]

    def _read(self, shard: int) -> Batch:
        x = self._files.load(shards.site_file(shard, self.site), "x")["x"]
        beside = self._files.load(shards.frames_file(shard, self.axis), "utterance", "time")
        return Batch(x, beside["utterance"] + self._firsts[shard], beside["time"])

    def _rows(self, shard: int) -> Bool[np.ndarray, " frame"] | None:
        """Which of a shard's frames this view has; None for all."""
        if self._subset is None:
            return None
        own = [u for u in self._all if u.shard == shard]
        return np.repeat([u.number in self._subset for u in own], [u.n_frames for u in own]).astype(bool)

    def _beside(self, key: str) -> np.ndarray:
        parts = []
        for shard in self._members:
            values = self._files.load(shards.frames_file(shard, self.axis), key)[key].numpy()
            rows = self._rows(shard)
            parts.append(values if rows is None else values[rows])
        return np.concatenate(parts) if parts else np.zeros(0)

    def _timed(self, name: str) -> Labels:
        """Phones or words: the codes of each shard, turned into codes of the whole store."""
        tables = [shard[f"{name}s"] for shard in self.index["shards"]]
        names = sorted({text for table in tables for text in table})
        code = {text: i for i, text in enumerate(names)}
        parts = []
        for shard in self._members:
            own = self._files.load(shards.frames_file(shard, self.axis), name)[name].numpy()
            rows = self._rows(shard)
            # the last entry is what -1 finds
            table = np.array([*(code[text] for text in tables[shard]), -1], np.int64)
            parts.append(table[own if rows is None else own[rows]])
        return Labels(np.concatenate(parts) if parts else np.zeros(0, np.int64), names)

    def _epoch(self, seed: int) -> Any:
        """Epoch -> its chunks: one of all shards where they fit into memory, else windows of shards drawn anew."""
        numbers = list(self._members)
        size = self.n_frames * (self.d * (2 if self.index["dtype"] == "float16" else 4) + 16)
        if size <= self.memory_gb * 1e9:
            everything = [_Window(self, numbers, keep=True)]
            return lambda epoch: everything
        # the window in use, the next one, and what is left of the last one
        per = max(1, int(len(numbers) * self.memory_gb * 1e9 / 3 / size))

        def windows(epoch: int) -> Sequence[_Window]:
            order = np.random.default_rng([seed, epoch]).permutation(numbers)
            return [_Window(self, sorted(map(int, order[i : i + per]))) for i in range(0, len(order), per)]

        return windows


class _Window:
    """Frames of several shards."""

    def __init__(self, store: Store, members: Sequence[int], keep: bool = False):
        self._store, self._shards, self._keep = store, list(members), keep
        self._frames: Batch | None = None

    @property
    def n_frames(self) -> int:
        return sum(u.n_frames for shard in self._shards for u in self._store._members[shard])

    def places(self) -> tuple[Int[np.ndarray, " frame"], Float[np.ndarray, " frame"]]:
        members = [u for shard in self._shards for u in self._store._members[shard]]
        utterance = np.repeat([u.number for u in members], [u.n_frames for u in members])
        parts = []
        for shard in self._shards:
            time = self._store._files.load(shards.frames_file(shard, self._store.axis), "time")["time"].numpy()
            rows = self._store._rows(shard)
            parts.append(time if rows is None else time[rows])
        return utterance, np.concatenate(parts)

    def load(self) -> Batch:
        if self._frames is not None:
            return self._frames
        parts = []
        for shard in self._shards:
            frames, rows = self._store._read(shard), self._store._rows(shard)
            parts.append(frames if rows is None else Batch(*(t[torch.from_numpy(rows)] for t in frames)))
        frames = shuffle.whole(parts, self._store.d)
        if self._keep:
            self._frames = frames
        return frames


def _index(path: Path) -> dict[str, Any]:
    index = path / shards.INDEX
    if not index.is_file():
        unfinished = (path / shards.PLAN).is_file()
        raise RunError(
            f"the harvest in {path} is not finished: run the same command again, which goes on where it stopped."
            if unfinished
            else f"{path} holds no activations: expected a folder that `otoscope sae harvest --out` wrote."
        )
    found = read_json(index)
    if found.get("format") != shards.FORMAT:
        raise RunError(
            f"{path} has the format {found.get('format')!r} and this version reads {shards.FORMAT}: harvest it again."
        )
    return found
