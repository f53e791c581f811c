"""The lenses of one recording: tables by family, identity, report."""

from __future__ import annotations

import json

import numpy as np
import pytest

import otoscope
from otoscope.errors import ModelError, RunError, TaskError
from otoscope.methods.encoder_lens import encoder_lens
from otoscope.methods.lens import logit_lens
from otoscope.methods.timing import word_timing
from otoscope.studies import lens as study
from otoscope.studies.lens import lens_study
from tests.cli.folder import save_tiny_whisper
from tests.tiny import build, sound


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return otoscope.load(str(save_tiny_whisper(tmp_path_factory.mktemp("model"))), offline=True)


def test_the_tables_are_those_of_the_methods(model):
    clip = sound(1)
    results, tables = lens_study(clip, model, reference="the")
    assert tables["encoder_lens"] == encoder_lens(model, clip, "the").table()
    timing = word_timing(model, clip)
    assert [row["token"] for row in tables["logit_lens"]] == [t.text for t in timing.tokens]
    assert [row["word"] for row in tables["words"]] == [w.text for w in timing.words]
    tokens = [*model.prompt(), *(t.token for t in timing.tokens)]
    lens = logit_lens(model, model.inputs(clip, tokens=tokens))
    settled = lens.saturation[len(model.prompt()) - 1 : -1]
    assert [row["settled_at_layer"] for row in tables["logit_lens"]] == settled.tolist()
    n = model.stacks["decoder"].n_layers
    assert {f"layer_{i}" for i in range(n)} <= set(tables["logit_lens"][0])
    assert results["metrics"]["tokens"] == len(timing.tokens)
    assert results["metrics"]["mean_saturation_layer"] == pytest.approx(np.mean(settled))


def test_a_ctc_model_has_its_own_lens(tmp_path):
    results, tables = lens_study(sound(1), build("hubert-ctc-pre"), out=tmp_path / "run")
    assert list(tables) == ["ctc_lens"]
    assert results["metrics"] == {"layers": 3}
    page = (tmp_path / "run" / "report.html").read_text()
    assert "CTC lens" in page
    assert "<audio" in page


def test_models_without_a_lens_are_refused():
    with pytest.raises(ModelError, match="does not listen"):
        lens_study(sound(1), build("llama"))
    with pytest.raises(ModelError, match="has no CTC head"):
        lens_study(sound(1), build("hubert-base"))


def test_a_sound_longer_than_the_window_is_refused(model):
    with pytest.raises(TaskError, match=r"lasts 1\.2 s"):
        lens_study(sound(1, 20000), model)


def test_the_run_knows_dtype_and_revision_and_is_not_computed_again(model, tmp_path, monkeypatch):
    out = tmp_path / "run"
    first = lens_study(sound(1), model, out=out)
    config = json.loads((out / "run.json").read_text())["config"]
    assert config["dtype"] == "torch.float32"
    assert config["revision"] is None
    with pytest.raises(RunError, match="reference is None there, 'the' here"):
        lens_study(sound(1), model, reference="the", out=out)
    monkeypatch.setattr(study, "encoder_lens", lambda *_, **__: pytest.fail("computed again"))
    assert lens_study(sound(1), model, out=out) == first
    for name in ("encoder_lens", "words", "logit_lens"):
        assert (out / "tables" / f"{name}.csv").exists()


def test_the_report_shows_the_sound_its_tokens_and_every_table(model, tmp_path):
    _, tables = lens_study(sound(1), model, out=tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "data:audio/flac;base64," in page
    assert all(title in page for title in ("Encoder lens", "Words", "Logit lens", "Settled at"))
    assert (tmp_path / "run" / "figures" / "log-prob.pdf").exists()
    line = (tmp_path / "run" / "figures" / "tokens.csv").read_text().splitlines()
    assert len(line) == len(tables["logit_lens"]) + 1
