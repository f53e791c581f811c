"""What a store knows of its recordings, and a label of each of its frames."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Int


@dataclass(frozen=True)
class Utterance:
    """One recording of a store.

    Attributes:
        number: its place in the store, which ``Batch.utterance`` holds.
        name, path, corpus, speaker, text, labels: as its manifest says.
        digest: SHA-256 of the recording's samples before noise (``Clip.digest``).
        start: where it starts in its file, seconds: not 0 for a part of a long file. Times of frames count from the file's
            start.
        seconds: how long it is.
        noise: what was added to it, or None.
        has_phones, has_words: whether times of phones and words are known; where they are, a frame without a phone is
            silence.
        first, n_frames: its frames in the store.
        shard: where they lie.
    """

    number: int
    name: str
    path: str
    corpus: str
    speaker: str | None
    text: str | None
    digest: str
    start: float
    seconds: float
    noise: str | None
    has_phones: bool
    has_words: bool
    first: int
    n_frames: int
    shard: int
    labels: dict[str, str] = field(default_factory=dict)


class Labels(NamedTuple):
    """A label of every frame: ``codes`` (-1 where it is unknown) index ``names``."""

    codes: Int[np.ndarray, " frame"]
    names: list[str]
