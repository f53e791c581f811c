"""`otoscope sae harvest`, from recordings to a dictionary trained on what they gave."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

from otoscope.audio.clip import Clip
from otoscope.audio.files import write
from otoscope.sae.store import Store
from tests.sae.corpus import write_corpus

SITE = "encoder.0.resid_post"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = write_corpus(tmp_path_factory.mktemp("sounds") / "corpus", n=6)
    write(folder / "blip.wav", Clip(np.full(100, 0.1, np.float32), 16000))
    with (folder / "manifest.tsv").open("a") as lines:
        lines.write("blip.wav\t0.01\ts9\t\t\n")
    return folder


def _shards(folder) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((folder / "shards").iterdir()) if not p.name.startswith(".")}


def test_recordings_become_a_store_and_a_store_becomes_a_dictionary(cli, model, corpus, tmp_path):
    out = tmp_path / "acts"
    command = ("sae", "harvest", corpus, "--model", model, "--site", SITE, "--out", out)
    said = cli(*command, "--json")
    assert said.code == 0, said.err
    results = json.loads(said.out)
    assert results["command"] == "sae harvest"
    assert results == json.loads((out / "results.json").read_text())
    store = Store(out)
    assert results["metrics"][f"frames.{SITE}"] == store.n_frames > 0
    assert (results["metrics"]["recordings"], results["metrics"]["skipped"]) == (6, 1)
    assert (out / "tables" / "skipped.csv").read_text().splitlines()[1].startswith("blip,")
    assert "skipped: 'blip' lasts 6 ms" in said.err

    before = _shards(out), (out / "results.json").read_bytes()
    assert cli(*command).code == 0
    assert (_shards(out), (out / "results.json").read_bytes()) == before, "the same command answers again"

    trained = cli("sae", "train", out, "--k", "3", "--width", "2x", "--steps", "4", "--batch-size", "32",
                  "--out", tmp_path / "sae", "--json")  # fmt: skip
    assert trained.code == 0, trained.err
    assert json.loads(trained.out)["metrics"]["features"] == 2 * store.d


def test_the_config_that_a_harvest_writes_back_makes_it_again(cli, model, corpus, tmp_path):
    noises = tmp_path / "noises"
    noises.mkdir()
    write(noises / "hum.wav", Clip(np.sin(np.arange(8000) / 9).astype(np.float32), 16000))
    first = cli(
        "sae", "harvest", corpus, "-m", model, "--site", "encoder.*.resid_post", "--noise", "0.6", "--noise-from", noises,
        "--snr", "5", "10", "--limit", "4", "--store-as", "float16", "--seed", "3", "--out", tmp_path / "a",
    )  # fmt: skip
    assert first.code == 0, first.err
    config = yaml.safe_load((tmp_path / "a" / "config.yaml").read_text())
    assert config["noises"] == [{"probability": 0.6, "snr_db": [5.0, 10.0], "sounds": [str(noises)]}]
    assert (config["limit"], config["store_as"], config["seed"], config["align"]) == (4, "float16", 3, False)
    second = cli("sae", "harvest", "--config", tmp_path / "a" / "config.yaml", "--out", tmp_path / "b")
    assert second.code == 0, second.err
    assert _shards(tmp_path / "a") == _shards(tmp_path / "b")
    noisy = [u.noise for u in Store(tmp_path / "a", SITE).utterances]
    assert any(n is not None and n.startswith("hum.wav at") for n in noisy)
    third = cli("sae", "harvest", "--config", tmp_path / "a" / "config.yaml", "--seed", "4", "--out", tmp_path / "a")
    assert third.code == 2
    assert "holds another run" in third.err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [(("--site", "encoder.9.resid_post"), "has no layer 9"),
     (("--site", "encoder.0.pattern"), "has a value for every pair of frames"),
     (("--site", SITE, "--store-as", "int8"), "cannot be stored as 'int8'"),
     (("--site", SITE, "--memory-gb", "0.000001"), "raise --memory-gb"),
     (("--site", SITE, "--weight", "1", "--weight", "2"), "There are 2 weights for 1 corpora"),
     (("--site", SITE, "--snr", "0", "5"), "but not how often: give --noise"),
     (("--site", SITE, "--noise", "2"), "The probability of noise is 2"),
     (("--site", SITE, "--noise", "0.5", "--noise-from", "nowhere"), "nowhere is not there"),
     (("--site", SITE, "--limit", "99"), "fewer than the limit of 99"),
     ((), "no site is named: give one")],
)  # fmt: skip
def test_bad_options_are_one_sentence(cli, model, corpus, tmp_path, options, sentence):
    said = cli("sae", "harvest", corpus, "--model", model, *options, "--out", tmp_path / "acts")
    assert said.code == 2
    assert len(said.errors) == 1, said.err
    assert sentence in said.errors[0]


def test_bad_recordings_and_configs_are_one_sentence(cli, model, corpus, tmp_path):
    def said(*arguments: object) -> str:
        found = cli("sae", "harvest", *arguments, "--model", model, "--site", SITE, "--out", tmp_path / "acts")
        assert found.code == 2
        assert len(found.errors) == 1, found.err
        return found.errors[0]

    assert "there is nothing to hear" in said()
    (tmp_path / "empty").mkdir()
    assert "holds no sound" in said(tmp_path / "empty")
    assert "nowhere" in said(tmp_path / "nowhere")
    config = tmp_path / "c.yaml"
    for text, sentence in (
        ("- 1", "holds no settings"), ("site: x", "holds 'site'"), ("a: [", "as YAML"),
        ("noises: [{loudness: 3}]", "a kind of noise holds 'loudness'"),
        ("noises: [{snr_db: [0, 5]}]", "a kind of noise cannot be used"),
    ):  # fmt: skip
        config.write_text(text)
        assert sentence in said(corpus, "--config", config)
