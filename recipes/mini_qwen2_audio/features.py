"""What the frozen encoder makes of every (augmented) sound, computed once and kept on disk, since it never changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from augment import augmented
from corpus import Item, load_all

#: augmented versions per item
VERSIONS = {
    ("word", "speech_commands"): 8, ("word", "fsdd"): 5, ("sound", "esc10"): 16, ("sex", "librispeech"): 10,
    ("sex", "librispeech_speakers"): 10, ("silence", "speech_commands"): 3,
}  # fmt: skip
SYNTHETIC = 3
BATCH = 16


@dataclass(frozen=True)
class Features:
    """Encoder outputs, one row of frames per sound.

    Attributes:
        frames: ``[total, width]`` float16, all sounds behind each other.
        start: first frame of each sound, and the end ``[n + 1]``.
        item: index of the item that each sound is a version of ``[n]``.
    """

    frames: np.ndarray
    start: np.ndarray
    item: np.ndarray

    def __len__(self) -> int:
        return len(self.item)

    def __getitem__(self, i: int) -> torch.Tensor:
        return torch.from_numpy(self.frames[self.start[i] : self.start[i + 1]]).float()

    def length(self, i: int) -> int:
        """Audio tokens of a sound."""
        return int(self.start[i + 1] - self.start[i])


def versions(item: Item) -> int:
    """How many versions of an item are made; held-out recordings stay as they are."""
    return 1 if item.heldout else VERSIONS.get((item.kind, item.source), SYNTHETIC)


@torch.no_grad()
def encode(tower: Any, extractor: Any, sounds: list[np.ndarray]) -> list[np.ndarray]:
    """Encoder output per sound ``[audio tokens, width]``, without the frames of padding."""
    made = extractor(sounds, sampling_rate=16000, return_tensors="pt", padding="max_length", return_attention_mask=True)
    lengths, tokens = tower._get_feat_extract_output_lengths(made.attention_mask.sum(-1))
    n = made.input_features.shape[-1] // 2
    seen = torch.arange(n)[None] < lengths[:, None]
    states = tower(made.input_features, attention_mask=seen[:, None, None, :].expand(-1, 1, n, n)).last_hidden_state
    return [row[: int(k)].half().numpy() for row, k in zip(states, tokens)]


def features(
    items: list[Item], tower: Any, extractor: Any, folder: Path, seed: int, say: Callable[[str], None]
) -> Features:
    """Encoder outputs of all versions of all items; taken from ``folder`` where an earlier run left them."""
    names = [[i.kind, i.label, i.source, i.speaker, i.heldout, versions(i)] for i in items]
    weights = [float(p.detach().double().abs().sum()) for p in tower.parameters()]
    key = hashlib.sha256(json.dumps([names, seed, weights]).encode()).hexdigest()[:16]
    file = folder / f"features-{key}.npz"
    if file.exists():
        with np.load(file, allow_pickle=False) as stored:
            return Features(stored["frames"], stored["start"], stored["item"])
    say(f"reading and speaking {len(items)} sounds")
    sounds = load_all(items)
    noises = [x for x, i in zip(sounds, items) if i.kind in ("sound", "silence") and not i.heldout]
    jobs = [(n, v) for n, item in enumerate(items) for v in range(versions(item))]
    rows: list[np.ndarray] = []
    for a in range(0, len(jobs), BATCH):
        batch = []
        for n, v in jobs[a : a + BATCH]:
            rng = np.random.default_rng([seed, n, v])
            batch.append(augmented(sounds[n], items[n].kind, rng, noises, change=not items[n].heldout and v > 0))
        rows += encode(tower, extractor, batch)
        if a // BATCH % 40 == 0:
            say(f"encoded {a} of {len(jobs)} sounds")
    lengths = np.array([0, *(len(r) for r in rows)])
    made = Features(np.concatenate(rows), np.cumsum(lengths), np.array([n for n, _ in jobs]))
    folder.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial.npz")
    np.savez(partial, frames=made.frames, start=made.start, item=made.item)
    partial.replace(file)
    return made
