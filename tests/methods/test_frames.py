"""Frames of recordings: padding is never counted, labels are those of the moment, the spectrogram is of the same moments."""

from __future__ import annotations

import numpy as np
import pytest

from otoscope.audio.clip import Clip, Span
from otoscope.engine.model import Model
from otoscope.errors import ModelError
from otoscope.methods.frames import MEL, frames, labels_of, mel_frames, pooled, stack_that_hears
from otoscope.models.clock import FrameClock
from tests.tiny import build, sound


@pytest.fixture(scope="module")
def model() -> Model:
    return build("whisper")


def test_mean_is_over_the_valid_frames_only(model: Model):
    clip = sound(1, 8000)  # half of the tiny model's window of a second
    site = model.sites("encoder.1.resid_post")
    found = pooled(model, [clip], site)
    whole = model.capture(model.inputs(clip), site)["encoder.1.resid_post"][0].numpy()
    n = model.clock("encoder", 8000).n_valid
    assert n < len(whole)
    assert np.allclose(found.values["encoder.1.resid_post"][0], whole[:n].mean(0), atol=1e-5)
    assert not np.allclose(whole[:n].mean(0), whole.mean(0), atol=1e-3)


@pytest.mark.parametrize("family", ["wav2vec2-ctc", "qwen2_audio"])
def test_other_families_are_read_as_well(family: str):
    model = build(family)
    clips = [sound(1), sound(2, 5000)]
    site = model.sites("encoder.2.resid_post")
    found = pooled(model, clips, site)
    whole = model.capture(model.inputs(clips[1], text="" if model.listens_and_reads else None), site)
    n = model.clock("encoder", 5000, 2).n_valid
    assert np.allclose(found.values[str(site[0])][1], whole[site[0]][0, :n].mean(0), atol=1e-5)


def test_frames_are_those_that_were_chosen(model: Model):
    clips = [sound(1, 8000), sound(2, 6000)]
    sites = model.sites("encoder.0.resid_pre") + model.sites("encoder.2.resid_post")
    found = frames(model, clips, sites, lambda i, clock: np.array([2, clock.n_valid - 1]))
    assert found.clip.tolist() == [0, 0, 1, 1]
    clock = model.clock("encoder", 6000)
    assert found.time[2:].tolist() == [clock.time(2), clock.time(clock.n_valid - 1)]
    whole = model.capture(model.inputs(clips[1]), sites)["encoder.2.resid_post"][0].numpy()
    assert np.allclose(found.values["encoder.2.resid_post"][2:], whole[[2, clock.n_valid - 1]], atol=1e-5)
    assert found.values[MEL].shape == (4, 80)


def test_label_is_that_of_the_span_around_the_frames_centre():
    clock = FrameClock(rate=50, first=0.01, n_frames=20, n_valid=6)  # centres at 10, 30, 50, ... ms
    labels = labels_of([Span(0.0, 0.02, "AA"), Span(0.02, 0.06, "B")], clock)
    assert labels.tolist() == ["AA", "B", "B", "", "", ""]


def test_spectrogram_is_that_of_the_frames_time():
    """Sound in the second half only: frames of the first half are quieter in every band that sounds."""
    t = np.arange(16000) / 16000
    clip = Clip((0.3 * np.sin(2 * np.pi * 1000 * t) * (t > 0.5)).astype(np.float32), 16000)
    mel = mel_frames(clip, FrameClock(rate=50, first=0.0, n_frames=50, n_valid=50))
    band = mel[40].argmax()
    assert mel[:22, band].max() < mel[28:48, band].min() - 0.5


def test_language_model_has_nothing_to_probe():
    with pytest.raises(ModelError, match="no encoder"):
        stack_that_hears(build("llama"))
