"""Words by hibari-tts, a small neural voice; None where the package is not installed."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

import numpy as np
import soxr


def voice() -> Callable[[str, float], np.ndarray] | None:
    """A function from word and speed to samples at 16 kHz."""
    try:
        import hibari
    except ImportError:
        return None
    engine, lock = hibari.Hibari(), Lock()

    def speak(word: str, speed: float) -> np.ndarray:
        with lock:
            made = engine(word + ".", speed=speed, seed=0)
        x = np.asarray(made, dtype=np.float32).ravel()
        loud = np.flatnonzero(np.abs(x) > 0.02 * np.abs(x).max())
        return soxr.resample(x[max(0, loud[0] - 600) : loud[-1] + 1200], hibari.SAMPLE_RATE, 16000)

    return speak
