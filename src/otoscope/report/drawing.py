"""A Drawing: one figure that knows its numbers, painted at two widths, as SVG and PDF, the same bytes every time.

Matplotlib's object interface only: no pyplot, no global figure list, no display needed.
"""

import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup, escape
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from otoscope.report.text import LEGEND_SIZE
from otoscope.runs import Run, csv_text

WIDE, NARROW = 180 / 25.4, 76 / 25.4
"""Inches: the full width of a journal's page, and what a phone shows with text of about 11 pixels."""

# Named inks. In the page each becomes a CSS variable, so that the same SVG is right on a light and on a dark ground.
INK, MUTED, RULE, GROUND, SHADE = "#1b1c1e", "#5b6067", "#c8ccd2", "#fdfdfe", "#e4e6ea"
WARM, COOL, ACCENT = "#c8401f", "#1f6fb8", "#7a3fb1"
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    RULE: "rule",
    GROUND: "ground",
    SHADE: "shade",
    WARM: "warm",
    COOL: "cool",
    ACCENT: "accent",
}
IMAGE = "grey-image"  # gid of pictures drawn in black ink, which a dark page inverts
TIME = "time-panel"  # gid of axes whose x is seconds of the sound

_STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 7.0,
    "axes.titlesize": 8.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 5.0,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.unicode_minus": True,
    "text.color": INK,
    "text.parse_math": False,  # a "$" in a transcript is a dollar
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.frameon": False,
    "legend.fontsize": LEGEND_SIZE,
    "legend.handlelength": 2.2,
    "hatch.linewidth": 0.45,
    "lines.linewidth": 1.3,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "figure.dpi": 200,
    "savefig.dpi": 200,
    "svg.fonttype": "path",  # the reader's fonts cannot push a label out of its place
    "pdf.fonttype": 42,
}

Paint = Callable[[Figure, bool], None]
"""(empty figure of the right width, narrow?) -> draws into it; sets the height with ``figure.set_figheight``."""


@dataclass(frozen=True, eq=False)
class Drawing:
    """A figure with its numbers.

    name: file stem and prefix of ids, letters, digits and dashes. alt: what it shows, in a sentence, for those who do
    not see it. table: column -> values, all that was drawn, written as CSV. paint: see ``Paint``.
    """

    name: str
    alt: str
    table: Mapping[str, Sequence[Any] | NDArray[Any]]
    paint: Paint
    _done: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)  # the page and the files share one SVG

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", self.name):
            raise ValueError(f"a figure's name is letters, digits and dashes, not {self.name!r}")

    def svg(self) -> str:
        """For a file: white ground, fixed colours, 180 mm wide."""
        head, figure, rest = self._render("svg", narrow=False)[0].decode().partition('<g id="figure_1">')
        return f'{head}<rect width="100%" height="100%" fill="#ffffff"/>\n {figure}{rest}'

    def pdf(self) -> bytes:
        """For a paper: 180 mm wide, TrueType fonts, no date."""
        return self._render("pdf", narrow=False)[0]

    def csv(self) -> str:
        """The numbers."""
        return csv_text(self.table)

    def save(self, run: Run) -> None:
        """Write ``figures/NAME.svg``, ``.pdf`` and ``.csv`` into the run."""
        run.write(f"figures/{self.name}.svg", self.svg())
        run.write(f"figures/{self.name}.pdf", self.pdf())
        run.write(f"figures/{self.name}.csv", self.csv())

    def inline(self, narrow: bool) -> tuple[Markup, str]:
        """(SVG to put into a page, JSON list of its time panels as fractions of its size with their seconds)."""
        data, panels = self._render("svg", narrow)
        return Markup(_for_page(data.decode(), f"{self.name}{'-n' if narrow else ''}", self.alt)), json.dumps(panels)

    def _render(self, kind: str, narrow: bool) -> tuple[bytes, list[dict[str, float]]]:
        if (kind, narrow) not in self._done:
            self._done[kind, narrow] = self._paint(kind, narrow)
        return self._done[kind, narrow]

    def _paint(self, kind: str, narrow: bool) -> tuple[bytes, list[dict[str, float]]]:
        salt: dict[Any, Any] = {"svg.hashsalt": self.name + ("-n" if narrow else "")}
        with mpl.rc_context({**_STYLE, **salt}):
            figure = Figure(figsize=(NARROW if narrow else WIDE, 3.0), layout="constrained")
            FigureCanvasAgg(figure)
            figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, hspace=0.02, wspace=0.02)  # type: ignore[union-attr]
            self.paint(figure, narrow)
            out = io.BytesIO()
            dates = {"Date": None} if kind == "svg" else {"CreationDate": None, "ModDate": None}
            figure.savefig(out, format=kind, metadata=dates)
            panels = [_panel(ax) for ax in figure.axes if ax.get_gid() == TIME]
        return out.getvalue(), panels


def _panel(ax: Any) -> dict[str, float]:
    box, (start, end) = ax.get_position(), ax.get_xlim()
    numbers = {"left": box.x0, "right": box.x1, "top": 1 - box.y1, "bottom": 1 - box.y0, "start": start, "end": end}
    return {name: round(float(value), 5) for name, value in numbers.items()}


def _for_page(svg: str, prefix: str, alt: str) -> str:
    """The bare ``<svg>`` element with ids of its own (a page holds many), named inks, and a text alternative."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.S)
    for colour, name in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{name})")
    svg = re.sub(rf'\bid="{IMAGE}[^"]*"', f'class="{IMAGE}"', svg)
    svg = svg.replace(f' id="{TIME}"', "")  # a figure has several, and an id is only one's
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", svg)
    head, rest = svg.split(">", 1)
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{escape(alt)}">{rest}'


def two_sided_colours(values: NDArray[Any], limit: float, faded: NDArray[Any] | None = None) -> NDArray[Any]:
    """RGBA ``[..., 4]`` of signed values: cool below 0, warm above, clear at 0, full at +-limit; NaN is clear.

    Strength is opacity, so that 0 is the colour of the page, light or dark. faded: cells drawn at a third of it.
    """
    share = np.clip(np.nan_to_num(np.asarray(values, float) / limit), -1, 1)
    out = np.empty((*share.shape, 4))
    for channel, (warm, cool) in enumerate(zip(to_rgb(WARM), to_rgb(COOL))):
        out[..., channel] = np.where(share >= 0, warm, cool)
    out[..., 3] = np.abs(share) * np.where(False if faded is None else faded, 0.35, 1.0)
    return out


def symmetric_limit(values: Any, limit: float | None) -> float:
    """``limit``, or the largest absolute finite value, rounded up to one that reads well; 1 where there is none."""
    if limit is not None:
        return float(limit)
    flat = np.abs(np.asarray(values, float).ravel())
    flat = flat[np.isfinite(flat)]
    top = float(flat.max()) if flat.size else 0.0
    if top == 0:
        return 1.0
    step = 10 ** np.floor(np.log10(top))
    return float(next(m * step for m in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if m * step >= top * (1 - 1e-9)))


def largest(values: NDArray[Any]) -> tuple[int, int]:
    """(row, column) of the largest absolute value; NaNs aside, of which not all may be."""
    row, column = np.unravel_index(np.nanargmax(np.abs(values)), values.shape)
    return int(row), int(column)
