"""Harvest: write the activations of recordings to disk, with the time, phone and word of each frame.

Recordings are taken in the mixture's random order and gathered in shards of bounded size; what a shard holds depends on
the mixture and the configuration alone. A shard is written whole and noted as finished last, so a killed harvest loses
the shard it was at and doubles nothing, and one that goes on ends with the same bytes.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from otoscope.engine.model import Model
from otoscope.errors import RunError
from otoscope.runs.files import read_json, remove_leftovers, write_json
from otoscope.runs.lock import Lock
from otoscope.sae import shards
from otoscope.sae.activations import Listener
from otoscope.sae.ahead import ahead
from otoscope.sae.gathering import Shard
from otoscope.sae.mixing import Mixture, Take

DTYPES = {"float32": torch.float32, "float16": torch.float16}

#: part of the memory that one shard may have; it is there up to four times while it is written
_SHARD_SHARE, _LARGEST_SHARD = 1 / 20, 128e6
#: seconds of sound that are decoded together, per piece of a batch
_DECODED = 30.0


@dataclass(frozen=True)
class Expected:
    """What a harvest will give, as far as headers tell.

    Attributes:
        n_recordings: how many.
        seconds: of sound.
        frames: site -> frames.
        gb: on disk.
        n_shards: in how many shards.
        n_done: of them, how many an earlier call finished.
    """

    n_recordings: int
    seconds: float
    frames: dict[str, int]
    gb: float
    n_shards: int
    n_done: int

    def __str__(self) -> str:
        most = max(self.frames.values())
        done = f", {self.n_done} of them finished earlier" if self.n_done else ""
        return (
            f"{self.n_recordings} recordings, {self.seconds / 60:.1f} min of sound: about {most:,} frames at "
            f"{len(self.frames)} site{'s' if len(self.frames) > 1 else ''}, {self.gb:.2f} GB on disk in "
            f"{self.n_shards} shard{'s' if self.n_shards > 1 else ''}{done}"
        )


@dataclass
class Harvested:
    """What a harvest gave.

    Attributes:
        path: the store.
        frames: site -> frames.
        n_utterances: recordings that were heard.
        skipped: name -> why it was not.
        gb: on disk.
        seconds: of computing, in this call.
        seconds_of_sound: heard in this call.
    """

    path: Path
    frames: dict[str, int]
    n_utterances: int
    skipped: dict[str, str]
    gb: float
    seconds: float
    seconds_of_sound: float


class Harvest:
    """A harvest that is planned and can be run.

    Args:
        model: the model.
        mixture: what is heard.
        sites: names or patterns.
        out: folder of the store.
        dtype: ``float32``, or ``float16`` for half the space.
        memory_gb: most memory beside the model's weights and what the libraries take for themselves.
        question: what an audio-LLM is asked about each sound.

    Raises:
        SiteError, AudioError: as :class:`Listener` and :class:`Mixture` say.
        RunError: the memory is too small, or another harvest lies in ``out``.
    """

    def __init__(
        self,
        model: Model,
        mixture: Mixture,
        sites: Sequence[str],
        out: Path,
        *,
        dtype: str = "float32",
        memory_gb: float = 2.0,
        question: str = "",
    ):
        if dtype not in DTYPES:
            raise RunError(f"activations cannot be stored as '{dtype}': choose {' or '.join(DTYPES)}.")
        self.model, self.mixture, self.out, self.dtype = model, mixture, Path(out), DTYPES[dtype]
        self.listener = Listener(model, sites, memory_gb=memory_gb, question=question)
        _check_decoded(mixture, memory_gb)
        self.takes = mixture.takes()
        self.listener.room(max(t.recording.samples_at(model.adapter.rate) for t in self.takes))
        self.plan = {
            "format": shards.FORMAT, "model": model.name, "weights": model.weights_hash(), "rate": model.adapter.rate,
            "sites": [str(s) for s in self.listener.sites], "dtype": dtype, "memory_gb": memory_gb, "question": question,
            "data": mixture.fingerprint(),
        }  # fmt: skip
        self._frames = [
            {a.name: self.listener.n_frames(a, t.recording.samples_at(model.adapter.rate), t.recording.text)
             for a in set(self.listener.axes.values())}
            for t in self.takes
        ]  # fmt: skip
        self._bytes = {
            a: sum(self.listener.width(s) for s, of in self.listener.axes.items() if of.name == a) * self.dtype.itemsize
            for a in {axis.name for axis in self.listener.axes.values()}
        }
        self._shards = self._divided(min(_LARGEST_SHARD, memory_gb * 1e9 * _SHARD_SHARE))

    def _divided(self, target: float) -> list[list[int]]:
        """Numbers of the takes of each shard."""
        groups: list[list[int]] = [[]]
        size = 0
        for i, frames in enumerate(self._frames):
            own = sum(n * self._bytes[axis] for axis, n in frames.items())
            if groups[-1] and size + own > target:
                groups.append([])
                size = 0
            groups[-1].append(i)
            size += own
        return groups

    def expected(self) -> Expected:
        """What it will give, as far as headers tell; what is finished is counted."""
        by_axis = {axis: sum(f[axis] for f in self._frames) for axis in self._bytes}
        return Expected(
            len(self.takes), sum(t.recording.seconds for t in self.takes),
            {str(s): by_axis[a.name] for s, a in self.listener.axes.items()},
            sum(n * self._bytes[axis] for axis, n in by_axis.items()) / 1e9, len(self._shards),
            sum(shards.finished(self.out, i) is not None for i in range(len(self._shards))),
        )  # fmt: skip

    def run(
        self,
        progress: Callable[[int, int], None] | None = None,
        notify: Callable[[str], None] = lambda _: None,
    ) -> Harvested:
        """Hear what is not finished, and write the index.

        Args:
            progress: called with seconds of sound done and their total.
            notify: told of recordings that are skipped, and of what is noticed in others.

        Raises:
            RunError: the folder holds another harvest, is in use, or the disk is full.
            AudioError: a recording cannot be read.
            ModelError: an activation is NaN or infinite, or too large for float16.
        """
        self._open()
        lock = Lock(self.out / shards.FOLDER / ".lock")
        try:
            remove_leftovers(self.out / shards.FOLDER)
            return self._run(progress, notify)
        finally:
            lock.release()

    def _open(self) -> None:
        """Make the folder, or make sure that it holds this very harvest."""
        plan = self.out / shards.PLAN
        if plan.exists():
            earlier = read_json(plan)
            for key, value in self.plan.items():
                if earlier.get(key) != value:
                    raise RunError(
                        f"{self.out} holds another harvest ({_differs(key, earlier.get(key), value)}): choose another "
                        "--out, or delete that directory to start afresh."
                    )
        else:
            write_json(plan, self.plan)
        (self.out / shards.FOLDER).mkdir(exist_ok=True)
        missing = self.expected()
        need = missing.gb * 1e9 * (1 - missing.n_done / missing.n_shards)
        if need > (free := shutil.disk_usage(self.out).free):
            raise RunError(
                f"the disk of {self.out} has {free / 1e9:.2f} GB free and the harvest needs about {need / 1e9:.2f} GB: "
                "free some space, choose another --out, lower --limit, or store float16."
            )

    def _run(self, progress: Callable[[int, int], None] | None, notify: Callable[[str], None]) -> Harvested:
        start, heard = time.monotonic(), 0.0
        total, done = sum(t.recording.seconds for t in self.takes), 0.0
        notes: list[dict[str, Any]] = []
        for number, members in enumerate(self._shards):
            takes = [self.takes[i] for i in members]
            note = shards.finished(self.out, number)
            if note is None:
                before = done

                def tell(seconds: float, before: float = before) -> None:
                    if progress:
                        progress(int(before + seconds), int(total) + 1)

                note = self._hear(takes, tell, notify).write(self.out, number)
                heard += sum(t.recording.seconds for t in takes)
            notes.append(note)
            done += sum(t.recording.seconds for t in takes)
            if progress:
                progress(int(done), int(total) + 1)
        index = self._index(notes)
        if not index["utterances"]:
            raise RunError(
                f"none of the {len(self.takes)} recordings could be heard ({index['skipped'][0][1]}): give longer ones."
            )
        if not _same(self.out / shards.INDEX, index):
            write_json(self.out / shards.INDEX, index)
        size = sum(about["bytes"] for note in notes for about in note["files"].values())
        frames = {s: about["n_frames"] for s, about in index["sites"].items()}
        return Harvested(
            self.out,
            frames,
            len(index["utterances"]),
            dict(index["skipped"]),
            size / 1e9,
            time.monotonic() - start,
            heard,
        )

    # -- one shard -----------------------------------------------------------------------------------------------------

    def _hear(self, takes: list[Take], tell: Callable[[float], None], notify: Callable[[str], None]) -> Shard:
        shard, done, rate = Shard(self.model.name, self.dtype), 0.0, self.model.adapter.rate
        groups = list(self._decoded_together(takes))
        jobs = [lambda group=group: [take.sound(rate) for take in group] for group in groups]
        for group, sounds in zip(groups, ahead(jobs)):

            def skipped(i: int, why: str, group: list[Take] = group) -> None:
                shard.skipped.append([group[i].recording.name, why])
                notify(f"skipped: '{group[i].recording.name}' {why}")

            for sound in sounds:
                for remark in sound.clip.notices:
                    if remark.startswith(("not aligned", "silent")):
                        notify(f"{sound.clip.name}: {remark}")
            made = self.listener.hear([sound.clip for sound in sounds], skipped)
            for take, sound, heard in zip(group, sounds, made):
                if heard is not None:
                    shard.add(take.recording, sound, heard)
            done += sum(take.recording.seconds for take in group)
            tell(done)
        return shard

    def _decoded_together(self, takes: list[Take]) -> Iterator[list[Take]]:
        group: list[Take] = []
        for take in takes:
            group.append(take)
            if sum(t.recording.seconds for t in group) >= _DECODED * self.listener.batch:
                yield group
                group = []
        if group:
            yield group

    # -- the index -----------------------------------------------------------------------------------------------------

    def _index(self, notes: list[dict[str, Any]]) -> dict[str, Any]:
        axes = {a.name: {"stack": a.stack, "frame_rate": a.frame_rate} for a in self.listener.axes.values()}
        utterances = [{**u, "shard": i} for i, note in enumerate(notes) for u in note["utterances"]]
        sites: dict[str, Any] = {}
        for site, axis in self.listener.axes.items():
            held = [note["files"].get(shards.site_file(i, str(site))) for i, note in enumerate(notes)]
            widths = [about["tensors"]["x"][1][1] for about in held if about]
            n = sum(u["frames"][axis.name] for u in utterances)
            sites[str(site)] = {"axis": axis.name, "d": widths[0] if widths else 0, "n_frames": n}
        m = self.mixture
        return {
            **self.plan, "sites": sites, "axes": axes,
            "mixture": {
                "corpora": {corpus: len(own) for corpus, own in m.corpora.items()}, "weights": m.weights,
                "noises": [[n.probability, list(n.snr_db), [str(p) for p in n.sounds]] for n in m.noises],
                "seed": m.seed, "limit": m.limit, "align": m.align,
            },
            "shards": [{key: note[key] for key in ("files", "phones", "words")} for note in notes],
            "skipped": [entry for note in notes for entry in note["skipped"]],
            "utterances": utterances,
        }  # fmt: skip


def _check_decoded(mixture: Mixture, memory_gb: float) -> None:
    """Refuse a file that takes more than half of the memory while it is decoded and resampled."""
    for recording in mixture.recordings:
        size = 3 * 4 * recording.n_samples
        if size > memory_gb * 1e9 / 2:
            raise RunError(
                f"{recording.path} needs about {size / 1e9:.2g} GB to be decoded, more than half of the {memory_gb:g} GB "
                "allowed: cut it into shorter files, or raise --memory-gb."
            )


def _differs(key: str, there: Any, here: Any) -> str:
    if key == "data":
        return "other recordings, labels, weights, noise, limit or seed"
    return f"{key} is {there!r} there, {here!r} here"


def _same(path: Path, index: dict[str, Any]) -> bool:
    from otoscope.runs.files import plain

    return path.is_file() and read_json(path) == plain(index)
