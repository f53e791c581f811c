"""Which measures can be trusted: those that rank a perfect dictionary over a half-right one over a random one.

On planted activations (``planted``), three times with other features and other recordings. A number that only describes
has nothing to rank; one that ranks wrongly even once, or ties, is *unreliable*, and every table says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from otoscope.sae.measures.alignment import alignment
from otoscope.sae.measures.battery import Numbers, Settings, better, take_all
from otoscope.sae.measures.planted import QUALITIES, Planted, PlantedConfig, planted
from otoscope.sae.measures.stability import stability
from otoscope.stats import Interval

Verdict = Literal["reliable", "unreliable", "describes", "not tested"]


@dataclass(frozen=True)
class Trust:
    """One number on planted truth.

    Attributes:
        values: quality -> its value for each seed, in the order perfect, half, random.
        verdict: whether it ranked them every time.
    """

    values: Mapping[str, Sequence[float]]
    verdict: Verdict


def judge(name: str, values: Mapping[str, Sequence[float]], direction: str | None = None) -> Trust:
    """Whether values rank perfect > half > random at every seed, strictly, in the number's own direction."""
    direction = direction or better(name)
    if direction == "neither":
        return Trust(values, "describes")
    sign = 1.0 if direction == "more" else -1.0
    columns = np.array([values[q] for q in QUALITIES], float) * sign
    ranked = np.isfinite(columns).all() and (columns[0] > columns[1]).all() and (columns[1] > columns[2]).all()
    return Trust(values, "reliable" if ranked else "unreliable")


def trust_in_all(
    seeds: Sequence[int] = (0, 1, 2),
    config: PlantedConfig | None = None,
    settings: Settings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Trust]:
    """Every number on planted truth.

    Args:
        seeds: one planted world each.
        config: of the worlds.
        settings: of the measures; few resamples by default, since only the values are used.
        progress: called with worlds done and their number.
    """
    settings = settings or Settings(n_resamples=10, rows=2000)
    found: dict[str, dict[str, list[float]]] = {}
    for i, seed in enumerate(seeds):
        world = planted(config, seed)
        for quality in QUALITIES:
            numbers = take_all(world.frames, world.read(world.dictionary(quality, seed)), world.classes, settings)
            numbers |= _stability(world, quality, seed, settings)
            for name, value in numbers.items():
                found.setdefault(name, {q: [] for q in QUALITIES})[quality].append(_value(value))
        if progress:
            progress(i + 1, len(seeds))
    ways: dict[str, str] = dict.fromkeys(("stability", "stability_cosine", "aligned", "aligned_r"), "more")
    return {name: judge(name, values, ways.get(name)) for name, values in found.items()}


def _stability(world: Planted, quality: str, seed: int, settings: Settings) -> Numbers:
    """Two trainings of one quality: what each got right is the same, what it got wrong is not."""
    rows = [world.dictionary(quality, 100 * seed + i) for i in (1, 2)]  # type: ignore[arg-type]
    readings = [world.read(r) for r in rows]
    codes = [r.codes for r in readings]
    both = stability(codes[0], codes[1], world.frames.utterance, rows[0], rows[1], n_resamples=settings.n_resamples)
    shared = alignment(codes[0], codes[1], world.frames.utterance, n_resamples=settings.n_resamples, seed=seed)
    return {
        "stability": both.firing, "stability_cosine": both.writing, "aligned": shared.aligned,
        "aligned_r": shared.correlation,
    }  # fmt: skip


def _value(number: Interval | float) -> float:
    return number.value if isinstance(number, Interval) else float(number)
