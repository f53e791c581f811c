"""Frame time: centres, edges, windows, padding."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from otoscope.audio.clip import Clip
from otoscope.errors import SiteError
from otoscope.models.clock import FrameClock
from tests.tiny import build

WHISPER = FrameClock(rate=50.0, first=0.0, n_frames=1500, n_valid=170)
WAV2VEC = FrameClock(rate=50.0, first=0.0125, n_frames=99, n_valid=99)


@pytest.mark.parametrize("clock", [WHISPER, WAV2VEC])
def test_a_frame_lies_between_its_edges_and_edges_meet(clock):
    for frame in (1, 7, 50):
        start, end = clock.edges(frame)
        assert start < clock.time(frame) < end
        assert end == pytest.approx(clock.edges(frame + 1)[0])
        assert list(clock.frames(start, end)) == [frame]


def test_frames_are_those_whose_centre_lies_in_the_window():
    for start, end in [(0.0, 1.0), (0.013, 0.4), (1.0, 1.02), (0.5, 0.61)]:
        expected = [f for f in range(WAV2VEC.n_frames) if start - 1e-9 <= WAV2VEC.time(f) < end - 1e-9]
        assert list(WAV2VEC.frames(start, end)) == expected


def test_a_window_between_two_centres_gets_the_nearest_frame():
    assert list(WHISPER.frames(0.1001, 0.1009)) == [5]
    assert list(WHISPER.frames(0.1181, 0.1189)) == [6]


def test_the_end_of_the_window_is_cut_at_the_last_frame():
    assert WHISPER.frames(29.9, 99.0) == range(1495, 1500)
    assert WAV2VEC.frames(0.0, 0.001) == range(0, 1)


@pytest.mark.parametrize("window", [(1.0, 1.0), (2.0, 1.0), (math.nan, 1.0), (0.0, math.inf)])
def test_an_empty_window_is_refused(window):
    with pytest.raises(SiteError, match="is empty: its end must come after its start"):
        WHISPER.frames(*window)


@pytest.mark.parametrize("window", [(30.5, 31.0), (-2.0, -1.0)])
def test_a_window_outside_is_refused_and_told_what_there_is(window):
    with pytest.raises(SiteError, match=r"lies outside the stack, which covers 0-29\.98 s"):
        WHISPER.frames(*window)


def test_windows_tile_the_valid_frames_only():
    windows = WHISPER.windows(0.1)
    assert [f for w in windows for f in w] == list(range(170))
    assert {len(w) for w in windows} == {5}
    assert [f for w in WHISPER.windows(0.7, padding=True) for f in w] == list(range(1500))
    assert [len(w) for w in WHISPER.windows(0.001)] == [1] * 170


def test_whisper_counts_the_frames_of_the_sound_and_calls_the_rest_padding():
    model = build("whisper")
    for n_samples, valid in [(1, 1), (320, 1), (321, 2), (4000, 13), (16000, 50), (99999, 50)]:
        clock = model.clock("encoder", n_samples)
        assert (clock.n_frames, clock.n_valid) == (50, valid)
        centres = [f for f in range(50) if clock.time(f) < n_samples / 16000 - 1e-12]
        assert clock.n_valid == len(centres)
    assert model.clock("frontend", 4000, layer=0).n_valid == 25
    assert model.clock("frontend", 4000) == model.clock("frontend", 4000, layer=1) == model.clock("encoder", 4000)


@pytest.mark.parametrize("family", ["hubert-base", "wavlm-pre", "wav2vec2-ctc"])
def test_wav2vec2_kin_have_as_many_frames_as_they_compute_and_none_is_padding(family):
    from tests.tiny import sound

    model = build(family)
    for n_samples in (200, 4000, 4063, 4064, 5001):
        frames = model.run(model.inputs(sound(1, n_samples))).logits.shape[1]
        clock = model.clock("encoder", n_samples)
        assert (clock.n_frames, clock.n_valid) == (frames, frames)
        # the receptive field of the last frame still lies inside the sound
        assert clock.time(frames - 1) + clock.first <= n_samples / 16000 + 1e-12


@pytest.mark.parametrize("family", ["whisper", "hubert-base", "wavlm-pre"])
def test_every_convolution_has_as_many_frames_as_its_clock_says(family):
    model = build(family)
    n = 4063
    inputs = model.inputs(Clip(np.random.default_rng(0).standard_normal(n).astype(np.float32) * 0.1, 16000))
    cache = model.capture(inputs, "frontend.*.conv_out")
    rates = []
    for site in model.sites("frontend.*.conv_out"):
        clock = model.clock("frontend", n, site.layer)
        assert clock.n_frames == cache[site].shape[1]
        assert clock.rate == model.adapter.frame_rate(site)
        rates.append(clock.rate)
    assert rates == ([100.0, 50.0] if family == "whisper" else [2000.0, 250.0])
    assert rates[-1] == model.stacks["frontend"].frame_rate == model.stacks["encoder"].frame_rate
    assert model.adapter.frame_rate(model.sites("encoder.1.z")[0]) == rates[-1]


@pytest.mark.parametrize("family", ["whisper", "wav2vec2-pre"])
@pytest.mark.parametrize("layer", [0, 1])
def test_a_frame_of_a_convolution_hears_the_sound_around_its_time(family, layer):
    # what changes when one sample does is centred on the frame of that sample's time
    model = build(family, torch.float64)
    rng = np.random.default_rng(0)
    quiet = (rng.standard_normal(8000) * 0.01).astype(np.float32)
    click = quiet.copy()
    click[4000] = 0.5
    frames = []
    for samples in (quiet, click):
        inputs = model.inputs(Clip(samples, 16000))
        frames.append(model.capture(inputs, f"frontend.{layer}.conv_out")[f"frontend.{layer}.conv_out"][0])
    moved = (frames[1] - frames[0]).norm(dim=-1)
    clock = model.clock("frontend", 8000, layer)
    centre = float((moved * torch.arange(len(moved))).sum() / moved.sum())
    assert clock.time(centre) == pytest.approx(0.25, abs=0.75 / clock.rate)


def test_an_unknown_stack_or_layer_has_no_clock():
    model = build("whisper")
    with pytest.raises(SiteError, match="no stack 'ear': it has frontend, encoder, decoder"):
        model.clock("ear", 4000)
    with pytest.raises(SiteError, match="frontend of tiny-whisper has no layer 2"):
        model.clock("frontend", 4000, layer=2)
