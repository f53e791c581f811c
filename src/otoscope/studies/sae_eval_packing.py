"""Numbers of AudioSAEBench as plain data, for steps that are stored and for files that are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from otoscope.sae.measures.battery import Numbers
from otoscope.sae.measures.planted import QUALITIES
from otoscope.sae.measures.trust import Trust
from otoscope.stats import Interval


def value_of(number: Interval | float) -> float:
    return number.value if isinstance(number, Interval) else float(number)


def as_data(number: Interval | float) -> dict[str, float | int | None]:
    if isinstance(number, Interval):
        return {"value": number.value, "low": number.low, "high": number.high, "n": number.n}
    return {"value": float(number), "low": None, "high": None, "n": None}


def packed(numbers: Numbers) -> dict[str, list[float]]:
    """Numbers as a step stores them."""
    return {k: [v.value, v.low, v.high, v.n] if isinstance(v, Interval) else [float(v)] for k, v in numbers.items()}


def numbers_of(packed: Mapping[str, Sequence[float | None]]) -> Numbers:
    def number(v: float | None) -> float:
        return float("nan") if v is None else float(v)

    return {
        k: Interval(number(v[0]), number(v[1]), number(v[2]), int(v[3] or 0)) if len(v) == 4 else number(v[0])
        for k, v in packed.items()
    }


def plain_trust(trust: Mapping[str, Trust]) -> dict[str, Any]:
    return {name: {"verdict": t.verdict, **{q: list(t.values[q]) for q in QUALITIES}} for name, t in trust.items()}


def trust_of(packed: Mapping[str, Any]) -> dict[str, Trust]:
    return {name: Trust({q: v[q] for q in QUALITIES}, v["verdict"]) for name, v in packed.items()}
