"""The pages about features: what is in them, that they open and work in a browser, and how large they may get."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from otoscope.audio.clip import Clip, Span
from otoscope.engine.model import Model
from otoscope.errors import ModelError, RunError, SiteError
from otoscope.report.feature_site import picture_file, sound_file, window_around
from otoscope.sae.dictionary import Dictionary
from otoscope.sae.harvest import Harvest
from otoscope.sae.mixing import mixture
from otoscope.sae.recordings import find
from otoscope.sae.registry import build
from otoscope.studies.sae_view import ViewConfig
from otoscope.studies.sae_view_run import Viewed, view_study
from tests import tiny
from tests.sae.corpus import write_corpus

SITE = "encoder.1.resid_post"
SETTINGS = ViewConfig(features=8, seconds=0.5, top=3, random=2, steer=0)


def model() -> Model:
    return tiny.build("whisper")


def dictionary(n_features: int = 48) -> Dictionary:
    made = build({"architecture": "topk", "d": 24, "n_features": n_features, "k": 3}, torch.Generator().manual_seed(0))
    made.metadata = {"model_name": "tiny", "hook_name": SITE}
    return made


def clips(n: int = 6) -> list[Clip]:
    made = []
    for i in range(n):
        phones = [Span(0.05, 0.2, "AA"), Span(0.2, 0.35, "S</script>"), Span(0.35, 0.5, "<b>T")]
        labels = {"sound": "dog" if i % 2 else "cat", "take": str(i)}
        words = [Span(0.05, 0.35, "ass"), Span(0.35, 0.5, "tea")]
        made.append(tiny.sound(i, 11000 + 700 * i).replace(phones=phones, words=words, labels=labels, speaker=f"s{i}"))
    return made


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> tuple[Path, Viewed]:
    out = tmp_path_factory.mktemp("view") / "run"
    return out, view_study(dictionary(), clips(), out, SETTINGS, model=model())


def data_of(folder: Path) -> dict:
    page = (folder / "index.html").read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found
    return json.loads(found[1])


def test_every_feature_is_listed_and_some_have_pages(site) -> None:
    folder, done = site
    data = data_of(folder)
    assert [f["feature"] for f in data["features"]] == list(range(48))
    pages = {f["feature"] for f in data["features"] if f["page"]}
    assert pages == {int(p.stem) for p in (folder / "features").glob("*.html")}
    assert len(pages) == done.results["metrics"]["pages"] == 8
    # "take" names each recording and is no class; the speaker likewise
    assert data["kinds"] == ["phone", "word", "sound"]
    assert done.results["metrics"]["l0"] == pytest.approx(3, abs=0.01)


def test_shares_are_those_of_the_frames(site) -> None:
    """The list's phones, against codes and labels that are counted plainly."""
    folder, _ = site
    heard, coded = model(), dictionary()
    active: dict[int, list[str]] = {}
    for clip in clips():
        clock = heard.clock("encoder", len(clip), 1)
        x = heard.capture(heard.inputs(clip), SITE)[SITE][0, : clock.n_valid]
        for frame, row in enumerate(coded.encode(x).detach()):
            at = clock.time(frame)
            phone = next((p.text for p in clip.phones if p.start <= at < p.end), "(none)")
            for feature in torch.nonzero(row > 0)[:, 0].tolist():
                active.setdefault(feature, []).append(phone)
    for listed in data_of(folder)["features"]:
        own = active.get(listed["feature"], [])
        for phone, share in listed["labels"][0]:
            assert share == pytest.approx(own.count(phone) / len(own), abs=1e-3)
        assert (listed["density"] > 0) == bool(own)


def test_a_page_plays_what_it_says(site) -> None:
    """The sound cut around a moment is the recording's own, at the second that the page names."""
    folder, _ = site
    own = {clip.name: clip for clip in clips()}
    page = next((folder / "features").glob("*.html")).read_text(encoding="utf-8")
    cards = re.findall(r'<article class="moment card" data-at="([\d.]+)">(.*?)</article>', page, re.S)
    assert cards
    for at, card in cards:
        name, where = re.search(r"<span>(\S+?),.*?([\d.]+) s</span>", card, re.S).groups()  # type: ignore[union-attr]
        source = re.search(r'src="\.\./(sounds/\d+-(\d+)\.mp3)#t=([\d.]+)"', card)
        assert source
        samples, rate = soundfile.read(folder / source[1], dtype="float32")
        start = int(source[2]) / 1000
        assert rate == 16000
        assert len(samples) == pytest.approx(0.5 * rate, abs=16)
        assert start + float(at) == pytest.approx(float(where), abs=0.006)
        assert float(source[3]) == pytest.approx(max(0.0, float(at) - 0.25), abs=2e-3)
        original = own[name].samples[round(start * rate) :][: len(samples)]
        assert np.corrcoef(original, samples)[0, 1] > 0.8  # MP3 loses some of the noise, not the time
        assert (folder / source[1].replace("sounds", "pictures").replace("mp3", "webp")).stat().st_size > 100


def test_labels_cannot_become_markup(site) -> None:
    folder, _ = site
    for page in [folder / "index.html", *(folder / "features").glob("*.html")]:
        text = page.read_text(encoding="utf-8")
        assert "<b>T" not in text
        assert text.count("</script>") == text.count("<script")


def test_the_site_stays_below_its_limit(tmp_path) -> None:
    limit = 0.45
    config = ViewConfig(features=8, seconds=0.5, top=3, random=2, steer=0, max_mb=limit)
    done = view_study(dictionary(), clips(), tmp_path / "run", config, model=model())
    size = sum(
        p.stat().st_size for name in ("features", "sounds", "pictures") for p in (tmp_path / "run" / name).iterdir()
    )
    size += sum(
        (tmp_path / "run" / name).stat().st_size for name in ("index.html", "style.css", "player.js", "list.js")
    )
    assert size == done.results["metrics"]["bytes"] <= limit * 1e6
    assert 1 <= done.results["metrics"]["pages"] < 8
    assert "would make the site larger than 0.45 MB" in (tmp_path / "run" / "index.html").read_text()


def test_steering_stands_beside_random_directions(tmp_path) -> None:
    writer = model()
    writer.adapter.tokenizer = Letters()
    config = ViewConfig(chosen=(3, 4), seconds=0.5, top=1, random=0, steer=1, strengths=(0.0, 8.0), controls=2)
    view_study(dictionary(), clips(3), tmp_path / "run", config, model=writer)
    steered = (tmp_path / "run/features/3.html").read_text()
    rows = re.findall(
        r'<th scope="row" class="num">([\d.]+)</th><td class="num">(\S+?)</td><td class="num">(\S+?)</td>', steered
    )
    assert [row[0] for row in rows] == ["0", "8"]
    assert rows[0][1:] == ("0", "0")  # nothing added, nothing changed
    assert max(float(rows[1][1]), float(rows[1][2])) > 0  # a push of eight spreads breaks something
    assert "Not computed for this feature" in (tmp_path / "run/features/4.html").read_text()


class Letters:
    """Writes a token as a word of letters."""

    all_special_ids = (0, 1, 2, 3)

    def decode(self, ids, skip_special_tokens=True, **_) -> str:
        return " ".join("w" + chr(97 + i % 26) + chr(97 + i // 26) for i in map(int, ids) if i > 3)

    def __call__(self, text, **_):
        return SimpleNamespace(input_ids=[])


def test_a_store_shows_what_its_recordings_show(tmp_path) -> None:
    """Harvested and heard anew, a corpus with phones, words and a long recording gives the same list."""
    corpus, heard = write_corpus(tmp_path / "corpus", 9), model()
    Harvest(heard, mixture([find(corpus)]), [SITE], tmp_path / "store").run()
    config = ViewConfig(features=4, seconds=0.5, top=2, random=1, steer=0)
    lists = []
    for name, sounds in (("stored", tmp_path / "store"), ("heard", corpus)):
        view_study(dictionary(), [sounds], tmp_path / name, config, model=heard, align=False)
        data = data_of(tmp_path / name)
        lists.append({
            f["feature"]: [f["density"], f["strongest"], dict(zip(data["kinds"], map(dict, f["labels"])))]
            for f in data["features"]
        })  # fmt: skip
        page = next((tmp_path / name / "features").glob("*.html")).read_text()
        assert 'class="spans"' in page
    stored, anew = lists
    assert stored.keys() == anew.keys()
    for feature, (density, strongest, labels) in stored.items():
        assert anew[feature][:2] == pytest.approx([density, strongest], rel=1e-3, abs=1e-6)
        # which of several labels stand in the list is chance where they tie
        for kind, shares in labels.items():
            for label in shares.keys() & anew[feature][2][kind].keys():
                assert anew[feature][2][kind][label] == pytest.approx(shares[label], abs=2e-3)
        assert labels.keys() == anew[feature][2].keys() >= {"phone", "word"}


def test_what_cannot_be_viewed_is_said(tmp_path) -> None:
    with pytest.raises(SiteError, match="are tokens"):
        view_study(dictionary(), clips(2), tmp_path / "a", SETTINGS, model=model(), site="decoder.1.resid_post")
    with pytest.raises(ModelError, match="has 40 channels and the dictionary reads 24"):
        view_study(dictionary(), clips(2), tmp_path / "b", SETTINGS, model=model(), site="encoder.1.mlp_post")
    with pytest.raises(RunError, match="no feature 99"):
        view_study(dictionary(), clips(2), tmp_path / "c", ViewConfig(chosen=(99,), steer=0), model=model())
    nothing = dictionary()
    nothing.metadata = {}
    with pytest.raises(ModelError, match="does not say which model"):
        view_study(nothing, clips(2), tmp_path / "d", SETTINGS)


@pytest.mark.parametrize(("at", "duration"), [(0.1, 10.0), (5.3, 10.0), (9.99, 10.0), (1.0, 3.0), (4.1, 4.2)])
def test_a_window_holds_its_moment(at: float, duration: float) -> None:
    start, end = window_around(at, duration, 4.0)
    assert 0 <= start <= at <= end <= duration + 1e-9
    assert end - start == pytest.approx(min(4.0, duration))


def test_close_moments_share_a_window() -> None:
    starts = {window_around(at, 60.0, 4.0).start for at in np.arange(0, 60, 0.02)}
    assert len(starts) <= 60


def test_sounds_and_pictures_are_small() -> None:
    clip = tiny.sound(0, 4 * 16000)
    assert len(sound_file(clip)) + len(picture_file(clip)) < 8000 * 4
    assert picture_file(Clip(np.zeros(16000, np.float32), 16000))[:4] == b"RIFF"


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or os.environ.get("OTOSCOPE_NO_BROWSER") == "1", reason="no Chromium here"
)


def browse(address: str, profile: Path) -> str:
    """The page after its scripts have run; skipped where Chromium cannot start."""
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync --autoplay-policy=no-user-gesture-required"
    flags += " --virtual-time-budget=4000 --enable-logging=stderr --dump-dom"
    command = [str(CHROMIUM), *flags.split(), f"--user-data-dir={profile}", address]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    except subprocess.TimeoutExpired:
        pytest.skip("Chromium did not start within 90 s")
    if "<html" not in done.stdout:
        pytest.skip("Chromium could not run here")
    assert not re.search(r"CONSOLE.*(Refused|Uncaught|Error)", done.stderr), done.stderr
    return done.stdout


@needs_browser
def test_the_list_filters_and_sorts_in_a_browser(site, tmp_path) -> None:
    folder, _ = site
    page = browse(f"file://{folder}/index.html#density=alive&is-sound=dog&sort=strongest", tmp_path)
    body = page[page.index("<tbody>") : page.index("</tbody>")]
    shown = [int(n) for n in re.findall(r'<th scope="row">(?:<a[^>]*>)?(\d+)', body)]
    data = data_of(folder)
    kind = data["kinds"].index("sound")
    wanted = [f for f in data["features"] if any(n == "dog" and s >= 0.1 for n, s in f["labels"][kind])]
    assert shown == [f["feature"] for f in sorted(wanted, key=lambda f: (f["strongest"], f["feature"]))]
    assert 1 < len(shown) < 48


@needs_browser
def test_a_page_plays_from_the_moment_in_a_browser(site, tmp_path) -> None:
    """A copy of a page with a script that presses the first button and writes down where its player stands."""
    folder, _ = site
    page = next((folder / "features").glob("*.html"))
    press = """
      const button = document.querySelector(".moment button");
      const player = document.getElementById("sound-" + button.dataset.sound);
      const note = (what) => () => { document.body.dataset[what] = player.currentTime; };
      player.addEventListener("seeked", note("seeked"));
      player.addEventListener("play", note("play"));
      player.addEventListener("error", () => { document.body.dataset.broken = player.error.message; });
      addEventListener("load", () => button.click());
      // the browser's clock is virtual and runs ahead of the decoder, which takes real time: work until it has answered
      const wait = () => {
        if ("seeked" in document.body.dataset || "broken" in document.body.dataset) return;
        for (let i = 0, x = 0; i < 3e7; i++) x += i % 7;
        setTimeout(wait, 5);
      };
      wait();
    """
    copied, script = folder / "features" / "pressed.html", folder / "press.js"
    script.write_text(press)
    copied.write_text(page.read_text().replace("</body>", '<script src="../press.js"></script></body>'))
    try:
        seen = browse(f"file://{copied}", tmp_path)
    finally:
        copied.unlink()
        script.unlink()
    assert "data-broken" not in seen
    wanted = float(re.search(r'<button[^>]*data-from="([\d.]+)"', seen)[1])  # type: ignore[index]
    played = re.search(r'<body[^>]*data-seeked="([\d.e-]+)"', seen)
    assert played, "the button started nothing"
    assert float(played[1]) == pytest.approx(wanted, abs=0.05)
