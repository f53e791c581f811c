"""How alike are the layers of a model, and those of two models? Unbiased CKA, beside a null that moves blocks of frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from otoscope.audio.clip import Clip
from otoscope.engine.model import Model
from otoscope.methods.frames import MEL, mel_frames, states, within_window
from otoscope.methods.similarity import block_null
from otoscope.models.site import Site

#: frames further apart than this resemble each other by what is said, not by their windows (seconds)
_STEP, _BLOCK = 0.04, 0.5
_MOST_FRAMES = 150


@dataclass(frozen=True, eq=False)
class Similarity:
    """CKA of every layer of one model (rows) with every layer of another, or of itself (columns).

    Attributes:
        rows, columns: names of the layers.
        other: name of the model of the columns.
        value: CKA.
        null: mean CKA when blocks of half a second change places.
        p_value: of the value under that null.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    other: str
    value: Float[np.ndarray, "row column"]
    null: Float[np.ndarray, "row column"]
    p_value: Float[np.ndarray, "row column"]

    def table(self) -> list[dict[str, Any]]:
        """One row per pair."""
        return [
            {"layer": a, "other": f"{self.other} {b}", "cka": float(self.value[i, j]), "null": float(self.null[i, j]),
             "p": float(self.p_value[i, j])}
            for i, a in enumerate(self.rows) for j, b in enumerate(self.columns)
        ]  # fmt: skip

    def to_step(self) -> dict[str, Any]:
        """Plain data, for a step of a run."""
        return {
            "rows": list(self.rows), "columns": list(self.columns), "other": self.other,
            "value": self.value, "null": self.null, "p_value": self.p_value,
        }  # fmt: skip

    @classmethod
    def from_step(cls, found: dict[str, Any]) -> Similarity:
        """Inverse of ``to_step``."""
        arrays = [np.asarray(found[name], float) for name in ("value", "null", "p_value")]
        return cls(tuple(found["rows"]), tuple(found["columns"]), found["other"], *arrays)


def layer_states(
    model: Model,
    clips: Sequence[Clip],
    sites: Sequence[Site],
    progress: Callable[[int, int], None] | None = None,
    *,
    mel: bool = True,
) -> dict[str, list[np.ndarray]]:
    """Per layer (and of the spectrogram) one set of frames per recording, at one frame per 40 ms."""
    found: dict[str, list[np.ndarray]] = {}
    for i, clock, values in states(model, clips, sites, progress):
        step = max(1, round(_STEP * clock.rate))
        kept = slice(0, _MOST_FRAMES * step, step)
        if mel:
            found.setdefault(MEL, []).append(mel_frames(within_window(model, clips[i]), clock)[kept])
        for site, value in values.items():
            found.setdefault(str(site), []).append(value[kept])
    return found


def similarity(
    first: dict[str, list[np.ndarray]],
    second: dict[str, list[np.ndarray]],
    other: str,
    *,
    draws: int = 39,
    seed: int = 0,
) -> Similarity:
    """CKA of every pair of layers.

    Args:
        first: layer -> one array per recording.
        second: the same of the other model, for the same recordings and frames.
        other: its name.
        draws: of the null.
        seed: of the null.
    """
    shape = len(first), len(second)
    value, null, p = np.empty(shape), np.empty(shape), np.empty(shape)
    for i, a in enumerate(first.values()):
        for j, b in enumerate(second.values()):
            found = block_null(*_common(a, b), block=round(_BLOCK / _STEP), n_draws=draws, seed=seed)
            value[i, j], null[i, j], p[i, j] = found.value, found.null.mean(), found.p_value
    return Similarity(tuple(first), tuple(second), other, value, null, p)


def _common(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The same frames of both: two models may differ by a frame at the end."""
    lengths = [min(len(x), len(y)) for x, y in zip(a, b)]
    return [x[:n] for x, n in zip(a, lengths)], [y[:n] for y, n in zip(b, lengths)]
