"""Corruptions: ways to damage a clip that keep its length exactly and say what they keep.

``apply(name, clip, span, seed, **params)`` is the one way to use them, ``describe()`` lists them.
"""

from otoscope.audio.corruptions.base import FACTORS, Corrupted, Corruption
from otoscope.audio.corruptions.registry import CORRUPTIONS, apply, describe, make

__all__ = ["CORRUPTIONS", "FACTORS", "Corrupted", "Corruption", "apply", "describe", "make"]
