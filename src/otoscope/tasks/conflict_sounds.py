"""The sounds of a conflict item: the clean one, the counterfactual, silence and noise, all equally long."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from otoscope.audio.clip import Clip
from otoscope.audio.corruptions import apply
from otoscope.errors import TaskError
from otoscope.tasks.pair import pad_to_equal

Sound = Literal["clean", "counterfactual", "silent", "noise"]

SOUNDS: tuple[Sound, ...] = get_args(Sound)


def with_others(
    clean: Clip, counterfactual: Clip | None, rate: int, seconds: float | None = None, seed: int = 0
) -> dict[Sound, Clip]:
    """A clean sound with its counterfactual (where there is one), its silence and its noise.

    Args:
        clean, counterfactual: recordings; the shorter one gets silence at its end.
        rate: sampling rate of all of them, Hz.
        seconds: length that they are brought to with more silence; None for that of the longer recording.
        seed: draws the noise, which is white and has the root mean square of the clean sound, silence at its end included.

    Raises:
        TaskError: the clean sound is silent, or a recording is longer than ``seconds``.
    """
    if clean.rms == 0:
        raise TaskError(f"The clean sound, {clean.who}, is silent, so it says no label; give one that holds sound.")
    clean, other = clean.resample(rate), (counterfactual or clean).resample(rate)
    if seconds is not None:
        clean, other = _padded(clean, seconds), _padded(other, seconds)
    clean, other = pad_to_equal(clean, other)
    sounds: dict[Sound, Clip] = {"clean": clean}
    if counterfactual is not None:
        sounds["counterfactual"] = other
    sounds["silent"] = apply("silence", clean).clip.replace(text=None)
    sounds["noise"] = apply("noise_replacement", clean, seed=seed).clip.replace(text=None)
    return sounds


def _padded(clip: Clip, seconds: float) -> Clip:
    length = round(seconds * clip.rate)
    if len(clip) > length:
        raise TaskError(
            f"{clip.who} lasts {clip.duration:.3f} s and the items {seconds:g} s; cut it with clip.slice, leave it out, or "
            "ask for longer items with seconds=."
        )
    return pad_to_equal(clip, Clip(np.zeros(length, np.float32), clip.rate))[0]
