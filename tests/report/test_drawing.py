"""Figures are the same bytes every time, carry their numbers, and cut off no text at either width."""

import re
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.text import Text
from tests.report import sample

import otoscope
from otoscope.report import drawing as module
from otoscope.report.drawing import Drawing, symmetric_limit, two_sided_colours
from otoscope.report.effects import Bar, effects
from otoscope.report.grid import grid
from otoscope.report.lens import Line, lens
from otoscope.report.timeline import time_map, waveform
from otoscope.stats import Interval


def every_kind() -> list[Drawing]:
    null = {kind: Interval(0.0, -0.1, 0.1, 9) for kind in ("random donor", "random direction", "untrained weights")}
    long = "decoder 31 cross_attn_out, all heads, at the answer"
    layers = ["embed", *map(str, range(24))]
    clip = sample.speech("pad")
    return [
        time_map("m", clip, [sample.effect_map(), sample.effect_map()], span=sample.SPAN, until=2.4),
        time_map("phones", clip, labels=clip.phones),
        waveform("w", clip, sample.SPAN),
        effects("e", [Bar(long, Interval(0.4, 0.2, 0.6, 9), null, (0.1, 0.9)), Bar("x", Interval(-0.1, -0.2, 0, 9))],
                label="effect (share of the clean − corrupt difference restored), denoising", title=long),
        grid("g", np.eye(4, 9), list("0123"), ["<|startoftranscript|>", *"abcdefgh"], label="effect (share restored)",
             significant=np.eye(4, 9) > 0, unnatural=np.eye(4, 9) > 0, title=long),
        lens("l", [Line("pad (answer)", np.linspace(0, 1, 25), "answer"), Line("bad (foil)", np.zeros(25), "foil")],
             layers, marks={"saturation": 24, "first": 0}, title=long),
    ]  # fmt: skip


KINDS = [d.name for d in every_kind()]


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_no_text_is_cut_off(name, narrow, monkeypatch):
    drawn: list[Text] = []  # tick labels beyond the limits exist but are not drawn, so only asking is not enough
    draw = Text.draw

    def record(text, renderer, *args, **kwargs):
        drawn.append(text)
        return draw(text, renderer, *args, **kwargs)

    (one,) = [d for d in every_kind() if d.name == name]
    with mpl.rc_context(module._STYLE):
        figure = Canvas(figsize=(module.NARROW if narrow else module.WIDE, 3), layout="constrained")
        canvas = FigureCanvasAgg(figure)
        one.paint(figure, narrow)
        monkeypatch.setattr(Text, "draw", record)
        canvas.draw()
        width, height = canvas.get_width_height()
        shown = [text for text in drawn if text.get_visible() and text.get_text().strip()]
        assert len(shown) > 5
        for text in shown:
            box = text.get_window_extent()
            inside = box.x0 > -2 and box.y0 > -2 and box.x1 < width + 2 and box.y1 < height + 2
            assert inside, f"{text.get_text()!r} leaves the figure: {box}"


@pytest.mark.parametrize("name", KINDS)
def test_same_bytes_every_time(name):
    one, two = (next(d for d in every_kind() if d.name == name) for _ in range(2))
    assert one.svg() == two.svg()
    assert one.pdf() == two.pdf()
    assert one.csv() == two.csv()
    assert one.inline(True) == two.inline(True)
    assert b"CreationDate" not in one.pdf()
    assert "<dc:date>" not in one.svg()


def test_files_have_a_white_ground_and_the_page_has_none():
    one = every_kind()[1]
    assert one.svg().count('fill="#ffffff"/>') == 1
    assert "#ffffff" not in one.inline(False)[0]


def test_inline_pictures_can_share_a_page():
    """Ids differ between figures and between the two widths; inks are variables; no link leads out of the picture."""
    seen: list[str] = []
    for one in every_kind()[1:4]:
        for narrow in (False, True):
            svg = str(one.inline(narrow)[0])
            ids = re.findall(r'\bid="([^"]+)"', svg)
            seen += ids
            assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg)) <= {(i, "") for i in ids} | {
                ("", i) for i in ids
            }
            assert module.INK not in svg
            assert "var(--ink)" in svg
    assert len(seen) == len(set(seen))


def test_the_spectrogram_is_marked_for_dark_pages():
    assert f'class="{module.IMAGE}"' in every_kind()[0].inline(False)[0]


def test_text_of_strangers_cannot_leave_the_picture():
    hostile = '"><script>alert(1)</script>'
    one = effects("e", [Bar(hostile, Interval(1.0, 0.0, 2.0, 3))], label=hostile)
    assert "<script" not in one.inline(False)[0]
    assert "<script" not in one.svg()


def test_a_dollar_is_a_dollar():
    effects("e", [Bar("$5 and $\\frac", Interval(1.0, 0.0, 2.0, 3))], label="x").svg()


@pytest.mark.parametrize("name", ["", "../x", "a b", "é"])
def test_names_that_are_no_file_names_are_refused(name):
    with pytest.raises(ValueError, match="letters, digits"):
        Drawing(name, "", {}, lambda f, n: None)


def test_colours_are_symmetric_and_clear_at_zero():
    got = two_sided_colours(np.array([-2.0, -0.5, 0.0, 0.5, np.nan]), 1.0)
    np.testing.assert_allclose(got[:, 3], [1, 0.5, 0, 0.5, 0])
    assert got[0, 2] > got[0, 0]
    assert got[3, 0] > got[3, 2]
    faded = two_sided_colours(np.array([1.0]), 1.0, np.array([True]))
    assert faded[0, 3] == pytest.approx(0.35)


@pytest.mark.parametrize(
    ("values", "limit"), [([0.83, -0.2], 1.0), ([-3.4], 4.0), ([0.1], 0.1), ([np.nan], 1.0), ([0.0], 1.0), ([170], 200)]
)
def test_colour_limits_read_well(values, limit):
    assert symmetric_limit(values, None) == pytest.approx(limit)


def test_neither_torch_nor_pyplot_is_loaded():
    code = "import sys, otoscope.report.page, otoscope.report.effects, otoscope.report.grid, otoscope.report.lens; "
    code += "sys.exit(bool({'torch', 'matplotlib.pyplot'} & set(sys.modules)))"
    env = {"PYTHONPATH": str(Path(otoscope.__file__).parents[1]), "PATH": "", "HOME": str(Path.home())}
    assert subprocess.run([sys.executable, "-c", code], env=env).returncode == 0
