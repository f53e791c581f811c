"""What goes to the Hub: a folder that SAELens loads, a card with the tags, and nothing sent unless asked."""

from __future__ import annotations

import pytest
import yaml

from otoscope.errors import ModelError
from otoscope.sae import publish
from otoscope.sae.formats import load
from otoscope.sae.registry import build


@pytest.fixture
def dictionary():
    made = build({"architecture": "batchtopk", "d": 6, "n_features": 24, "k": 3})
    made.metadata = {"model_name": "whisper-tiny.en", "hook_name": "encoder.2.resid_post", "sampling_rate": 16000,
                     "frame_rate": 50.0, "training": {"step": 900.0, "fvu": 0.123456, "l0": 3.0, "dead": 0.25}}  # fmt: skip
    return made


def test_the_folder_is_complete(dictionary, tmp_path):
    publish.write_folder(dictionary, tmp_path)
    head, _, body = (tmp_path / "README.md").read_text().removeprefix("---\n").partition("---\n")
    known = yaml.safe_load(head)
    assert known["library_name"] == "saelens"
    assert {"saelens", "audio", "speech"} <= set(known["tags"])
    for line in ("whisper-tiny.en", "| features | 24 |", "| frames per second | 50.0 |", "0.1235", "| steps | 900 |"):
        assert line in body
    again = load(tmp_path / "encoder.2.resid_post")
    assert again.metadata == dictionary.metadata


def test_a_card_says_nothing_that_is_not_known(tmp_path):
    made = build({"architecture": "standard", "d": 6, "n_features": 24})
    text = publish.card(made, "name", "user/repo")
    assert "None" not in text
    assert "frames per second" not in text
    assert "FVU on" not in text
    assert 'SAE.from_pretrained("user/repo", "name")' in text


def test_nothing_is_uploaded_by_someone_who_is_not_logged_in(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(ModelError, match=r"nobody is logged in.*hf auth login"):
        publish.upload(tmp_path, "user/repo")


def test_a_refusal_of_the_hub_is_one_sentence(tmp_path, monkeypatch):
    class Refuses:
        def create_repo(self, *args, **kwargs):
            raise ValueError("Repo id must be in the form 'name'\nmore")

    monkeypatch.setattr("huggingface_hub.get_token", lambda: "token")
    monkeypatch.setattr("huggingface_hub.HfApi", Refuses)
    with pytest.raises(ModelError, match=r"the Hub did not take .* \(Repo id must be in the form 'name'\)"):
        publish.upload(tmp_path, "a b")
