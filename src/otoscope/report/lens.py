"""The lens over layers: what the model would say if it stopped there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from otoscope.report.drawing import ACCENT, COOL, MUTED, RULE, WARM, Drawing
from otoscope.report.text import add_legend, legend_inches, width, wrapped

_ROLES: dict[str, tuple[str, Any, str]] = {  # colour, dashes, marker: told apart without colour as well
    "answer": (WARM, "-", "o"),
    "foil": (COOL, (0, (5, 2)), "s"),
    "other": (MUTED, (0, (1, 1.5)), "^"),
}


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
        x = np.arange(len(layers))
        handles = [_sample_of(line) for line in lines]
        heading = wrapped(title, figure.get_figwidth() - 0.5, 8, bold=True)
        longest = max(width(s, 7) for s in layers) / 72
        inches = (figure.get_figwidth() - 0.7) / len(layers)
        slanted = longest + 0.05 > inches and longest > 0.2
        around = legend_inches(figure, handles) + 0.12 * heading.count("\n") + (0.7 * longest if slanted else 0)
        figure.set_figheight((1.9 if narrow else 2.2) + around)
        ax = figure.subplots()
        for line, style in zip(lines, handles):
            ax.plot(x, line.values, color=style.get_color(), ls=style.get_linestyle(), marker=style.get_marker(), ms=3)
            if line.low is not None and line.high is not None:
                ax.fill_between(x, line.low, line.high, color=style.get_color(), alpha=0.18, linewidth=0, zorder=1)
        if scale == "rank":
            ax.set_yscale("log")
            ax.invert_yaxis()
            ax.yaxis.set_major_formatter(lambda v, _: f"{v:g}")
        elif all(0 <= v <= 1 or np.isnan(v) for line in lines for v in line.values):
            ax.set_ylim(-0.03, 1.03)
        for what, layer in (marks or {}).items():
            ax.axvline(layer, color=ACCENT, linewidth=0.9, linestyle=(0, (3, 2)), zorder=0)
            side = "right" if layer > 0.6 * (len(layers) - 1) else "left"
            place = {"ha": side, "va": "bottom", "transform": ax.get_xaxis_transform()}
            ax.text(layer, 1.0, what, color=ACCENT, fontsize=6.5, **place)
        every = max(1, int(np.ceil((0.13 if slanted else longest + 0.06) / inches)))
        turn = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
        ax.set_xticks(x[::every], layers[::every], **turn)
        ax.set(xlabel=layer_label, ylabel=label)
        ax.grid(axis="y", color=RULE, linewidth=0.4)
        ax.set_axisbelow(True)
        ax.set_title(heading, pad=14 if marks else None)
        add_legend(figure, handles)

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


def _sample_of(line: Line) -> Line2D:
    """The legend's sample of a line, which also says how the line is drawn."""
    colour, dashes, mark = _ROLES[line.role]
    return Line2D([], [], color=colour, linestyle=dashes, marker=mark, markersize=3, label=line.label)
