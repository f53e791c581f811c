"""Environmental sounds made by rule, for the task ``sounds`` without data: plain sketches of what such a sound is made of.

Each function returns noise, pulses or tones shaped in time and frequency; a seed draws rates, pitches and noise, so that no
two are alike. They are told apart easily and are not recordings: see the limits on the card.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.signal import butter, sosfilt

from otoscope.audio.clip import Clip
from otoscope.tasks.source import RATE

Samples = Float[np.ndarray, " n"]
#: level of every sound, root mean square
_LEVEL = 0.02


def _band(noise: Samples, low: float, high: float) -> Samples:
    return np.asarray(sosfilt(butter(2, (low, high), "bandpass", fs=RATE, output="sos"), noise))


def _decays(n: int, starts: Samples, seconds: float) -> Samples:
    """Exponential decays that begin at those times (seconds)."""
    envelope, t = np.zeros(n), np.arange(n) / RATE
    for start in starts:
        envelope += np.where(t >= start, np.exp(-np.maximum(t - start, 0) / seconds), 0)
    return envelope


def _rain(n: int, rng: np.random.Generator) -> Samples:
    hiss = _band(rng.standard_normal(n), 1000, 7000)
    drops = _band((rng.random(n) < 0.01) * rng.standard_normal(n), 2000, 7500)
    return hiss + 6 * drops


def _waves(n: int, rng: np.random.Generator) -> Samples:
    t = np.arange(n) / RATE
    swell = (0.5 - 0.5 * np.cos(2 * np.pi * (t * rng.uniform(0.2, 0.35) + rng.random()))) ** 2
    return _band(rng.standard_normal(n), 100, 3000) * (0.1 + swell)


def _clock(n: int, rng: np.random.Generator) -> Samples:
    starts = np.arange(rng.uniform(0.05, 0.3), n / RATE, rng.uniform(0.4, 0.6))
    low = rng.uniform(2000, 2800)
    return _band(rng.standard_normal(n), low, low + 1800) * _decays(n, starts, 0.006)


def _helicopter(n: int, rng: np.random.Generator) -> Samples:
    starts = np.arange(rng.random() / 10, n / RATE, 1 / rng.uniform(10, 14))
    return _band(rng.standard_normal(n), 60, 900) * _decays(n, starts, 0.025)


def _chainsaw(n: int, rng: np.random.Generator) -> Samples:
    t = np.arange(n) / RATE
    pitch = rng.uniform(95, 130) * (1 + 0.05 * np.sin(2 * np.pi * rng.uniform(0.3, 0.8) * t))
    phase = np.cumsum(pitch) / RATE
    buzz = sum(np.sin(2 * np.pi * k * phase + rng.uniform(0, 6)) / k**0.5 for k in range(1, 30))
    return np.asarray(buzz) + 1.5 * _band(rng.standard_normal(n), 1500, 6000)


def _fire(n: int, rng: np.random.Generator) -> Samples:
    crackles = _decays(n, np.sort(rng.uniform(0, n / RATE, int(12 * n / RATE))), 0.003)
    return 0.15 * _band(rng.standard_normal(n), 80, 900) + _band(rng.standard_normal(n), 1500, 6500) * crackles


#: answer -> how it is made
MADE: dict[str, Callable[[int, np.random.Generator], Samples]] = {
    "rain": _rain, "waves": _waves, "clock": _clock, "helicopter": _helicopter, "chainsaw": _chainsaw, "fire": _fire,
}  # fmt: skip


def made_sound(label: str, seconds: float, seed: int) -> Clip:
    """A sound of that label; all have the same level.

    Args:
        label: one of ``MADE``.
        seconds: its length.
        seed: of everything that is drawn.
    """
    rng = np.random.default_rng([seed, list(MADE).index(label)])
    samples = MADE[label](round(seconds * RATE), rng)
    samples = samples * _LEVEL / np.sqrt(np.square(samples).mean())
    return Clip(np.clip(samples, -1, 1).astype(np.float32), RATE, labels={"label": label}, name=f"{label} {seed}")
