"""What has been heard of a shard, until it is written: activations, and what stands beside each frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from otoscope.audio.clip import Span
from otoscope.errors import ModelError
from otoscope.models.site import Site
from otoscope.sae import shards
from otoscope.sae.activations import Heard
from otoscope.sae.mixing import Sound
from otoscope.sae.moments import Moments
from otoscope.sae.recordings import Recording


@dataclass
class Shard:
    """Sounds that share the files of one shard.

    Attributes:
        model: its name, for messages.
        dtype: of the stored activations.
        x: site -> activations of each sound.
        beside: axis -> name -> values of each sound's frames.
        utterances: what the index says of each sound.
        skipped: name and reason of each sound that could not be heard.
        phones, words: text -> its code in this shard.
    """

    model: str
    dtype: torch.dtype
    x: dict[Site, list[Tensor]] = field(default_factory=dict)
    beside: dict[str, dict[str, list[np.ndarray]]] = field(default_factory=dict)
    utterances: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[list[str]] = field(default_factory=list)
    phones: dict[str, int] = field(default_factory=dict)
    words: dict[str, int] = field(default_factory=dict)

    def add(self, recording: Recording, sound: Sound, heard: Heard) -> None:
        """One more sound.

        Raises:
            ModelError: an activation is too large for the type that is stored.
        """
        clip, number = sound.clip, len(self.utterances)
        for site, value in heard.x.items():
            stored = value.to(self.dtype)
            if not torch.isfinite(stored).all():
                raise ModelError(
                    f"{site} of {self.model} reaches {float(value.abs().max()):.3g} for '{recording.name}', more than "
                    "float16 holds: store float32."
                )
            self.x.setdefault(site, []).append(stored)
        for axis, at in heard.time.items():
            beside = {
                "utterance": np.full(len(at), number, np.int32),
                "time": (recording.start + at).astype(np.float32),
                "phone": _codes(clip.phones, at, self.phones),
                "word": _codes(clip.words, at, self.words),
            }
            if axis in heard.tokens:
                beside["token"] = heard.tokens[axis].astype(np.int32)
            for key, values in beside.items():
                self.beside.setdefault(axis, {}).setdefault(key, []).append(values)
        self.utterances.append(
            {
                "name": recording.name, "path": str(recording.path), "corpus": recording.corpus,
                "speaker": recording.speaker, "text": clip.text, "labels": dict(recording.labels),
                "digest": sound.digest, "start": recording.start, "seconds": clip.duration, "noise": sound.noise,
                "has_phones": bool(clip.phones), "has_words": bool(clip.words),
                "frames": {axis: len(at) for axis, at in heard.time.items()},
            }
        )  # fmt: skip

    def write(self, store: Path, number: int) -> dict[str, Any]:
        """Write the files of the ``number``-th shard, last of all its note, which is given back; nothing is held any more.

        Raises:
            RunError: a file cannot be written; a full disk is named as such.
        """
        files: dict[str, Any] = {}
        for axis, beside in self.beside.items():
            tensors = {key: torch.from_numpy(np.concatenate(values)) for key, values in beside.items()}
            name = shards.frames_file(number, axis)
            files[name] = shards.save(store, name, tensors)
        for site in list(self.x):
            x = torch.cat(self.x.pop(site))
            moments = Moments.of(x)
            name = shards.site_file(number, str(site))
            files[name] = shards.save(
                store, name, {"x": x, "mean": moments.mean, "m2": moments.m2, "norm": moments.norm}
            )
        note = {
            "files": files, "utterances": self.utterances, "skipped": self.skipped, "phones": list(self.phones),
            "words": list(self.words),
        }  # fmt: skip
        shards.finish(store, number, note)
        return note


def _codes(spans: Sequence[Span], at: Float[np.ndarray, " frame"], table: dict[str, int]) -> Int[np.ndarray, " frame"]:
    """For each time the code of the span that holds it, -1 where none does; new texts are added to ``table``."""
    codes = np.full(len(at), -1, np.int32)
    if not spans or not len(at) or np.isnan(at[0]):
        return codes
    ordered = sorted(spans)
    starts, ends = (np.array([getattr(s, edge) for s in ordered]) for edge in ("start", "end"))
    own = np.array([table.setdefault(s.text, len(table)) for s in ordered], np.int32)
    which = np.searchsorted(starts, at, side="right") - 1
    inside = (which >= 0) & (at < ends[which])
    codes[inside] = own[which[inside]]
    return codes
