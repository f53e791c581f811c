"""Dictionaries that come with the package: small, what was shipped, found by name, and at once of use on a user's sound."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

import otoscope.sae
from otoscope.audio.clip import Clip
from otoscope.errors import ModelError
from otoscope.sae import builtin
from otoscope.sae.builtin import BUILTIN, folder_of

NAMES = list(BUILTIN)


def test_they_are_small_and_there_are_some():
    files = [file for known in BUILTIN.values() for file in known.folder.iterdir()]
    assert len(NAMES) >= 1
    assert sum(file.stat().st_size for file in files) < 10e6


@pytest.mark.parametrize("name", NAMES)
def test_one_loads_by_its_name_and_says_what_it_reads(name):
    made = otoscope.sae.load(name)
    known = BUILTIN[name]
    assert (made.metadata["model_name"], made.metadata["hook_name"]) == (known.model, known.site)
    x = torch.randn(50, made.config.d, generator=torch.Generator().manual_seed(0))
    assert torch.isfinite(made(x)).all()
    card = (known.folder / "MODEL_CARD.md").read_text("utf-8")
    assert known.sha256 in card
    assert "CC BY 4.0" in card


def test_altered_weights_are_refused(monkeypatch):
    name = NAMES[0]
    monkeypatch.setitem(BUILTIN, name, replace(BUILTIN[name], sha256=hashlib.sha256(b"other").hexdigest()))
    with pytest.raises(ModelError, match="altered"):
        otoscope.sae.load(name)


def test_a_folder_of_that_name_comes_first_and_other_names_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / NAMES[0]).mkdir()
    with pytest.raises(ModelError, match="holds no dictionary"):
        otoscope.sae.load(NAMES[0])
    with pytest.raises(ModelError, match=NAMES[0]):
        otoscope.sae.load("no-such-dictionary")
    assert folder_of("no-such-dictionary") is None
    assert builtin.SHIPPED.startswith("weights/")  # which the wheel takes along


@pytest.mark.weights
@pytest.mark.parametrize("name", NAMES)
def test_features_of_a_users_sound_can_be_viewed_by_name(name, whisper_tiny_en, tmp_path):
    from otoscope.studies.sae_view import ViewConfig
    from otoscope.studies.sae_view_run import view_study

    t = np.arange(16000) / 16000
    sound = Clip((0.3 * np.sin(2 * np.pi * (200 + 300 * t) * t)).astype(np.float32), 16000, name="mine")
    view_study(name, [sound], tmp_path / "pages", ViewConfig(features=2, steer=0))
    assert (tmp_path / "pages" / "index.html").is_file()


@pytest.mark.weights
@pytest.mark.data
@pytest.mark.parametrize("name", NAMES)
def test_speech_comes_back_from_its_codes(name, whisper_tiny_en, shared_data):
    from otoscope.audio.files import read
    from otoscope.engine.model import load
    from otoscope.sae.activations import Listener
    from otoscope.sae.measures.reconstruction import fvu

    made = otoscope.sae.load(name)
    listener = Listener(load(str(whisper_tiny_en)), [BUILTIN[name].site])
    sound = read(sorted((shared_data / "librispeech").glob("*.flac"))[0])
    heard = listener.hear([sound.resample(16000)], lambda *_: None)[0]
    assert heard is not None
    x = next(iter(heard.x.values()))
    found = fvu(x.numpy(), made(x).detach().numpy(), np.zeros(len(x), int), n_resamples=2)
    assert found.value < 0.5
