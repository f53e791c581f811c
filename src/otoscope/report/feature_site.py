"""The pages about a dictionary's features, as files that open from disk: a list, and a page per feature.

``index.html``, ``features/NUMBER.html``, ``sounds/*.mp3``, ``pictures/*.webp``, ``style.css``, ``player.js``, ``list.js``. Sounds
are a few seconds long and lie on a grid, so that moments close to each other share one file: a recording never costs more than
about four times its own length, however many features fire in it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
import numpy as np
import soundfile
from markupsafe import Markup
from PIL import Image

import otoscope
from otoscope.audio.clip import Clip
from otoscope.report.blocks import Reproduce
from otoscope.report.features import FeaturePage, FeatureSite, Moment, Share, in_words, percent
from otoscope.report.page import asset, environment
from otoscope.report.spectrogram import log_mel
from otoscope.runs import Run

#: bytes that are set aside for each page, for each feature of the list and for style and scripts
PAGE_BYTES, ROW_BYTES, FIXED_BYTES = 90_000, 500, 60_000
#: labels of each kind in the list's data, and in its menus
_LISTED, _CHOICES = 6, 400
_MELS, _QUALITY = 64, 40


class Window(NamedTuple):
    """The part of a recording that a moment is played in: seconds from its start."""

    start: float
    end: float


def window_around(at: float, duration: float, seconds: float) -> Window:
    """The window of ``seconds`` that holds a moment near its middle, on a grid of a quarter of that.

    At the ends of the recording it is moved inwards; a shorter recording is its own window.
    """
    if duration <= seconds:
        return Window(0.0, duration)
    step = seconds / 4
    start = round((at - seconds / 2) / step) * step
    start = min(max(0.0, start), duration - seconds)
    return Window(start, start + seconds)


def sound_file(clip: Clip) -> bytes:
    """MP3 of variable rate, which every browser plays; louder than full scale is clipped."""
    # MP3 knows these rates only; Whisper's is one of them
    rate = min((8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000), key=lambda r: abs(r - clip.rate))
    clip = clip.resample(rate)
    out = io.BytesIO()
    samples = np.clip(clip.samples, -1, 1)
    soundfile.write(
        out, samples, rate, format="MP3", subtype="MPEG_LAYER_III", bitrate_mode="VARIABLE", compression_level=0.7
    )
    return out.getvalue()


def picture_file(clip: Clip) -> bytes:
    """The clip's log-mel spectrogram in grey, black the loudest, one pixel per band and 10 ms."""
    level = log_mel(clip.samples, clip.rate, _MELS).level
    low = level.min()
    grey = np.zeros(level.shape) if low == 0 else level / low
    out = io.BytesIO()
    Image.fromarray(np.round(255 * grey[::-1]).astype(np.uint8)).save(out, "WEBP", quality=_QUALITY)
    return out.getvalue()


def write_sounds(
    run: Run, pages: Sequence[FeaturePage], n_rows: int, make: Callable[[str], Clip], limit: int
) -> tuple[list[FeaturePage], int]:
    """Write the sounds and pictures of the first pages that a site of at most ``limit`` bytes has room for.

    Args:
        run: where to.
        pages: in the order in which they matter.
        n_rows: features in the list.
        make: stem -> the sound.
        limit: bytes of the whole site; room for the list and for each page's own text is set aside.

    Returns:
        those pages, and the bytes written.
    """
    used, written, have, kept = FIXED_BYTES + ROW_BYTES * n_rows, 0, set[str](), []
    for page in pages:
        files: dict[str, bytes] = {}
        for stem in dict.fromkeys(m.sound for m in (*page.top, *page.random) if m.sound not in have):
            clip = make(stem)
            files |= {f"sounds/{stem}.mp3": sound_file(clip), f"pictures/{stem}.webp": picture_file(clip)}
        size = sum(map(len, files.values()))
        used += PAGE_BYTES + size
        if used > limit:
            break
        for name, data in files.items():
            run.write(name, data)
        written += size
        have |= {m.sound for m in (*page.top, *page.random)}
        kept.append(page)
    return kept, written


def write_site(run: Run, site: FeatureSite, strength: float | None = None) -> int:
    """Write list, pages, style and scripts into the run; the sounds and pictures are there already.

    Args:
        run: where to.
        site: what to show.
        strength: largest positive steering strength, whose effect the list shows.

    Returns:
        bytes written.
    """
    env = environment()
    env.filters.update(percent=percent, curve=_curve, in_words=in_words, json=json.dumps)
    env.globals.update(site=site, version=otoscope.__version__)
    rows = {row.feature: row for row in site.rows}
    numbers = sorted(page.row.feature for page in site.pages)
    written = _write(run, {
        "style.css": asset("report.css") + asset("features.css"),
        "player.js": asset("report.js"),
        "list.js": asset("features.js"),
        "index.html": _index(env, site, strength, set(numbers)),
    })  # fmt: skip
    template = env.get_template("feature.html")
    for page in site.pages:
        at = numbers.index(page.row.feature)
        text = template.render(
            page=page, rows=rows, shown=set(numbers), before=numbers[at - 1] if at else None,
            after=numbers[at + 1] if at + 1 < len(numbers) else None,
        )  # fmt: skip
        written += _write(run, {f"features/{page.row.feature}.html": text})
    return written


def _write(run: Run, files: Mapping[str, str]) -> int:
    return sum(run.write(name, text).stat().st_size for name, text in files.items())


def _index(env: jinja2.Environment, site: FeatureSite, strength: float | None, shown: set[int]) -> str:
    columns = [("feature", "feature"), ("density", "active"), ("strongest", "largest")]
    columns += [(f"is-{kind}", kind) for kind in site.kinds] + [("effect", "steers")]
    return env.get_template("feature_list.html").render(
        columns=columns, strength=strength, data=Markup(_data(site, shown)), reproduce=Reproduce(site.info),
        choices={kind: names for kind in site.kinds if (names := _names(site, kind))},
    )  # fmt: skip


def _names(site: FeatureSite, kind: str) -> list[str]:
    """Labels to choose from; nothing for a kind with so many that only searching finds one."""
    names = sorted({s.label for row in site.rows for s in row.labels.get(kind, ()) if s.share >= 0.1})
    return names if len(names) <= _CHOICES and kind != "word" else []


def _data(site: FeatureSite, shown: set[int]) -> str:
    """What the list's script reads: JSON that cannot end its script element."""

    def own(shares: Iterable[Share]) -> list[list[Any]]:
        return [[s.label, round(s.share, 4)] for s in list(shares)[:_LISTED]]

    features = [
        {
            "feature": row.feature, "density": _short(row.density), "strongest": _short(row.strongest),
            "effect": None if row.effect is None else _short(row.effect), "page": row.feature in shown,
            "labels": [own(row.labels.get(kind, ())) for kind in site.kinds],
        }
        for row in site.rows
    ]  # fmt: skip
    text = json.dumps({"kinds": site.kinds, "features": features}, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _curve(moment: Moment, strongest: float, closed: bool) -> str:
    """SVG points of the strength over time, 1 at the bottom for 0 and 0.03 at the top for the largest."""
    top = strongest or 1.0
    points = [(t, 1 - 0.97 * min(1.0, v / top)) for t, v in moment.curve]
    if closed and points:
        points = [(points[0][0], 1.0), *points, (points[-1][0], 1.0)]
    return " ".join(f"{t:.3g},{y:.3g}" for t, y in points)
