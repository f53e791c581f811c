"""The page is one file, safe, accessible, the same every time, and says what the claims say."""

import base64
import io
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from importlib import resources

import numpy as np
import pytest
import soundfile
from tests.report import sample

from otoscope.audio.clip import Clip, Span
from otoscope.report.blocks import Claims, Detail, Figure, Marked, Note, Reproduce, Section, Sound, Table, Token, Tokens
from otoscope.report.page import Report, number
from otoscope.report.timeline import time_map
from otoscope.runs import Claim, Run, Threshold

BEEP = Clip(np.sin(np.arange(4000) / 5).astype(np.float32) * 0.5, 16000, text="beep", name="beep")


class Reader(HTMLParser):
    """Tags, attributes and ids of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def all(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in names]


def test_nothing_is_asked_of_any_network(page):
    reader = Reader(page)
    for tag, attributes in reader.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        for name in ("src", "href", "xlink:href", "srcset", "poster", "action", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes[name])
    style = " ".join(re.findall(r"<style>(.*?)</style>", page, re.S))
    assert "url(" not in style
    assert "@import" not in style
    policy = next(a["content"] for a in reader.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_the_sound_is_inside_and_is_the_sound(page):
    players = Reader(page).all("audio")
    assert [p["id"] for p in players] == ["sound-clean", "sound-corrupt"]
    data = base64.b64decode(players[0]["src"].removeprefix("data:audio/flac;base64,"))
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    clip = sample.speech("pad")
    assert rate == clip.rate
    np.testing.assert_allclose(samples, clip.samples, atol=2 / 32768)


def test_accessible(page):
    reader = Reader(page)
    ids = [a["id"] for _, a in reader.tags if a.get("id")]
    assert len(ids) == len(set(ids))
    assert all(a.get("aria-label") for a in reader.all("svg"))
    assert all(a.get("aria-labelledby") in ids for a in reader.all("audio"))
    assert all(a["href"][1:] in ids for a in reader.all("a") if a.get("href", "").startswith("#"))
    levels = [int(tag[1]) for tag, _ in reader.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert reader.all("html")[0]["lang"] == "en"
    for verdict in ("supported", "refuted", "inconclusive"):  # a word and a symbol, not only a colour
        assert re.search(rf'<span aria-hidden="true">[✓✕?]</span>\s+1 {verdict}', page)


def contrast(one: str, other: str) -> float:
    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1])
def test_colours_have_the_contrast_of_wcag_aa(theme):
    css = resources.files("otoscope.report").joinpath("templates/report.css").read_text()
    block = re.findall(r":root \{(.*?)\}", css, re.S)[theme]
    ink = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
    for text, grounds in {"ink": "ground page shade", "muted": "ground page", "link": "ground page", "good": "good-bg",
                          "bad": "bad-bg", "open": "open-bg", "accent": "ground"}.items():  # fmt: skip
        for ground in grounds.split():
            assert contrast(ink[text], ink[ground]) >= 4.5, (text, ground)
    for line in ("warm", "cool"):
        assert contrast(ink[line], ink["ground"]) >= 3


def hostile_report() -> Report:
    evil = '"><img src=x onerror=alert(1)><script>alert(2)</script>{{ 7 * 7 }}'
    clip = Clip(BEEP.samples, 16000, text=evil, words=(Span(0, 0.1, evil),), name=evil, speaker=evil, notices=(evil,))
    info = {"argv": evil, "run": evil, "versions": {evil: evil}, "seeds": {evil: 1}, "weights": {evil: evil},
            "config": {evil: evil}, "config_hash": evil}  # fmt: skip
    report = Report(evil, headline=evil, subtitle=evil)
    return report.add(
        Section(evil, evil),
        Note(evil),
        Sound("a", evil, clip, evil),
        Figure(time_map("m", clip), evil, evil, "a"),
        Tokens("t", [Token(evil, 0, 1, 1.0), Token(evil)], evil, evil, "a"),
        Claims([Claim(evil, evil, Threshold(">", 0), 1.0, controls={evil: 1.0}, unit=evil)]),
        Table({evil: [evil, Marked([(evil, True)])]}, evil),
        Detail("d", evil, evil, text=evil, sound="a", span=(0, 0.1), tables=[Table({evil: [evil]}, evil)]),
        Reproduce(info, [evil]),
    )


def test_text_of_strangers_stays_text():
    reader = Reader(hostile_report().html())
    assert len(reader.all("script")) == 1  # our own
    assert not reader.all("img")
    assert not any(name.startswith("on") for _, a in reader.tags for name in a)
    assert "49" not in {w.strip() for w in reader.words}


def test_same_data_same_page(tmp_path):
    def once(folder) -> bytes:
        with Run(folder, "x", argv=["otoscope", "x"]) as run:
            Report("t").add(
                Sound("a", "a", BEEP), Figure(time_map("m", BEEP), "f", sound="a"), Reproduce(run.info)
            ).save(run)
        return (folder / "report.html").read_bytes()

    assert once(tmp_path / "one") == once(tmp_path / "two")


def test_figures_and_numbers_are_in_the_run(sample_run):
    names = {p.name for p in (sample_run / "figures").iterdir()}
    drawings = {"map-encoder", "map-both", "components", "heads", "lens"}
    assert names == {f"{d}.{kind}" for d in drawings for kind in ("svg", "pdf", "csv")} | {"tokens.csv"}
    assert (sample_run / "figures" / "tokens.csv").read_text().splitlines()[3] == " pad,0.86,1.24,6.84,answer"


def test_how_to_reproduce_is_complete(page, sample_run):
    words = " ".join(Reader(page).words)
    for needed in (
        "otoscope patch --clean pad.wav",
        "1a5afae06a4db91c975c9a9d78be5cc1",
        "donor 1",
        "torch 2",
        "python 3",
    ):
        assert needed in words


def test_a_report_without_anything_is_still_a_page():
    reader = Reader(Report("empty").html())
    assert "empty" in reader.words


def test_a_detail_plays_its_span_and_marks_words():
    table = Table({"reads": [Marked([("a", False), ("bare", True)])]}, "changed")
    detail = Detail(
        "error-1", "'bare' for 'bear'", "heard wrong", "refuted", sound="a", span=(0.1, 0.2), tables=[table]
    )
    page = Report("t").add(Sound("a", "a", BEEP), detail).html()
    reader = Reader(page)
    (button,) = [b for b in reader.all("button") if b.get("data-sound") == "a"]
    assert (button["data-from"], button["data-to"]) == ("0.1", "0.2")
    assert reader.all("details")[0] == {"class": "card detail", "id": "error-1"}
    assert "<mark>bare</mark>" in page
    with pytest.raises(ValueError, match="names the sound 'a'"):
        Report("t").add(detail).html()
    with pytest.raises(ValueError, match="detail name 'error-1'"):
        Report("t").add(detail, detail)


def test_wrong_links_and_names_are_refused():
    with pytest.raises(ValueError, match="names the sound 'b'"):
        Report("t").add(Sound("a", "a", BEEP), Figure(time_map("m", BEEP), "f", sound="b")).html()
    with pytest.raises(ValueError, match="sound name 'a'"):
        Report("t").add(Sound("a", "a", BEEP), Sound("a", "again", BEEP))
    with pytest.raises(ValueError, match="figure name 'm'"):
        Report("t", lead=Figure(time_map("m", BEEP), "f")).add(Figure(time_map("m", BEEP), "f"))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.83, "0.83"), (-0.5, "−0.5"), (1234.567, "1235"), (1e-9, "1e−09"), (0.0, "0"), (None, "–"), (float("nan"), "–"),
     (7, "7"), (True, "yes"), (np.float32(0.25), "0.25"), ("a", "a")],
)  # fmt: skip
def test_numbers_for_reading(value, text):
    assert number(value) == text


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(CHROMIUM is None or os.environ.get("OTOSCOPE_NO_BROWSER") == "1", reason="no Chromium here")
def test_the_script_runs_in_a_browser(sample_run, tmp_path):
    """Chromium loads the page under its own content policy; the script has put a seek area over every time panel."""
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync --virtual-time-budget=2000 --enable-logging=stderr --dump-dom"
    command = [str(CHROMIUM), *flags.split(), f"--user-data-dir={tmp_path}", f"file://{sample_run}/report.html"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    except subprocess.TimeoutExpired:
        pytest.skip("Chromium did not start within 90 s")
    if "<html" not in done.stdout:
        pytest.skip("Chromium could not run here")
    panels = sum(len(re.findall(r'"left"', a.get("data-panels") or "")) for a in Reader(done.stdout).all("div"))
    assert done.stdout.count('class="seek"') == panels > 0
    assert not re.search(r"CONSOLE.*(Refused|Uncaught|Error)", done.stderr)
