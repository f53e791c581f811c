"""Figures over the time of a sound: the waveform of a clip, and maps of layers x time under its spectrogram.

Everything in one figure shares one axis in seconds, so that what the model does stands below what was said.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, PathPatch, Rectangle
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator

from otoscope.audio.clip import Clip, Span
from otoscope.report.drawing import (
    ACCENT,
    GROUND,
    IMAGE,
    INK,
    MUTED,
    RULE,
    SHADE,
    TIME,
    Drawing,
    largest,
    symmetric_limit,
    two_sided_colours,
)
from otoscope.report.spectrogram import log_mel, mel
from otoscope.report.text import add_legend, legend_inches, width, wrapped

_HERTZ = (250, 500, 1000, 2000, 4000, 8000, 16000)
_ROW_OF_LABELS = 0.13  # inches
_COLOUR_SCALE = 128  # steps


@dataclass(frozen=True, eq=False)
class TimeMap:
    """Values of rows (layers) x time windows, and what is known of each cell.

    Raises ValueError when the shapes disagree.
    """

    values: Float[np.ndarray, "rows windows"]
    """Signed, in ``label``'s unit; NaN where nothing was measured."""
    starts: Float[np.ndarray, " windows"]
    """Seconds; ascending. Windows that overlap are drawn up to the middle between neighbours."""
    ends: Float[np.ndarray, " windows"]
    rows: Sequence[str]
    """Names from the lowest (drawn at the bottom) up."""
    label: str = "effect (share restored)"
    """Of the colour scale, with its unit."""
    title: str = ""
    significant: Bool[np.ndarray, "rows windows"] | None = None
    """Family-wise significant cells (``stats.sign_flip_map(...) < .05``); the others are faded and hatched."""
    unnatural: Bool[np.ndarray, "rows windows"] | None = None
    """Cells whose patched run leaves the natural states; crossed out."""
    low: Float[np.ndarray, "rows windows"] | None = None
    high: Float[np.ndarray, "rows windows"] | None = None
    """Interval of each cell; for the CSV."""
    limit: float | None = None
    """Value of the full colour; default the largest, so give it where two maps are to be compared."""
    row_label: str = "layer"

    def __post_init__(self) -> None:
        shape = (len(self.rows), len(self.starts))
        for name in ("values", "significant", "unnatural", "low", "high"):
            given = getattr(self, name)
            if given is not None and np.shape(given) != shape:
                raise ValueError(f"{name} is {np.shape(given)}, but there are {shape[0]} rows x {shape[1]} windows")
        if np.shape(self.ends) != np.shape(self.starts) or shape[1] == 0:
            raise ValueError(f"{shape[1]} window starts and {len(self.ends)} ends: give both for every window")

    @property
    def peak(self) -> tuple[int, int] | None:
        """(row, window) of the largest absolute value among the significant cells (among all where not tested)."""
        counted = np.asarray(self.values, float)
        if self.significant is not None:
            counted = np.where(self.significant, counted, np.nan)
        return None if np.isnan(counted).all() else largest(counted)

    def edges(self) -> Float[np.ndarray, "windows+1"]:
        """Borders of the drawn columns, seconds."""
        starts, ends = np.asarray(self.starts, float), np.asarray(self.ends, float)
        middle = np.where(ends[:-1] > starts[1:], (starts[1:] + ends[:-1]) / 2, starts[1:])
        return np.concatenate([starts[:1], middle, ends[-1:]])

    def columns(self) -> dict[str, np.ndarray]:
        """One line per cell, for the CSV."""
        n_rows, n_windows = len(self.rows), len(self.starts)
        out: dict[str, Any] = {
            "row": np.repeat(np.asarray(self.rows, dtype=object), n_windows),
            "start_s": np.tile(self.starts, n_rows),
            "end_s": np.tile(self.ends, n_rows),
            "value": np.asarray(self.values, float).ravel(),
        }
        for name in ("low", "high", "significant", "unnatural"):
            given = getattr(self, name)
            if given is not None:
                out[name] = np.asarray(given).ravel()
        return out


def waveform(name: str, clip: Clip, span: tuple[float, float] | None = None) -> Drawing:
    """The clip's waveform over seconds with its words (phones where it has no words) and the changed span marked."""

    def paint(figure: Figure, narrow: bool) -> None:
        words = clip.words or clip.phones
        rows, depth = _stack_labels(words, (0, clip.duration), figure.get_figwidth() - 0.4)
        heights = [0.62, max(depth, 0.01) * _ROW_OF_LABELS]
        figure.set_figheight(sum(heights) + 0.5)
        wave, strip = figure.subplots(2, 1, sharex=True, height_ratios=heights)
        steps = np.linspace(0, len(clip.samples), min(len(clip.samples), 700 if narrow else 1200) + 1).astype(int)
        low, high = (f.reduceat(clip.samples, steps[:-1]) for f in (np.minimum, np.maximum))
        wave.fill_between(steps[:-1] / clip.rate, low, high, color=MUTED, linewidth=0.3)
        top = float(np.abs(clip.samples).max()) or 1.0
        wave.set(xlim=(0, clip.duration), ylim=(-1.05 * top, 1.05 * top), yticks=[])
        wave.spines[["left", "bottom"]].set_visible(False)
        wave.tick_params(axis="x", bottom=False, labelbottom=False)
        _mark_span([wave], span, labelled=False)
        _draw_labels(strip, words, rows, depth, span)
        strip.set_xlabel("time (s)")
        wave.set_gid(TIME)

    said = f", saying “{clip.text}”" if clip.text else ""
    spans = clip.words or clip.phones
    table = {"label": [s.text for s in spans], "start_s": [s.start for s in spans], "end_s": [s.end for s in spans]}
    return Drawing(name, f"Waveform of {clip.name or 'the clip'}, {clip.duration:.2f} s{said}.", table, paint)


def time_map(
    name: str,
    clip: Clip,
    maps: TimeMap | Sequence[TimeMap] = (),
    *,
    span: tuple[float, float] | None = None,
    span_label: str = "changed span",
    until: float | None = None,
    labels: Sequence[Span] | None = None,
    alpha: float = 0.05,
) -> Drawing:
    """Spectrogram above, words or phones between, and one map or several below, over one axis in seconds.

    span: seconds, where clean and corrupt differ. until: right end of the axis, seconds; beyond the clip's end the
    figure is grey, "padding". labels: default the clip's words, else its phones. alpha: level of ``significant``.
    """
    maps = (maps,) if isinstance(maps, TimeMap) else tuple(maps)
    spans = tuple(labels) if labels is not None else (clip.words or clip.phones)
    end = until if until is not None else max([clip.duration, *(float(m.ends[-1]) for m in maps)])

    def paint(figure: Figure, narrow: bool) -> None:
        margin = 1.0 if narrow else 1.15
        rows, depth = _stack_labels(spans, (0, end), figure.get_figwidth() - margin)
        heights = [0.95 if narrow else 1.15]
        heights += [depth * _ROW_OF_LABELS + 0.02] if depth else []
        heights += [max(0.8, (0.13 if narrow else 0.16) * len(m.rows)) for m in maps]
        legend = _legend(maps, span, span_label, end > clip.duration, alpha)
        titles = [wrapped(m.title, figure.get_figwidth() - margin, 8, bold=True) for m in maps]
        above = sum(0.2 + 0.12 * title.count("\n") for title in titles if title)
        figure.set_figheight(sum(heights) + 0.5 + legend_inches(figure, legend) + above)
        axes = list(np.atleast_1d(figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)))
        _draw_spectrogram(axes[0], clip, narrow)
        below = axes[2:] if depth else axes[1:]
        if depth:
            _draw_labels(axes[1], spans, rows, depth, span)
        for ax, one, title, inches in zip(below, maps, titles, heights[-len(maps) :] if maps else ()):
            _draw_map(ax, one, clip.duration, inches)
            ax.set_title(title)
        for ax in (axes[0], *below):
            ax.set_gid(TIME)
            if end > clip.duration:
                ax.axvspan(clip.duration, end, color=SHADE, linewidth=0, zorder=1.5)
        _mark_span([axes[0], *below], span, labelled=True)
        axes[0].set_xlim(0, end)
        for ax in axes[:-1]:
            ax.tick_params(axis="x", bottom=False, labelbottom=False)
        if depth and maps:
            axes[1].spines["bottom"].set_visible(False)
        axes[-1].xaxis.set_major_locator(MaxNLocator(5 if narrow else 9))
        axes[-1].set_xlabel("time (s)")
        add_legend(figure, legend)

    table: dict[str, list[Any]] = {}
    for number, one in enumerate(maps):
        part = one.columns()
        part["map"] = np.repeat(np.array([one.title or f"map {number + 1}"], dtype=object), len(part["value"]))
        for key, values in part.items():
            table.setdefault(key, [None] * sum(m.values.size for m in maps[:number])).extend(values)
        for values in table.values():
            values.extend([None] * (sum(m.values.size for m in maps[: number + 1]) - len(values)))
    return Drawing(name, _describe(clip, maps, span), table, paint)


def _describe(clip: Clip, maps: Sequence[TimeMap], span: tuple[float, float] | None) -> str:
    text = f"Spectrogram of {clip.name or 'the clip'}, {clip.duration:.2f} s"
    text += f", changed from {span[0]:.2f} to {span[1]:.2f} s." if span else "."
    for one in maps:
        peak = one.peak
        text += f" Below it {one.title or 'a map'} of {len(one.rows)} rows by {len(one.starts)} time windows"
        if peak is None:
            text += "; no cell is significant."
        else:
            row, column = peak
            text += f"; the largest cell is {one.row_label} {one.rows[row]}, {one.starts[column]:.2f} to "
            text += f"{one.ends[column]:.2f} s, with {one.values[row, column]:.2f}."
    return text


def _draw_spectrogram(ax: Any, clip: Clip, narrow: bool) -> None:
    picture = log_mel(clip.samples, clip.rate)
    dark = np.zeros((*picture.level.shape, 4))
    dark[..., 3] = 1 - picture.level / picture.level.min() if picture.level.min() < picture.level.max() else 0.0
    top = mel(clip.rate / 2)
    # "none" puts the small picture itself into the SVG, which the page then scales
    image = ax.imshow(
        dark, extent=(0, clip.duration, 0, top), origin="lower", aspect="auto", interpolation="none", zorder=1
    )
    image.set_gid(IMAGE)
    shown = [f for f in _HERTZ if f <= clip.rate / 2 and not (narrow and f in (250, 16000))]
    ax.set(ylim=(0, top), ylabel="frequency (kHz)")
    ax.set_yticks([mel(f) for f in shown], [f"{f / 1000:g}" for f in shown])


def _draw_map(ax: Any, one: TimeMap, duration: float, inches: float) -> None:
    limit = symmetric_limit(one.values, one.limit)
    edges, n_rows = one.edges(), len(one.rows)
    faded = None if one.significant is None else ~np.asarray(one.significant, bool)
    colours = two_sided_colours(one.values, limit, faded)
    ax.pcolormesh(edges, np.arange(n_rows + 1) - 0.5, colours, rasterized=True, zorder=1)
    missing = np.isnan(np.asarray(one.values, float))
    if faded is not None and (faded & ~missing).any():
        hatch(ax, edges, faded & ~missing & (edges[:-1] < duration)[None, :])
    if one.unnatural is not None and np.any(one.unnatural):
        y, x = np.nonzero(one.unnatural)
        ax.plot((edges[x] + edges[x + 1]) / 2, y, "x", color=INK, markersize=3, markeredgewidth=0.7, zorder=4)
    if one.peak is not None:
        row, column = one.peak
        box = Rectangle((edges[column], row - 0.5), edges[column + 1] - edges[column], 1)
        box.set(facecolor="none", edgecolor=INK, linewidth=1.2, zorder=5)
        ax.add_patch(box)
    every = max(1, int(np.ceil(n_rows / 12)))
    ax.set(ylim=(-0.5, n_rows - 0.5), ylabel=one.row_label)
    ax.set_yticks(range(0, n_rows, every), [one.rows[i] for i in range(0, n_rows, every)])
    colour_scale(ax, limit, one.label, inches)


def colour_scale(ax: Any, limit: float, label: str, inches: float, signed: bool = True) -> None:
    """The symmetric scale beside a map of that height: cool below 0, warm above (this half alone where not ``signed``)."""
    box = ax.inset_axes((1.015, 0.0, 0.014, 1.0))
    ramp = two_sided_colours(np.linspace(-limit, limit, _COLOUR_SCALE), limit)[:, None, :]
    box.imshow(ramp, extent=(0, 1, -limit, limit), origin="lower", aspect="auto", interpolation="nearest")
    ticks = {-limit: f"−{limit:g}", 0.0: "0", limit: f"{limit:g}"}
    shown = [at for at in ticks if signed or at >= 0]
    box.set(xticks=[], yticks=shown, ylim=(shown[0], limit))
    box.yaxis.tick_right()
    box.yaxis.set_label_position("right")
    box.set_yticklabels([ticks[at] for at in shown])
    box.spines[:].set(visible=True, color=RULE)
    too_long = width(label, 6.5) > 72 * inches
    box.set_ylabel(label.replace(" (", "\n(", 1) if too_long else label, fontsize=6.5)


def hatch(ax: Any, edges: np.ndarray, cells: np.ndarray) -> None:
    """Stripes over the marked cells, runs of a row joined so that the stripes run through."""
    corners, codes = [], []
    for row in range(len(cells)):
        change = np.flatnonzero(np.diff(np.concatenate([[0], cells[row].astype(int), [0]])))
        for first, past in zip(change[::2], change[1::2]):
            left, right, low, high = edges[first], edges[past], row - 0.5, row + 0.5
            corners += [(left, low), (right, low), (right, high), (left, high), (left, low)]
            codes += [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
    if corners:
        stripes = PathPatch(Path(corners, codes), facecolor="none", edgecolor=RULE, linewidth=0, hatch="//////")
        stripes.set_zorder(2)
        ax.add_patch(stripes)


def _legend(
    maps: Sequence[TimeMap], span: tuple[float, float] | None, span_label: str, padded: bool, alpha: float
) -> list[Any]:
    handles: list[Any] = []
    if span is not None:
        handles.append(Line2D([], [], color=ACCENT, linewidth=3, label=f"{span_label} {span[0]:.2f}–{span[1]:.2f} s"))
    if any(m.peak is not None for m in maps):
        handles.append(Patch(facecolor="none", edgecolor=INK, linewidth=1.2, label="largest effect"))
    if any(m.significant is not None for m in maps):
        label = f"not significant (family-wise p ≥ {alpha:g})"
        handles.append(Patch(facecolor="none", edgecolor=RULE, hatch="//////", label=label))
    if any(m.unnatural is not None and np.any(m.unnatural) for m in maps):
        label = "out of distribution"
        handles.append(Line2D([], [], color=INK, marker="x", linestyle="", markersize=4, label=label))
    if padded:
        handles.append(Patch(facecolor=SHADE, label="padding"))
    return handles


def _mark_span(axes: Sequence[Any], span: tuple[float, float] | None, labelled: bool) -> None:
    if span is None:
        return
    for ax in axes:
        for edge in span:
            ax.axvline(edge, color=ACCENT, linewidth=0.9, linestyle=(0, (3, 2)), zorder=6)
    bar = Line2D(span, [1.0, 1.0], color=ACCENT, linewidth=3, solid_capstyle="butt", clip_on=False, zorder=7)
    bar.set_transform(axes[0].get_xaxis_transform())
    if labelled:
        axes[0].add_line(bar)
    else:
        axes[0].axvspan(*span, color=ACCENT, alpha=0.15, linewidth=0)


def _stack_labels(spans: Sequence[Span], limits: tuple[float, float], inches: float) -> tuple[list[int], int]:
    """(row of each label, number of rows): a label that would touch its neighbour goes one row down, at most three."""
    right: list[float] = []
    rows = []
    per_second = inches * 72 / max(limits[1] - limits[0], 1e-9)
    for span in spans:
        half = width(span.text, 6.5) / 2
        centre = (span.start + span.end) / 2 * per_second
        row = next((i for i, edge in enumerate(right) if centre - half >= edge + 3), len(right))
        if row >= 3:
            rows.append(-1)  # no room: its ticks are still there
            continue
        if row == len(right):
            right.append(0.0)
        right[row] = centre + half
        rows.append(row)
    return rows, len(right)


def _draw_labels(
    ax: Any, spans: Sequence[Span], rows: Sequence[int], depth: int, changed: tuple[float, float] | None
) -> None:
    ax.set(ylim=(-max(depth, 1), 0.0), yticks=[])
    ax.spines["left"].set_visible(False)
    for span, row in zip(spans, rows):
        inside = changed is not None and span.start < changed[1] and span.end > changed[0]
        ax.plot([span.start, span.end], [-0.04, -0.04], color=RULE, linewidth=0.8, zorder=1)
        for edge in (span.start, span.end):
            ax.plot([edge, edge], [-0.04, -0.2], color=RULE, linewidth=0.8, zorder=1)
        if row < 0:
            continue
        ax.text(
            (span.start + span.end) / 2,
            -row - 0.6,
            span.text,
            ha="center",
            va="center",
            fontsize=6.5,
            color=ACCENT if inside else INK,
            fontweight="bold" if inside else "normal",
            clip_on=True,
            bbox={"facecolor": GROUND, "edgecolor": "none", "pad": 0.4} if row else None,
        )
