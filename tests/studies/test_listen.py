"""The listening study on a tiny random model: every part runs, resumes, and claims nothing that untrained weights lack."""

from __future__ import annotations

import json

import numpy as np
import pytest

from otoscope.audio.clip import Clip
from otoscope.errors import ModelError, TaskError
from otoscope.runs.files import plain
from otoscope.stats import Interval
from otoscope.studies.listen import ListenConfig
from otoscope.studies.listen_dial import summarise
from otoscope.studies.listen_models import Compared, compared
from otoscope.studies.listen_run import listen, task_of
from otoscope.tasks.conflict import ConflictTask
from tests.tiny import build

LABELS = ("a", "b", "c")


def task(n=6):
    rng = np.random.default_rng(0)
    clips = [
        Clip(
            0.2 * rng.standard_normal(8000).astype(np.float32),
            16000,
            labels={"label": label},
            speaker=f"s{i}",
            name=label,
        )
        for i in range(6)
        for label in LABELS
    ]
    return ConflictTask.from_clips(clips, "What was said?", labels=LABELS, n=n, licence="noise, free of rights")


@pytest.fixture(scope="module")
def model():
    return build("qwen2_audio")


@pytest.fixture(scope="module")
def done(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("listen")
    config = ListenConfig(n=6, das_layers=0)
    return listen(model, task(), config=config, out=folder / "run"), folder / "run"


def test_results_hold_the_names_that_others_rely_on(done):
    metrics = done[0].results["metrics"]
    assert {"gc.tiny-qwen2_audio", "listen_rate.tiny-qwen2_audio", "flip_rate_before", "flip_rate_after"} <= set(
        metrics
    )
    assert json.loads((done[1] / "results.json").read_text())["metrics"] == metrics


def test_untrained_weights_have_no_listen_layer(done):
    setting = done[0].found.settings["tiny-qwen2_audio"]
    assert setting.layer.layer is None
    assert setting.layer.reason


def test_the_same_input_on_both_sides_has_no_coefficient(done):
    claim = next(c for c in done[0].results["claims"] if c["id"] == "null")
    assert claim["value"] == 0
    assert claim["verdict"] == "supported"


def test_the_report_and_tables_are_there(done):
    page = (done[1] / "report.html").read_text()
    assert "does it guess?" in page
    for name in (
        "gc.tiny-qwen2_audio",
        "listen_layer.tiny-qwen2_audio",
        "items.tiny-qwen2_audio",
        "heads",
        "audio_lens",
    ):
        assert (done[1] / "tables" / f"{name}.csv").is_file(), name


def test_a_second_call_computes_nothing_and_finds_the_same(done, model, monkeypatch):
    from otoscope.methods import grounding_sweep

    monkeypatch.setattr(grounding_sweep, "sweep_labels", lambda *a, **k: pytest.fail("computed again"))
    again = listen(model, task(), config=ListenConfig(n=6, das_layers=0), out=done[1])
    assert again.results == done[0].results


def test_without_a_folder_the_numbers_are_the_same(done, model):
    config = ListenConfig(n=6, das_layers=0)
    assert plain(listen(model, task(), config=config).results["metrics"]) == done[0].results["metrics"]


def test_what_cannot_be_asked_is_refused():
    with pytest.raises(ModelError, match="cannot be asked about a sound"):
        compared(build("llama"))
    with pytest.raises(TaskError, match="neither a task nor a manifest"):
        task_of("nonsense", ListenConfig())


def test_a_model_without_twins_has_no_dial(model):
    with pytest.raises(ModelError, match="has no dial"):
        Compared(model, {"one": {}}, None).choose(listener=1.0)


class TestDialTruth:
    """From planted answers and effects to what is said of them."""

    shares = (0.0, 0.25, 0.5, 0.75, 1.0)
    units = [f"item {i}" for i in range(40)]

    def effects(self, noise=0.0):
        rng = np.random.default_rng(1)
        audio = np.array([[s * 4.0] * 40 for s in self.shares]) + noise * rng.standard_normal((5, 40))
        text = np.array([[(1 - s) * 4.0] * 40 for s in self.shares]) + noise * rng.standard_normal((5, 40))
        heard = (np.linspace(0.01, 0.99, 40)[None] < np.array(self.shares)[:, None]).astype(float)
        return heard, audio, text

    def test_a_coefficient_that_is_the_share_is_found_to_be(self):
        truth = summarise(self.shares, *self.effects(), self.units)
        assert truth.rho.value == pytest.approx(1.0)
        assert truth.calibration.value < 0.02
        assert [g.value for g in truth.gc] == pytest.approx(list(self.shares), abs=1e-9)

    def test_effects_that_know_nothing_of_the_share_order_nothing(self):
        heard, audio, text = self.effects(noise=0.5)
        order = [2, 0, 4, 1, 3]  # a permutation whose rank correlation with the true order is 0.1
        truth = summarise(self.shares, heard, audio[order], text[order], self.units)
        assert abs(truth.rho.value) < 0.5
        assert isinstance(truth.rho, Interval)
        assert truth.calibration.value > 0.2
