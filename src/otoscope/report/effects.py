"""Effects of components or heads: bars with intervals, and every control in the same row of the same figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from otoscope.report.drawing import COOL, INK, MUTED, RULE, WARM, Drawing
from otoscope.report.text import add_legend, legend_inches, width, wrapped
from otoscope.stats import Interval

_CONTROL_MARKS = ("s", "^", "D", "v", "P", "X")
_MOST_POINTS = 40


@dataclass(frozen=True)
class Bar:
    """One row of ``effects``: what was measured, and the same measure under each control."""

    label: str
    interval: Interval
    controls: Mapping[str, Interval] = field(default_factory=dict)
    points: Sequence[float] = ()
    """The value of each unit, drawn as faint dots where there are at most 40."""


def effects(name: str, bars: Sequence[Bar], *, label: str, title: str = "") -> Drawing:
    """Effect of each component or head with its interval, and its controls in the same row.

    label: of the axis, with its unit. Rows are drawn in the order given, the first on top. Raises ValueError on no bars.
    """
    if not bars:
        raise ValueError("a figure of effects needs at least one bar")
    kinds = list(dict.fromkeys(kind for bar in bars for kind in bar.controls))
    level = bars[0].interval.level

    def paint(figure: Figure, narrow: bool) -> None:
        handles = _legend(bars, kinds)
        names = [wrapped(bar.label, 0.40 * figure.get_figwidth(), 7) for bar in bars]
        room = figure.get_figwidth() - max(width(line, 7) for name in names for line in name.split("\n")) / 72 - 0.3
        row = max(0.20 + 0.075 * len(kinds), 0.5 / len(bars), 0.16 + 0.11 * max(name.count("\n") for name in names))
        axis, heading = wrapped(label, room, 7), wrapped(title, room, 8, bold=True)
        above = 0.2 + 0.12 * heading.count("\n") if heading else 0.0
        figure.set_figheight(0.45 + 0.11 * axis.count("\n") + row * len(bars) + legend_inches(figure, handles) + above)
        ax = figure.subplots()
        pitch = 0.62 / (len(kinds) + 1)
        for i, bar in enumerate(bars):
            _draw_row(ax, bar, i - 0.31 + pitch / 2, pitch, kinds)
            if i:
                ax.axhline(i - 0.5, color=RULE, linewidth=0.4, zorder=0)
        ax.axvline(0, color=INK, linewidth=0.7, zorder=0.5)
        ax.set(ylim=(len(bars) - 0.5, -0.5), xlabel=axis, title=heading)
        ax.set_yticks(range(len(bars)), names)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.xaxis.set_major_locator(MaxNLocator(4 if narrow else 9))
        add_legend(figure, handles)

    rows = [(bar.label, "effect", bar.interval) for bar in bars]
    rows += [(bar.label, kind, interval) for bar in bars for kind, interval in bar.controls.items()]
    table = {
        "component": [r[0] for r in rows],
        "kind": [r[1] for r in rows],
        "value": [r[2].value for r in rows],
        "low": [r[2].low for r in rows],
        "high": [r[2].high for r in rows],
        "n": [r[2].n for r in rows],
    }
    best = max(bars, key=lambda b: -np.inf if np.isnan(b.interval.value) else abs(b.interval.value))
    alt = (
        f"Effects of {len(bars)} components"
        + ("" if np.isnan(best.interval.low) else f" with {level:.0%} intervals")
        + (f" and {len(kinds)} controls ({', '.join(kinds)})" if kinds else "")
        + f". The largest is {best.label} with {best.interval.value:.2f}"
        + ("." if np.isnan(best.interval.low) else f" ({best.interval.low:.2f} to {best.interval.high:.2f}).")
    )
    return Drawing(name, alt, table, paint)


def _whisker(ax: Any, interval: Interval, y: float, colour: str, mark: str, size: float, *, filled: bool) -> None:
    if not (np.isnan(interval.low) or np.isnan(interval.high)):
        ax.plot([interval.low, interval.high], [y, y], color=colour, linewidth=1.3 if filled else 0.9, zorder=3)
    face = colour if filled else "none"
    ax.plot([interval.value], [y], mark, color=colour, markersize=size, markerfacecolor=face, mew=0.9, zorder=4)


def _draw_row(ax: Any, bar: Bar, top: float, pitch: float, kinds: Sequence[str]) -> None:
    colour = COOL if bar.interval.value < 0 else WARM
    ax.barh(top, bar.interval.value, height=pitch * 0.9, color=colour, alpha=0.3, linewidth=0, zorder=1)
    if _shows_points(bar):
        ax.plot(bar.points, np.full(len(bar.points), top), "o", color=INK, alpha=0.5, ms=2, mew=0, zorder=3.5)
    _whisker(ax, bar.interval, top, colour, "o", 4.0, filled=True)
    for j, kind in enumerate(kinds):
        if kind in bar.controls:
            _whisker(ax, bar.controls[kind], top + pitch * (j + 1), MUTED, _mark(j), 3.2, filled=False)


def _legend(bars: Sequence[Bar], kinds: Sequence[str]) -> list[Any]:
    n_units = sorted({bar.interval.n for bar in bars})
    units = f"n = {n_units[0]}" if len(n_units) == 1 else f"n = {n_units[0]}–{n_units[-1]}"
    bounded = any(not np.isnan(bar.interval.low) for bar in bars)
    effect = f"effect, {bars[0].interval.level:.0%} interval ({units})" if bounded else "effect"
    handles: list[Any] = [Line2D([], [], color=WARM, marker="o", markersize=4, label=effect)]
    if any(_shows_points(bar) for bar in bars):
        dot: dict[str, Any] = {"marker": "o", "markersize": 2, "markeredgewidth": 0, "linestyle": ""}
        handles.append(Line2D([], [], color=INK, alpha=0.5, label="one unit", **dot))
    for j, kind in enumerate(kinds):
        hollow: dict[str, Any] = {"marker": _mark(j), "markersize": 3.2, "markerfacecolor": "none"}
        handles.append(Line2D([], [], color=MUTED, label=f"control: {kind}", **hollow))
    return handles


def _shows_points(bar: Bar) -> bool:
    return 0 < len(bar.points) <= _MOST_POINTS


def _mark(number: int) -> str:
    return _CONTROL_MARKS[number % len(_CONTROL_MARKS)]
