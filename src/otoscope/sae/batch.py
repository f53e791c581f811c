"""What a trainer is fed: frames of activations, and where each of them comes from."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor


class Batch(NamedTuple):
    """Frames in any order, each with its recording and its place in it.

    ``x`` ``[frame, d]`` activations; ``utterance`` ``[frame]`` number of the recording that a frame belongs to;
    ``time`` ``[frame]`` its place in that recording, in seconds.
    """

    x: Float[Tensor, "frame d"]
    utterance: Int[Tensor, " frame"]
    time: Float[Tensor, " frame"]
