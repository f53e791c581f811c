"""`otoscope sae eval` from recordings with phones to a run with a schema and a report."""

from __future__ import annotations

import json
from importlib.resources import files

import jsonschema
import pytest
import torch

import otoscope
from otoscope.sae.formats import saelens
from otoscope.sae.harvest import Harvest
from otoscope.sae.mixing import Mixture
from otoscope.sae.recordings import find
from otoscope.sae.registry import build
from tests.sae.corpus import write_corpus

SITE = "encoder.0.resid_post"


@pytest.fixture(scope="module")
def store(model, tmp_path_factory):
    """Activations of a random Whisper over noises with phones, words and transcripts."""
    folder = write_corpus(tmp_path_factory.mktemp("data") / "sounds", n=10)
    out = tmp_path_factory.mktemp("store") / "acts"
    Harvest(otoscope.load(str(model)), Mixture(tuple(find([folder]))), [SITE], out).run()
    return out


@pytest.fixture(scope="module")
def dictionaries(store, tmp_path_factory):
    """Two dictionaries of its width, untrained, of different seeds."""
    from otoscope.sae.store import Store

    folders = []
    for seed in (0, 1):
        described = {"architecture": "topk", "d": Store(store).d, "n_features": 64, "k": 4}
        made = build(described, torch.Generator().manual_seed(seed))
        folders.append(saelens.write(made, tmp_path_factory.mktemp("sae") / str(seed)))
    return folders


def test_a_dictionary_is_measured_beside_its_rivals(cli, store, dictionaries, tmp_path):
    out = tmp_path / "run"
    first, second = dictionaries
    asked = (
        "sae", "eval", first, store, "--also", second, "--across", second, "--across-store", store, "--quick", "--clips", "1",
        "--measure", "selectivity", "--measure", "answers", "--out", out, "--json",
    )  # fmt: skip
    said = cli(*asked)
    assert said.code == 0, said.err
    results = json.loads(said.out)
    assert results["command"] == "sae eval"
    assert results == json.loads((out / "results.json").read_text())
    names = (
        "fvu", "l0", "alive", "tcs", "probe.phone.k1", "stability", "wer_delta", "ce_recovered", "aligned", "across",
        "selectivity", "selectivity_elsewhere", "answer_accuracy", "answer_delta",
    )  # fmt: skip
    assert {*names, *(f"{name}.random" for name in names)} <= set(results["metrics"])
    assert results["metrics"]["l0"] == pytest.approx(4, abs=0.5)
    assert results["metrics"]["fvu.raw"] == 0
    assert results["metrics"]["fvu.pca"] < results["metrics"]["fvu"]  # the best 4 directions against untrained ones
    assert results["metrics"]["stability"] < 0.5
    low, high = results["intervals"]["fvu"]
    assert low <= results["metrics"]["fvu"] <= high

    bench = json.loads((out / "saebench.json").read_text())
    jsonschema.validate(bench, json.loads((files("otoscope.studies") / "sae_eval.schema.json").read_text("utf-8")))
    assert bench["measures"]["fvu"]["verdict"] == "reliable"
    assert len(bench["seeds"]) == 1
    assert len(bench["tables"]["selectivity"]) == 2 * 3  # three features of the dictionary, three of the random one
    claims = {claim["id"]: claim for claim in results["claims"]}
    assert claims["explains"]["verdict"] != "supported"  # it was never trained
    assert {"keeps_words", "keeps_answers", "comes_again", "selective"} <= set(claims)
    assert bench["claims"] == results["claims"]
    page = (out / "report.html").read_text()
    assert "Planted truth" in page
    assert "Unreliable" in page
    assert "Alignment with another model" in page
    assert (out / "tables" / "selectivity.csv").is_file()
    assert (out / "tables" / "measures.csv").is_file()

    again = cli(*asked)
    assert again.code == 0, again.err
    assert json.loads(again.out) == results


def test_what_cannot_be_asked_is_refused_in_one_sentence(cli, store, dictionaries):
    said = cli("sae", "eval", dictionaries[0], store, "--quick", "--measure", "mood")
    assert len(said.errors) == 1
    assert "no measure 'mood'" in said.err
    assert len(cli("sae", "eval", dictionaries[0], store, "--quick", "--across", dictionaries[1]).errors) == 1


def test_a_dictionary_of_another_width_is_refused_in_one_sentence(cli, store, tmp_path):
    other = saelens.write(build({"architecture": "standard", "d": 5, "n_features": 8}), tmp_path / "other")
    said = cli("sae", "eval", other, store, "--quick")
    assert said.code == 2
    assert len(said.errors) == 1
    assert "width 5" in said.err
    assert cli("sae", "eval", tmp_path / "nothing", store).errors
    assert cli("sae", "eval", other, tmp_path).errors
