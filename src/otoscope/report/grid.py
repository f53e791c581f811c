"""A map of layers x heads, or of layers x tokens: signed colour, numbers where there is room, doubt drawn in."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from otoscope.report.drawing import INK, RULE, Drawing, largest, symmetric_limit
from otoscope.report.drawing import two_sided_colours as colours_of
from otoscope.report.text import add_legend, legend_inches, width, wrapped
from otoscope.report.timeline import colour_scale, hatch


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
        left = max(width(r, 7) for r in rows) / 72 + 0.35
        inches = (figure.get_figwidth() - left - 0.75) / len(columns)
        tall = min(0.3, max(0.13, inches))
        handles = _legend(faded is not None, unnatural is not None and bool(np.any(unnatural)), alpha)
        longest = max(width(c, 7) for c in columns) / 72
        slanted = longest + 0.05 > inches and longest > 0.2
        heading = wrapped(title, figure.get_figwidth() - left - 0.7, 8, bold=True)
        around = 0.42 + (0.2 + 0.12 * heading.count("\n") if heading else 0) + (0.7 * longest if slanted else 0)
        figure.set_figheight(max(tall * len(rows), 0.7) + around + legend_inches(figure, handles))
        ax = figure.subplots()
        edges = np.arange(len(columns) + 1) - 0.5
        ax.pcolormesh(edges, np.arange(len(rows) + 1) - 0.5, colours_of(values, top, faded), rasterized=True)
        if faded is not None and faded.any():
            hatch(ax, edges, faded & ~np.isnan(values))
        shown = np.isfinite(values) & (True if faded is None else ~faded)
        if inches > 0.27 and tall > 0.16:
            _write_numbers(ax, values, shown, top)
        for row, column in np.argwhere(unnatural) if unnatural is not None else ():
            ax.plot([column - 0.38], [row + 0.3], "x", color=INK, markersize=3, markeredgewidth=0.7)
        if shown.any():
            row, column = largest(np.where(shown, values, np.nan))
            box = Rectangle((column - 0.5, row - 0.5), 1, 1)
            box.set(facecolor="none", edgecolor=INK, linewidth=1.2, zorder=5)
            ax.add_patch(box)
        ax.set(xlabel=column_label, ylabel=row_label, xlim=(-0.5, len(columns) - 0.5), ylim=(-0.5, len(rows) - 0.5))
        every = max(1, int(np.ceil((0.13 if slanted else longest + 0.06) / inches)))
        turn = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
        ax.set_xticks(range(0, len(columns), every), columns[::every], **turn)
        step = max(1, int(np.ceil(0.12 / tall)))
        ax.set_yticks(range(0, len(rows), step), rows[::step])
        ax.tick_params(length=0)
        ax.set_title(heading)
        colour_scale(ax, top, label, max(tall * len(rows), 0.7), signed=bool((values < 0).any()))
        add_legend(figure, handles)

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
        row, column = largest(values)
        alt += f" The largest is {row_label} {rows[row]}, {column_label} {columns[column]}, {values[row, column]:.2f}."
    return Drawing(name, alt, table, paint)


def _write_numbers(ax: Any, values: np.ndarray, shown: np.ndarray, top: float) -> None:
    for row, column in np.argwhere(shown):
        text = f"{values[row, column]:.2f}".replace("-", "−")
        colour = "white" if abs(values[row, column]) > 0.6 * top else INK
        ax.text(column, row, text, ha="center", va="center", fontsize=6, color=colour)


def _legend(tested: bool, flagged: bool, alpha: float) -> list[Any]:
    handles: list[Any] = [Patch(facecolor="none", edgecolor=INK, linewidth=1.2, label="largest")]
    if tested:
        label = f"not significant (family-wise p ≥ {alpha:g})"
        handles.append(Patch(facecolor="none", edgecolor=RULE, hatch="//////", label=label))
    if flagged:
        handles.append(Line2D([], [], color=INK, marker="x", linestyle="", markersize=4, label="out of distribution"))
    return handles
