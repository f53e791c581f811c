"""A Report: blocks in, one self-contained ``report.html`` out. Nothing in it asks anything of any network."""

import base64
import io
import math
import re
from collections.abc import Iterable, Iterator
from importlib import resources
from typing import Any

import jinja2
import numpy as np
import soundfile
from markupsafe import Markup

import otoscope
from otoscope.audio.clip import Clip
from otoscope.report.blocks import Block, Claims, Detail, Figure, Section, Sound, Sounds, Tokens
from otoscope.report.drawing import symmetric_limit
from otoscope.report.timeline import waveform
from otoscope.runs import Claim, Run, csv_text

_SYMBOLS = {"supported": "✓", "refuted": "✕", "inconclusive": "?"}
_SMALL = 40  # rows; a longer table of numbers is a file to download, not a page to scroll


class Report:
    """One page that says what was found, lets one hear it, and shows how far to trust it.

    title: what was asked. headline: one sentence, what was found. lead: the one picture that shows it.

        report = Report("Where is pad heard?", headline="In layer 2, within 40 ms of the burst.", lead=Figure(...))
        report.add(Sounds([Sound("clean", "clean", clip), ...]), Claims(claims), Reproduce(run.info))
        report.save(run)
    """

    def __init__(self, title: str, *, headline: str = "", lead: Figure | None = None, subtitle: str = "") -> None:
        self.title, self.headline, self.lead, self.subtitle = title, headline, lead, subtitle
        self.blocks: list[Block] = []

    def add(self, *blocks: Block) -> "Report":
        """Append blocks; returns the report. Raises ValueError when a name or id is used twice."""
        self.blocks += blocks
        named = {
            "sound": [s.id for s in self._sounds()],
            "figure": list(self._names()),
            "detail": [d.id for d in self._all(Detail)],
        }
        for what, names in named.items():
            twice = next((n for n in names if names.count(n) > 1), None)
            if twice is not None:
                raise ValueError(f"two blocks share the {what} name {twice!r}; files and links need names of their own")
        return self

    def html(self) -> str:
        """The page. Raises ValueError when a figure names a sound that the report has not."""
        known = {sound.id for sound in self._sounds()}
        for block in (*self._figures(), *self._all(Tokens), *self._all(Detail)):
            if block.sound is not None and block.sound not in known:
                raise ValueError(f"a block names the sound {block.sound!r}; the report has {sorted(known) or 'none'}")
        claims = [claim for block in self._all(Claims) for claim in block.claims]
        verdicts = [(v, sum(c.verdict == v for c in claims)) for v in _SYMBOLS]
        return (
            environment()
            .get_template("report.html")
            .render(
                report=self,
                verdicts=[(v, n) for v, n in verdicts if n],
                sections=[(_slug(b.title), b.title) for b in self._all(Section)],
                style=Markup(asset("report.css")),
                script=Markup(asset("report.js")),
                version=otoscope.__version__,
            )
        )

    def save(self, run: Run) -> None:
        """Write ``report.html``, each figure as SVG, PDF and CSV, each token line as CSV, into the run."""
        for figure in self._figures():
            figure.drawing.save(run)
        for line in self._all(Tokens):
            run.write(f"figures/{line.name}.csv", csv_text(token_table(line)))
        run.write("report.html", self.html())

    def _figures(self) -> Iterator[Figure]:
        if self.lead is not None:
            yield self.lead
        yield from self._all(Figure)

    def _sounds(self) -> Iterator[Sound]:
        yield from self._all(Sound)
        for block in self._all(Sounds):
            yield from block.items

    def _names(self) -> Iterator[str]:
        yield from (f.drawing.name for f in self._figures())
        yield from (t.name for t in self._all(Tokens))

    def _all(self, kind: type) -> Iterable[Any]:
        return [block for block in self.blocks if isinstance(block, kind)]


def token_table(line: Tokens) -> dict[str, list[Any]]:
    """Columns of a token line's CSV."""
    return {
        "token": [t.text for t in line.tokens],
        "start_s": [t.start for t in line.tokens],
        "end_s": [t.end for t in line.tokens],
        "value": [t.value for t in line.tokens],
        "role": [t.role for t in line.tokens],
    }


def sound_uri(clip: Clip) -> str:
    """The clip as a ``data:`` address: 16-bit FLAC, louder than full scale clipped."""
    out = io.BytesIO()
    soundfile.write(out, np.clip(clip.samples, -1, 1), clip.rate, format="FLAC", subtype="PCM_16")
    return _data_uri("audio/flac", out.getvalue())


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def asset(name: str) -> str:
    """A file of the templates, as text."""
    return resources.files("otoscope.report").joinpath("templates", name).read_text(encoding="utf-8")


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "section"


def number(value: Any) -> str:
    """For reading: 4 significant digits, a real minus sign, an en dash for nothing."""
    if value is None or (isinstance(value, float | np.floating) and not math.isfinite(value)):
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        text = (
            f"{value:.4g}" if abs(value) >= 1 else f"{value:.3f}".rstrip("0").rstrip(".") if abs(value) > 5e-4 else ""
        )
        return (text or f"{value:.2g}").replace("-", "−")
    return str(value)


def bounds(interval: tuple[float, float] | None) -> str:
    """``[low, high]`` for reading; empty where there is no interval."""
    if interval is None:
        return ""
    return f"[{number(interval[0])}, {number(interval[1])}]"


def _token_style(value: float | None, limit: float) -> str:
    """Strength of a token's tint, 0 to 60%: the text on it stays readable."""
    if value is None or math.isnan(value):
        return "--tint: 0%"
    return f"--tint: {min(1.0, abs(value) / limit) * 60:.0f}%"


def _controls_of(claim: Claim) -> list[tuple[str, Any, str]]:
    marks = {True: "✓", False: "✕", None: "?"}
    return [(name, c, marks[c.holds] if c.expect is not None else "") for name, c in claim.controls.items()]


def _version_list(info: dict[str, Any]) -> str:
    return " · ".join(f"{name} {version}" for name, version in info.get("versions", {}).items())


def environment() -> jinja2.Environment:
    """Where the templates are found, with what they may call; everything they print is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("otoscope.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, bounds=bounds, slug=_slug, versions=_version_list)
    environment.globals.update(
        symbols=_SYMBOLS,
        small=_SMALL,
        sound_uri=sound_uri,
        waveform=lambda sound: waveform(f"wave-{sound.id}", sound.clip, sound.span),
        csv_uri=lambda text: _data_uri("text/csv;charset=utf-8", text.encode()),
        csv_text=csv_text,
        token_table=token_table,
        token_style=_token_style,
        limit_of=lambda line: symmetric_limit([t.value for t in line.tokens if t.value is not None], line.limit),
        controls_of=_controls_of,
        rows_of=lambda columns: list(zip(*columns.values())),
        is_number=lambda v: isinstance(v, int | float | np.number) and not isinstance(v, bool),
    )
    return environment
