"""gc over layers with its interval: a ratio of mean effects, formed anew in every resample of the units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from otoscope.engine.sweep import NOISE
from otoscope.stats.bootstrap import units_of


@dataclass(frozen=True)
class Curve:
    """gc over layers with its raw parts; arrays ``[layer]``, effects in nats (or logits, which is the same difference).

    Attributes:
        gc, low, high: the coefficient and its interval; NaN where sound and text together do nothing beyond noise.
        audio, audio_low, audio_high: mean effect of the sound's states.
        text, text_low, text_high: mean effect of the context's states.
        n_items, n_units: items that count, and the units that were resampled.
    """

    gc: Float[np.ndarray, " layer"]
    low: Float[np.ndarray, " layer"]
    high: Float[np.ndarray, " layer"]
    audio: Float[np.ndarray, " layer"]
    audio_low: Float[np.ndarray, " layer"]
    audio_high: Float[np.ndarray, " layer"]
    text: Float[np.ndarray, " layer"]
    text_low: Float[np.ndarray, " layer"]
    text_high: Float[np.ndarray, " layer"]
    n_items: int
    n_units: int


def ratio_curve(
    audio: Float[np.ndarray, "item layer"],
    text: Float[np.ndarray, "item layer"],
    units: Sequence[str],
    noise: float = NOISE,
    n_resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Curve:
    """``mean(audio) / (mean(audio) + mean(text))`` per layer, with intervals over units.

    Items with a NaN are left out. NaN where the denominator's interval reaches down to 0, or the denominator is below
    ``noise``: a share of nothing, or of a change away from both labels, is no share. With fewer than two units there is no
    interval, and only the size counts.
    """
    missing = np.asarray(np.isnan(audio).any(1) | np.isnan(text).any(1))
    a, t = audio[~missing], text[~missing]
    members = units_of(units, missing, len(a))
    n, nan = len(members), np.full(audio.shape[1], np.nan)
    if n == 0:
        return Curve(*(nan.copy() for _ in range(9)), 0, 0)  # type: ignore[arg-type]
    sums = [np.stack([x[m].sum(0) for m in members]) for x in (a, t)]
    sizes = np.array([len(m) for m in members], dtype=float)
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_resamples).astype(float)
    means_a, means_t = ((draws @ s) / (draws @ sizes)[:, None] for s in sums)
    shares = [(1 - level) / 2, (1 + level) / 2]

    def interval(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        low, high = np.quantile(x, shares, axis=0) if n > 1 else (nan.copy(), nan.copy())
        return low, high

    mean_a, mean_t = a.mean(0), t.mean(0)
    low, _ = interval(means_a + means_t)
    unclear = (low <= 0) | (mean_a + mean_t < noise)
    with np.errstate(invalid="ignore", divide="ignore"):
        gc = mean_a / (mean_a + mean_t)
        ends = interval(means_a / (means_a + means_t))
    gc, gc_low, gc_high = (np.where(unclear, np.nan, x) for x in (gc, *ends))
    return Curve(gc, gc_low, gc_high, mean_a, *interval(means_a), mean_t, *interval(means_t), len(a), n)
