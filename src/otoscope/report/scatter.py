"""Two numbers of many groups against each other: points with crosses of intervals, some of them named."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from otoscope.report.drawing import COOL, INK, MUTED, RULE, WARM, Drawing
from otoscope.report.text import add_legend, legend_inches, wrapped
from otoscope.stats import Interval

_STYLES = ((COOL, "o"), (WARM, "s"), (MUTED, "^"))  # told apart without colour as well


@dataclass(frozen=True)
class Point:
    """One group of ``scatter``: its name, its role (the legend's entry), both numbers with their intervals."""

    label: str
    role: str
    x: Interval
    y: Interval
    named: bool = False
    """Whether the name is written beside it; all names stand in the figure's CSV."""


def scatter(
    name: str,
    points: Sequence[Point],
    *,
    x_label: str,
    y_label: str,
    title: str = "",
    mark: float | None = None,
    mark_label: str = "",
) -> Drawing:
    """Points with the intervals of both numbers; at most three roles.

    mark: a vertical line, such as the border of what is natural. Raises ValueError on no points or too many roles.
    """
    roles = list(dict.fromkeys(p.role for p in points))
    if not points or len(roles) > len(_STYLES):
        raise ValueError(f"a scatter needs points of one to {len(_STYLES)} roles, not {len(points)} of {len(roles)}")

    def paint(figure: Figure, narrow: bool) -> None:
        handles: list[Any] = [
            Line2D([], [], color=colour, marker=shape, linestyle="", markersize=4, label=role)
            for role, (colour, shape) in zip(roles, _STYLES)
        ]
        heading = wrapped(title, figure.get_figwidth() - 0.6, 8, bold=True)
        figure.set_figheight((2.4 if narrow else 3.0) + 0.12 * heading.count("\n") + legend_inches(figure, handles))
        ax = figure.subplots()
        named = sorted((p for p in points if p.named), key=lambda p: (p.y.value, p.x.value))
        for point in points:
            colour, shape = _STYLES[roles.index(point.role)]
            for ends, still, across in ((point.x, point.y.value, False), (point.y, point.x.value, True)):
                if not (np.isnan(ends.low) or np.isnan(ends.high)):
                    at = ([still, still], [ends.low, ends.high])
                    ax.plot(*(at if across else at[::-1]), color=colour, linewidth=0.7, alpha=0.45, zorder=2)
            ax.plot([point.x.value], [point.y.value], shape, color=colour, ms=4, mew=0, alpha=0.9, zorder=3)
        middle = sum(ax.get_xlim()) / 2
        for i, point in enumerate(named):  # above and below in turn, and towards the middle, so that all can be read
            beside = point.x.value > middle
            ax.annotate(point.label, (point.x.value, point.y.value), xytext=(-4 if beside else 4, -4 if i % 2 else 3),
                        textcoords="offset points", fontsize=6, color=INK, zorder=4, ha="right" if beside else "left",
                        va="top" if i % 2 else "bottom")  # fmt: skip
        if mark is not None:
            ax.axvline(mark, color=MUTED, linewidth=0.8, linestyle=(0, (3, 2)), zorder=1)
            ax.text(mark, 1.0, mark_label, color=MUTED, fontsize=6.5, ha="left", va="bottom",
                    transform=ax.get_xaxis_transform())  # fmt: skip
        ax.set(xlabel=x_label, ylabel=y_label)
        ax.margins(y=0.12)  # room for names
        ax.grid(color=RULE, linewidth=0.4)
        ax.set_axisbelow(True)
        ax.set_title(heading, pad=14 if mark_label else None)
        add_legend(figure, handles)

    table: dict[str, list[Any]] = {"group": [p.label for p in points], "role": [p.role for p in points]}
    for axis in ("x", "y"):
        for part in ("value", "low", "high"):
            table[f"{axis}_{part}"] = [getattr(getattr(p, axis), part) for p in points]
    top = max(points, key=lambda p: -np.inf if np.isnan(p.y.value) else p.y.value)
    alt = f"{y_label} against {x_label} of {len(points)} groups. The highest is {top.label} ({top.y.value:.2f})."
    return Drawing(name, alt, table, paint)
