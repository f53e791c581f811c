"""`otoscope sae train`, `import` and `publish`, from recordings to a folder for the Hub."""

from __future__ import annotations

import json

import pytest
import torch
import yaml

import otoscope
from otoscope.sae.formats import load
from otoscope.sae.harvest import Harvest
from otoscope.sae.mixing import Mixture
from otoscope.sae.recordings import find
from otoscope.sae.store import Store

SITE = "encoder.0.resid_post"
FEW = (
    "--steps",
    "6",
    "--batch-size",
    "32",
    "--set",
    "warmup=2",
    "--set",
    "log_every=2",
    "--set",
    "normalise_batches=2",
)


@pytest.fixture(scope="module")
def store(model, tmp_path_factory):
    """Activations of a random Whisper over four noises."""
    import numpy as np

    from otoscope.audio.clip import Clip
    from otoscope.audio.files import write

    folder = tmp_path_factory.mktemp("sounds")
    for seed in range(4):
        samples = 0.1 * np.random.default_rng(seed).standard_normal(12000).astype(np.float32)
        write(folder / f"{seed}.wav", Clip(samples, 16000))
    out = tmp_path_factory.mktemp("store") / "acts"
    Harvest(otoscope.load(str(model)), Mixture(tuple(find([folder]))), [SITE], out).run()
    return out


def test_a_store_becomes_a_dictionary_that_can_be_used_and_published(cli, store, tmp_path):
    said = cli(
        "sae", "train", store, "--arch", "topk", "--width", "4x", "--k", "3", *FEW, "--out", tmp_path / "run", "--json"
    )
    assert said.code == 0, said.err
    results = json.loads(said.out)
    assert results["command"] == "sae train"
    assert results == json.loads((tmp_path / "run" / "results.json").read_text())
    assert {"fvu", "l0", "alive", "loss", "features"} <= set(results["metrics"])
    assert results["metrics"]["l0"] <= 3

    made, source = load(tmp_path / "run"), Store(store)
    assert made.config.n_features == 4 * source.d
    assert made.metadata["hook_name"] == SITE
    assert made.metadata["sampling_rate"] == 16000
    assert made.metadata["frame_rate"] == source.frame_rate
    x = source.frames(0).x
    with torch.no_grad():
        left = (x - made(x)).square().sum() / (x - x.mean(0)).square().sum()
    assert left < 1, "it reads activations as they are, normalisation folded in"

    said = cli("sae", "publish", tmp_path / "run", "--out", tmp_path / "hub", "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["address"] is None
    assert torch.equal(load(tmp_path / "hub" / SITE).encode(x), made.encode(x))
    said = cli("sae", "import", tmp_path / "hub" / SITE, "--out", tmp_path / "again", "--model", "named")
    assert said.code == 0, said.err
    assert load(tmp_path / "again").metadata["model_name"] == "named"


def test_the_config_that_a_run_writes_back_is_complete(cli, store, tmp_path):
    first = cli("sae", "train", store, "--arch", "temporal", "--width", "48", "--k", "3", *FEW, "--set", "groups=[0.25, 0.75]",
                "--set", "alpha=1e-1", "--seed", "3", "--out", tmp_path / "a")  # fmt: skip
    assert first.code == 0, first.err
    config = tmp_path / "a" / "config.yaml"
    known = yaml.safe_load(config.read_text())
    assert known["settings"]["groups"] == [0.25, 0.75]
    assert known["settings"]["alpha"] == 0.1
    assert known["training"]["lr"] == 3e-4
    assert known["width"] == 48
    assert known["site"] == SITE
    second = cli("sae", "train", store, "--config", config, "--out", tmp_path / "b")
    assert second.code == 0, second.err
    a, b = load(tmp_path / "a"), load(tmp_path / "b")
    assert torch.equal(a.encoder, b.encoder)
    assert (tmp_path / "a" / "results.json").read_bytes() == (tmp_path / "b" / "results.json").read_bytes()


def test_a_finished_run_answers_again_and_another_one_is_refused(cli, store, tmp_path):
    command = ("sae", "train", store, "--k", "3", *FEW, "--out", tmp_path / "run")
    assert cli(*command).code == 0
    before = (tmp_path / "run" / "results.json").read_bytes()
    assert cli(*command).code == 0
    assert (tmp_path / "run" / "results.json").read_bytes() == before
    said = cli(*command, "--set", "alpha=1")
    assert said.code == 2
    assert "a training of topk has no setting 'alpha'" in said.err
    said = cli("sae", "train", store, "--k", "4", *FEW, "--out", tmp_path / "run")
    assert said.code == 2
    assert "holds another run" in said.err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [(("--arch", "gated"), "there is no architecture 'gated'"),
     (("--width", "wide"), "a width is a number of features or a multiple such as 8x, not 'wide'"),
     (("--site", "decoder.0.mlp_out"), "does not hold 'decoder.0.mlp_out'"),
     (("--k", "100000"), "k = 100000 features of"),
     (("--set", "lr"), "--set lr names no value"),
     (("--set", "lr=fast"), "lr of a training is a number, not 'fast'"),
     (("--set", "steps=2.5"), "steps of a training is a whole number, not 2.5"),
     (("--set", "betas=2"), "settings of the training cannot be used"),
     (("--arch", "standard", "--k", "3"), "a training of standard has no setting 'k'")],
)  # fmt: skip
def test_bad_options_are_one_sentence(cli, store, tmp_path, options, sentence):
    said = cli("sae", "train", store, *options, *FEW)
    assert said.code == 2
    assert len(said.errors) == 1, said.err
    assert sentence in said.errors[0]


def test_a_config_that_is_none(cli, store, tmp_path):
    path = tmp_path / "c.yaml"
    for text, sentence in (
        ("- 1", "holds no settings"),
        ("archtecture: topk", "holds 'archtecture'"),
        ("a: [", "as YAML"),
    ):
        path.write_text(text)
        said = cli("sae", "train", store, "--config", path)
        assert said.code == 2
        assert sentence in said.err
