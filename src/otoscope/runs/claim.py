"""A Claim: one sentence, its threshold set before the run, what was measured, its controls, and the verdict.

The verdict is computed, never given: nobody can call a claim supported whose interval or controls do not say so.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from otoscope.errors import RunError
from otoscope.stats import Interval

Op = Literal[">=", "<=", ">", "<"]
Verdict = Literal["supported", "refuted", "inconclusive"]
_MEETS = {
    ">=": lambda x, bound: x >= bound,
    "<=": lambda x, bound: x <= bound,
    ">": lambda x, bound: x > bound,
    "<": lambda x, bound: x < bound,
}
_WORDS = {">=": "at or above", "<=": "at or below", ">": "above", "<": "below"}
_OTHERWISE = {">=": "below", "<=": "above", ">": "at or below", "<": "at or above"}


@dataclass(frozen=True)
class Threshold:
    """What must hold, fixed before the run: the measured quantity is ``op`` ``bound``."""

    op: Op
    bound: float

    def __post_init__(self) -> None:
        if self.op not in _MEETS:
            raise ValueError(f"a threshold is one of >= <= > <, not {self.op!r}")
        if not math.isfinite(self.bound):
            raise ValueError(f"a threshold needs a finite bound, not {self.bound}")

    def holds(self, value: float | None, interval: tuple[float, float] | None = None) -> bool | None:
        """True if all of it meets the bound, False if none of it does, None when it straddles or is missing."""
        ends = (value,) if interval is None else interval
        if value is None or math.isnan(value) or any(e is None or math.isnan(e) for e in ends):
            return None
        met = [_MEETS[self.op](end, self.bound) for end in ends]
        return True if all(met) else None if any(met) else False

    def __str__(self) -> str:
        return f"{self.op} {self.bound:.4g}"


@dataclass(frozen=True)
class Control:
    """The same measure under a null, and what was expected of it beforehand; ``expect=None`` shows it unjudged."""

    value: float | None
    interval: tuple[float, float] | None = None
    expect: Threshold | None = None
    n: int | None = None

    @classmethod
    def of(cls, value: "Control | Interval | float | None", expect: Threshold | None = None) -> "Control":
        """A Control from an Interval or a bare number."""
        if isinstance(value, Control):
            return value
        if isinstance(value, Interval):
            return cls(value.value, (value.low, value.high), expect, value.n)
        return cls(value, None, expect)

    @property
    def holds(self) -> bool | None:
        """True as expected, False contrary to it, None undecided; True where nothing was expected."""
        return True if self.expect is None else self.expect.holds(self.value, self.interval)


@dataclass(frozen=True)
class Claim:
    """Supported iff the whole interval (the value, where there is none) meets the threshold and every control is as its
    own expectation says; refuted iff the whole interval misses the threshold; else inconclusive, as when NaN."""

    id: str
    statement: str
    threshold: Threshold
    value: float | None
    interval: tuple[float, float] | None = None
    """95% interval over utterances or speakers, never frames."""
    n: int | None = None
    """Units (pairs, utterances, speakers) behind the interval."""
    controls: Mapping[str, Control] = field(default_factory=dict)
    """Name -> Control; a bare Interval or number is taken as a Control that is shown but not judged."""
    unit: str = ""
    level: float = 0.95

    def __post_init__(self) -> None:
        object.__setattr__(self, "controls", {k: Control.of(v) for k, v in self.controls.items()})
        if self.interval is not None:
            object.__setattr__(self, "interval", (self.interval[0], self.interval[1]))

    @classmethod
    def of(
        cls,
        id: str,
        statement: str,
        threshold: Threshold,
        measured: Interval | float | None,
        controls: Mapping[str, Control] | None = None,
        unit: str = "",
    ) -> "Claim":
        """A Claim about an Interval (its value, bounds and n are taken over) or a bare number."""
        if isinstance(measured, Interval):
            ends = (measured.low, measured.high)
            return cls(id, statement, threshold, measured.value, ends, measured.n, controls or {}, unit, measured.level)
        return cls(id, statement, threshold, measured, controls=controls or {}, unit=unit)

    @property
    def verdict(self) -> Verdict:
        met = self.threshold.holds(self.value, self.interval)
        if met is False:
            return "refuted"
        return "supported" if met and all(c.holds for c in self.controls.values()) else "inconclusive"

    @property
    def reason(self) -> str:
        """One sentence: why the verdict is what it is."""
        met = self.threshold.holds(self.value, self.interval)
        if self.value is None or math.isnan(self.value):
            return "Nothing was measured, so nothing can be said."
        if met is None and self.interval is not None and any(math.isnan(e) for e in self.interval):
            return "There are too few units for an interval, so the value alone decides nothing."
        bound = f"{self.threshold.bound:.4g}"
        what = f"The value {self.value:.4g}" if self.interval is None else f"The whole {self.level:.0%} interval"
        if met is None:
            return f"The {self.level:.0%} interval reaches to both sides of {bound}."
        if met is False:
            return f"{what} is {_OTHERWISE[self.threshold.op]} {bound}."
        head = f"{what} is {_WORDS[self.threshold.op]} {bound}"
        wrong = [name for name, control in self.controls.items() if not control.holds]
        if wrong:
            details = "; ".join(f"{name} should be {self.controls[name].expect}" for name in wrong)
            return f"{head}, but not every control is as expected ({details})."
        judged = sum(c.expect is not None for c in self.controls.values())
        controls = "the control is" if judged == 1 else "all controls are"
        return f"{head}, and {controls} as expected." if judged else f"{head}."

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "statement": self.statement,
            "threshold": {"op": self.threshold.op, "bound": self.threshold.bound},
            "value": self.value,
            "interval": None if self.interval is None else list(self.interval),
            "level": self.level,
            "n": self.n,
            "unit": self.unit,
            "controls": {
                name: {
                    "value": c.value,
                    "interval": None if c.interval is None else list(c.interval),
                    "expect": None if c.expect is None else {"op": c.expect.op, "bound": c.expect.bound},
                    "n": c.n,
                }
                for name, c in self.controls.items()
            },
            "verdict": self.verdict,
            "reason": self.reason,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Claim":
        """Inverse of ``to_json``; the verdict is computed again, not read. Raises RunError when fields are missing."""
        try:
            controls = {
                name: Control(_number(c["value"]), _ends(c["interval"]), _threshold(c["expect"]), c.get("n"))
                for name, c in data["controls"].items()
            }
            threshold = Threshold(data["threshold"]["op"], data["threshold"]["bound"])
            return cls(
                data["id"],
                data["statement"],
                threshold,
                _number(data["value"]),
                _ends(data["interval"]),
                data["n"],
                controls,
                data.get("unit", ""),
                data.get("level", 0.95),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as problem:
            raise RunError(
                f"this is not a claim that otoscope wrote ({problem}): expected the fields of results.json 'claims'"
            ) from problem


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _ends(value: Any) -> tuple[float, float] | None:
    """Bounds from JSON, where NaN was written as null."""
    if value is None:
        return None
    low, high = (float("nan") if v is None else float(v) for v in value)
    return low, high


def _threshold(value: Any) -> Threshold | None:
    return None if value is None else Threshold(value["op"], value["bound"])
