"""Turning a feature up: a planted feature has its effect where random directions have none, and errors are counted right."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from otoscope.engine.model import Model
from otoscope.errors import ModelError, RunError
from otoscope.sae.dictionary import Dictionary
from otoscope.sae.registry import build
from otoscope.studies.sae_steer import SteerConfig, _tables, steer_study
from tests import tiny

SITE = "encoder.1.resid_post"


class Words:
    """Writes a token as a word."""

    all_special_ids = (0, 1, 2, 3)

    def decode(self, ids, skip_special_tokens=True, **_) -> str:
        return " ".join(f"w{int(i)}" for i in ids if i > 3)

    def __call__(self, text, **_):
        return SimpleNamespace(input_ids=[])


@pytest.fixture(scope="module")
def model() -> Model:
    made = tiny.build("whisper")
    made.adapter.tokenizer = Words()
    return made


def dictionary() -> Dictionary:
    made = build({"architecture": "topk", "d": 24, "n_features": 32, "k": 3}, torch.Generator().manual_seed(0))
    made.metadata = {"model_name": "tiny", "hook_name": SITE}
    return made


def test_a_run_says_what_each_strength_writes(model, tmp_path) -> None:
    clips = [tiny.sound(i).replace(text="w5 w6", speaker=f"s{i}") for i in range(3)]
    config = SteerConfig((0.5, 8.0), controls=2, max_new_tokens=6)
    done = steer_study(dictionary(), 4, clips, config, model=model, out=tmp_path / "run")
    assert [row["strength"] for row in done.curve] == [0.0, 0.5, 8.0]
    assert len(done.transcripts) == 9
    plain = [Words().decode(model.generate(model.inputs(c), max_new_tokens=6)[0]) for c in clips]
    assert [row["text"] for row in done.transcripts[:3]] == plain
    assert done.results["metrics"]["effect.0"] == 0
    assert set(done.results["intervals"]) >= {"wer.0.5", "effect.8", "random_effect.8"}
    assert (tmp_path / "run/tables/curve.csv").is_file()
    again = steer_study(dictionary(), 4, clips, config, model=model, out=tmp_path / "run")
    assert again == done


def test_the_curve_tells_a_feature_from_random_directions() -> None:
    """Planted transcripts: the feature writes "thank" and costs one word of four, random directions change nothing."""
    clips = [tiny.sound(i).replace(text="one big red dog", speaker=f"s{i}") for i in range(4)]
    same = "one big red dog"
    texts = [[same, "thank big red dog", same, same] for _ in clips]
    config = SteerConfig((1.0,), target=("Thank",), controls=2)
    _, curve = _tables(clips, texts, config, english=True)
    found = {name: [row[name].value for row in curve] for name in ("effect", "random_effect", "wer", "random_wer")}
    assert found == {"effect": [0, 1], "random_effect": [0, 0], "wer": [0, 0.25], "random_wer": [0, 0]}


def test_without_references_there_is_no_wer() -> None:
    clips = [tiny.sound(i) for i in range(2)]
    rows, curve = _tables(clips, [["a", "b b", "a"], ["", "", ""]], SteerConfig((1.0,), controls=1), english=True)
    assert all(row["wer"] is None for row in (*rows, *curve))
    assert [row["effect"] for row in rows] == [0, 0, 2, 0]


def test_what_cannot_be_steered_is_said(model) -> None:
    with pytest.raises(ModelError, match="no feature 99"):
        steer_study(dictionary(), 99, [tiny.sound(0)], model=model)
    with pytest.raises(RunError, match="strengths other than 0"):
        SteerConfig((0.0,))
    with pytest.raises(RunError, match="one random direction"):
        SteerConfig((1.0,), controls=0)
