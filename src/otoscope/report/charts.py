"""Figures without a time axis: effects with intervals and controls, a map of layers x heads, the lens over layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from otoscope.report.drawing import ACCENT, COOL, INK, MUTED, RULE, WARM, Drawing, symmetric_limit
from otoscope.report.drawing import two_sided_colours as colours_of
from otoscope.report.timeline import _hatch, colour_scale
from otoscope.stats import Interval

_CONTROL_MARKS = ("s", "^", "D", "v", "P", "X")
_LINES: dict[str, tuple[str, Any, str]] = {  # colour, dashes, marker: told apart without colour as well
    "answer": (WARM, "-", "o"),
    "foil": (COOL, (0, (5, 2)), "s"),
    "other": (MUTED, (0, (1, 1.5)), "^"),
}


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
    n_units = sorted({bar.interval.n for bar in bars})
    level = bars[0].interval.level

    def paint(figure: Figure, narrow: bool) -> None:
        row = 0.20 + 0.075 * len(kinds)
        lines = int(np.ceil((len(kinds) + 1 + any(b.points for b in bars)) / (1 if narrow else 4)))
        figure.set_figheight(0.6 + row * len(bars) + 0.16 * lines + (0.2 if title else 0))
        ax = figure.subplots()
        pitch = 0.62 / (len(kinds) + 1)
        for i, bar in enumerate(bars):
            top = i - 0.31 + pitch / 2
            colour = WARM if not bar.interval.value < 0 else COOL
            ax.barh(top, bar.interval.value, height=pitch * 0.9, color=colour, alpha=0.3, linewidth=0, zorder=1)
            if 0 < len(bar.points) <= 40:
                ax.plot(bar.points, np.full(len(bar.points), top), "o", color=colour, alpha=0.35, ms=2, mew=0, zorder=2)
            _whisker(ax, bar.interval, top, colour, "o", 4.0, filled=True)
            for j, kind in enumerate(kinds):
                if kind in bar.controls:
                    mark = _CONTROL_MARKS[j % len(_CONTROL_MARKS)]
                    _whisker(ax, bar.controls[kind], top + pitch * (j + 1), MUTED, mark, 3.2, filled=False)
            if i:
                ax.axhline(i - 0.5, color=RULE, linewidth=0.4, zorder=0)
        ax.axvline(0, color=INK, linewidth=0.7, zorder=0.5)
        ax.set(ylim=(len(bars) - 0.5, -0.5), xlabel=label)
        ax.set_yticks(range(len(bars)), [bar.label for bar in bars])
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.xaxis.set_major_locator(MaxNLocator(5 if narrow else 9))
        if title:
            ax.set_title(title)
        units = f"n = {n_units[0]}" if len(n_units) == 1 else f"n = {n_units[0]}–{n_units[-1]}"
        handles: list[Any] = [
            Line2D([], [], color=WARM, marker="o", markersize=4, label=f"effect, {level:.0%} interval ({units})")
        ]
        if any(0 < len(b.points) <= 40 for b in bars):
            handles.append(
                Line2D([], [], color=WARM, alpha=0.35, marker="o", markersize=2, linestyle="", label="one pair")
            )
        for j, kind in enumerate(kinds):
            mark = _CONTROL_MARKS[j % len(_CONTROL_MARKS)]
            handles.append(
                Line2D(
                    [], [], color=MUTED, marker=mark, markersize=3.2, markerfacecolor="none", label=f"control: {kind}"
                )
            )
        figure.legend(handles=handles, loc="outside lower left", ncols=1 if narrow else min(4, len(handles)))

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
        f"Effects of {len(bars)} components with {level:.0%} intervals"
        + (f" and {len(kinds)} controls ({', '.join(kinds)})" if kinds else "")
        + f". The largest is {best.label} with {best.interval.value:.2f} "
        f"({best.interval.low:.2f} to {best.interval.high:.2f})."
    )
    return Drawing(name, alt, table, paint)


def _whisker(ax: Any, interval: Interval, y: float, colour: str, mark: str, size: float, *, filled: bool) -> None:
    if not (np.isnan(interval.low) or np.isnan(interval.high)):
        ax.plot([interval.low, interval.high], [y, y], color=colour, linewidth=1.3 if filled else 0.9, zorder=3)
    face = colour if filled else "none"
    ax.plot([interval.value], [y], mark, color=colour, markersize=size, markerfacecolor=face, mew=0.9, zorder=4)


def grid(
    name: str,
    values: Float[np.ndarray, "rows columns"],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    label: str,
    row_label: str = "layer",
    column_label: str = "head",
    title: str = "",
    significant: Bool[np.ndarray, "rows columns"] | None = None,
    unnatural: Bool[np.ndarray, "rows columns"] | None = None,
    limit: float | None = None,
    alpha: float = 0.05,
) -> Drawing:
    """A map of layers x heads (or x tokens), row 0 at the bottom, each cell with its number where there is room.

    label: of the colour scale, with its unit. Cells not in ``significant`` are faded and hatched; ``unnatural`` ones
    (out of distribution) are crossed. Raises ValueError when shapes and names disagree.
    """
    values = np.asarray(values, float)
    for what, given in (("values", values), ("significant", significant), ("unnatural", unnatural)):
        if given is not None and np.shape(given) != (len(rows), len(columns)):
            raise ValueError(f"{what} is {np.shape(given)}, but there are {len(rows)} rows and {len(columns)} columns")
    top = symmetric_limit(values, limit)
    faded = None if significant is None else ~np.asarray(significant, bool)

    def paint(figure: Figure, narrow: bool) -> None:
        inches = (figure.get_figwidth() - 1.2) / len(columns)
        tall = min(0.3, max(0.13, inches))
        slanted = max(len(c) for c in columns) * 0.062 > inches
        figure.set_figheight(0.75 + tall * len(rows) + (0.2 if title else 0) + 0.3 + (0.4 if slanted else 0))
        ax = figure.subplots()
        edges = np.arange(len(columns) + 1) - 0.5
        ax.pcolormesh(edges, np.arange(len(rows) + 1) - 0.5, colours_of(values, top, faded), rasterized=True)
        if faded is not None and faded.any():
            _hatch(ax, edges, faded & ~np.isnan(values))
        roomy = inches > 0.27 and tall > 0.16
        for row, column in np.ndindex(*values.shape):
            hidden = faded is not None and faded[row, column]
            if roomy and not hidden and np.isfinite(values[row, column]):
                strong = abs(values[row, column]) > 0.6 * top
                text = f"{values[row, column]:.2f}".replace("-", "−")
                ax.text(column, row, text, ha="center", va="center", fontsize=6, color="white" if strong else INK)
            if unnatural is not None and unnatural[row, column]:
                ax.plot([column - 0.38], [row + 0.3], "x", color=INK, markersize=3, markeredgewidth=0.7)
        peak = np.where(faded, np.nan, np.abs(values)) if faded is not None else np.abs(values)
        if not np.isnan(peak).all():
            row, column = np.unravel_index(np.nanargmax(peak), peak.shape)
            ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor="none", edgecolor=INK, linewidth=1.2))
        ax.set(xlabel=column_label, ylabel=row_label, xlim=(-0.5, len(columns) - 0.5), ylim=(-0.5, len(rows) - 0.5))
        every = max(1, int(np.ceil(0.14 / inches))) if not slanted else 1
        shown = range(0, len(columns), every)
        turn = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
        ax.set_xticks(list(shown), [columns[i] for i in shown], **turn)
        ax.set_yticks(range(len(rows)), list(rows))
        ax.tick_params(length=0)
        if title:
            ax.set_title(title)
        colour_scale(figure, ax, top, label)
        handles = [Patch(facecolor="none", edgecolor=INK, linewidth=1.2, label="largest effect")]
        if faded is not None:
            text = f"not significant (family-wise p ≥ {alpha:g})"
            handles.append(Patch(facecolor="none", edgecolor=RULE, hatch="//////", label=text))
        if unnatural is not None and np.any(unnatural):
            handles.append(Line2D([], [], color=INK, marker="x", ls="", ms=4, label="out of distribution"))  # type: ignore[arg-type]
        figure.legend(handles=handles, loc="outside lower left", ncols=2 if narrow else 4)

    table: dict[str, Any] = {
        row_label: np.repeat(np.asarray(rows, dtype=object), len(columns)),
        column_label: np.tile(np.asarray(columns, dtype=object), len(rows)),
        "value": values.ravel(),
    }
    for what, given in (("significant", significant), ("unnatural", unnatural)):
        if given is not None:
            table[what] = np.asarray(given).ravel()
    alt = f"{title or label}: {len(rows)} by {len(columns)} cells, {row_label} by {column_label}."
    if not np.isnan(values).all():
        row, column = np.unravel_index(np.nanargmax(np.abs(values)), values.shape)
        alt += f" The largest is {row_label} {rows[row]}, {column_label} {columns[column]}, {values[row, column]:.2f}."
    return Drawing(name, alt, table, paint)


@dataclass(frozen=True, eq=False)
class Line:
    """One curve of ``lens``: a value per layer, with its interval where there is one."""

    label: str
    values: Float[np.ndarray, " layers"]
    role: Literal["answer", "foil", "other"] = "other"
    low: Float[np.ndarray, " layers"] | None = None
    high: Float[np.ndarray, " layers"] | None = None


def lens(
    name: str,
    lines: Sequence[Line],
    layers: Sequence[str],
    *,
    label: str = "probability",
    title: str = "",
    scale: Literal["linear", "rank"] = "linear",
    marks: Mapping[str, int] | None = None,
    layer_label: str = "layer",
) -> Drawing:
    """What the model would say if it stopped at each layer: probability or rank of the answer and of its foil.

    label: of the axis, with its unit. scale: ``"rank"`` is logarithmic with rank 1 on top. marks: what -> index of the
    layer where it happens ("saturation": 3). Raises ValueError when a line has not one value per layer.
    """
    for line in lines:
        if len(line.values) != len(layers):
            raise ValueError(f"line {line.label!r} has {len(line.values)} values for {len(layers)} layers")

    def paint(figure: Figure, narrow: bool) -> None:
        figure.set_figheight((2.1 if narrow else 2.3) + 0.16 * (len(lines) if narrow else 1))
        ax = figure.subplots()
        x = np.arange(len(layers))
        handles = []
        for line in lines:
            colour, dashes, mark = _LINES[line.role]
            values = np.asarray(line.values, float)
            if line.low is not None and line.high is not None:
                ax.fill_between(x, line.low, line.high, color=colour, alpha=0.18, linewidth=0, zorder=1)
            handles += ax.plot(x, values, color=colour, ls=dashes, marker=mark, ms=3, label=line.label, zorder=2)
        if scale == "rank":
            ax.set_yscale("log")
            ax.invert_yaxis()
            ax.yaxis.set_major_formatter(lambda v, _: f"{v:g}")
        elif all(np.nanmin(line.values) >= 0 and np.nanmax(line.values) <= 1 for line in lines):
            ax.set_ylim(-0.03, 1.03)
        for what, layer in (marks or {}).items():
            ax.axvline(layer, color=ACCENT, linewidth=0.9, linestyle=(0, (3, 2)), zorder=0)
            side = "right" if layer > 0.7 * (len(layers) - 1) else "left"
            text = f" {what} "
            ax.text(
                layer, 1.0, text, color=ACCENT, ha=side, va="bottom", fontsize=6.5, transform=ax.get_xaxis_transform()
            )
        slanted = max(len(s) for s in layers) * 0.062 > (figure.get_figwidth() - 0.7) / len(layers)
        turn = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
        ax.set_xticks(x, list(layers), **turn)
        ax.set(xlabel=layer_label, ylabel=label)
        ax.grid(axis="y", color=RULE, linewidth=0.4)
        ax.set_axisbelow(True)
        if title:
            ax.set_title(title, pad=14 if marks else None)
        figure.legend(handles=handles, loc="outside lower left", ncols=1 if narrow else min(4, len(lines)))

    table: dict[str, list[Any]] = {"line": [], layer_label: [], "value": [], "low": [], "high": []}
    for line in lines:
        nothing = [None] * len(layers)
        table["line"] += [line.label] * len(layers)
        table[layer_label] += list(layers)
        table["value"] += list(line.values)
        table["low"] += nothing if line.low is None else list(line.low)
        table["high"] += nothing if line.high is None else list(line.high)
    ends = ", ".join(f"{line.label} ends at {line.values[-1]:.3g}" for line in lines)
    return Drawing(name, f"{label} over {len(layers)} layers: {ends}.", table, paint)
