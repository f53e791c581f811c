"""Text that fits: widths are measured before anything is placed, because a phone's figure is 76 mm wide."""

from functools import lru_cache
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

LEGEND_SIZE = 6.5
_HANDLE = 34.0  # points that a legend's sample and gaps take beside its text


@lru_cache(maxsize=4096)
def width(text: str, size: float, bold: bool = False) -> float:
    """Points that one line of text takes."""
    if not text.strip():
        return 0.0
    font = FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")
    return float(TextPath((0, 0), text, size=size, prop=font).get_extents().width)


def wrapped(text: str, inches: float, size: float, bold: bool = False) -> str:
    """``text`` broken at spaces into lines of at most ``inches``; a single longer word is left whole."""
    lines: list[str] = []
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and width(longer, size, bold) <= inches * 72:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)


def legend_shape(figure: Figure, handles: list[Any]) -> tuple[int, int]:
    """(columns, lines) of a legend that fits the figure's width."""
    room = figure.get_figwidth() * 72 - 16
    widths = [width(str(h.get_label()), LEGEND_SIZE) + _HANDLE for h in handles]
    for columns in range(len(handles), 1, -1):
        lines = int(np.ceil(len(handles) / columns))
        filled = [widths[i : i + lines] for i in range(0, len(widths), lines)]  # matplotlib fills column by column
        if sum(max(column) for column in filled) <= room and len(filled) == columns:
            return columns, lines
    return 1, len(handles)


def add_legend(figure: Figure, handles: list[Any]) -> None:
    """Below everything, as many columns as fit."""
    if handles:
        columns, _ = legend_shape(figure, handles)
        figure.legend(handles=handles, loc="outside lower left", ncols=columns, columnspacing=1.2)


def legend_inches(figure: Figure, handles: list[Any]) -> float:
    """Height that ``add_legend`` will take."""
    return 0.15 * legend_shape(figure, handles)[1] + 0.06 if handles else 0.0
