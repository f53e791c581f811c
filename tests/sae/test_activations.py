"""Activations equal those of a naive forward of each sound alone, without any of its padding."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from otoscope.audio.clip import Clip
from otoscope.engine.model import Model
from otoscope.errors import ModelError, RunError, SiteError
from otoscope.models.site import Site
from otoscope.sae.activations import Listener
from tests import tiny

SOUND_FAMILIES = ["whisper", "hubert-base", "wav2vec2-pre", "wavlm-pre", "wavlm-ctc"]
LENGTHS = (8000, 4000, 6001, 8000, 15999)


def _refuse(i: int, why: str) -> None:
    raise AssertionError(f"sound {i} was skipped: {why}")


def _naive(model: Model, clip: Clip, site: Site) -> torch.Tensor:
    inputs = model.inputs(clip)
    n = model.clock(site.stack, len(clip), site.layer).n_valid
    return model.capture(inputs, [site])[site][0, :n].reshape(n, -1)


@pytest.mark.parametrize("family", SOUND_FAMILIES)
def test_frames_equal_a_forward_of_the_sound_alone(family):
    model = tiny.build(family)
    clips = [tiny.sound(i, n) for i, n in enumerate(LENGTHS)]
    sites = [
        "frontend.1.conv_out", "encoder.0.resid_post", "encoder.1.z", "encoder.2.z.1", "encoder.2.attn_out",
        "encoder.2.resid_mid", "encoder.2.mlp_post", "encoder.2.mlp_post.7", "encoder.2.resid_post",
    ]  # fmt: skip
    listener = Listener(model, sites)
    for clip, heard in zip(clips, listener.hear(clips, _refuse)):
        assert heard is not None
        for site in listener.sites:
            expected = _naive(model, clip, site)
            assert heard.x[site].shape == (len(expected), listener.width(site))
            assert torch.allclose(heard.x[site], expected, atol=1e-5), site
        clock = model.clock("encoder", len(clip))
        assert np.allclose(heard.time["encoder"], [clock.time(i) for i in range(clock.n_valid)])
        assert len(heard.time["frontend.1"]) == len(heard.x[listener.sites[0]])


@pytest.mark.parametrize("point", ["resid_pre", "z", "attn_out", "resid_mid", "mlp_post", "mlp_out", "resid_post"])
def test_a_layer_of_few_frames_equals_the_whole_layer(point):
    model = tiny.build("whisper")
    clips = [tiny.sound(i, n) for i, n in enumerate(LENGTHS)]
    site = Site("encoder", 1, point)
    for clip, heard in zip(clips, Listener(model, [site]).hear(clips, _refuse)):
        assert heard is not None
        assert torch.allclose(heard.x[site], _naive(model, clip, site), atol=1e-5)


@pytest.mark.parametrize("n_samples", [320, 4000, 8000, 15999, 16000])
def test_there_is_no_frame_of_padding(n_samples):
    model = tiny.build("whisper")
    (heard,) = Listener(model, ["encoder.1.resid_post"]).hear([tiny.sound(0, n_samples)], _refuse)
    assert heard is not None
    assert len(heard.x[Site("encoder", 1, "resid_post")]) == math.ceil(n_samples / 16000 * 50)


@pytest.mark.parametrize("family", ["whisper", "hubert-base"])
def test_a_long_sound_is_heard_in_equal_pieces(family, monkeypatch):
    monkeypatch.setattr("otoscope.sae.activations.PIECE_SECONDS", 1.0)
    model, site = tiny.build(family), Site("encoder", 1, "resid_post")
    clip = tiny.sound(0, 41000)
    listener = Listener(model, [site])
    pieces = listener.pieces(len(clip))
    assert len(pieces) == 3
    assert [pieces[0].start, pieces[-1].stop] == [0, 41000]
    assert all(a.stop == b.start for a, b in zip(pieces, pieces[1:]))
    assert all(p.stop - p.start <= 16000 for p in pieces)
    (heard,) = listener.hear([clip], _refuse)
    assert heard is not None
    expected = [_naive(model, Clip(clip.samples[p], clip.rate), site) for p in pieces]
    assert torch.allclose(heard.x[site], torch.cat(expected), atol=1e-5)
    time = heard.time["encoder"]
    assert np.array_equal(time, listener.times(listener.axes[site], len(clip)))
    rate = model.clock("encoder", 16000).rate
    steps = np.diff(time) * rate
    assert np.allclose(steps, np.round(steps))  # one grid, also where two pieces meet
    assert steps.min() >= 1 - 1e-6
    if family == "whisper":
        assert np.allclose(steps, 1)


def test_pieces_of_unequal_length_come_back_in_their_order(monkeypatch):
    """Sounds of like length share a batch, so the last piece of one is heard before its others."""
    monkeypatch.setattr("otoscope.sae.activations.PIECE_SECONDS", 0.5)
    model, site = tiny.build("wav2vec2-pre"), Site("encoder", 1, "resid_post")
    clips = [tiny.sound(i, n) for i, n in enumerate((15000, 7000, 16001))]
    listener = Listener(model, [site])
    assert listener._mixes_lengths
    for clip, heard in zip(clips, listener.hear(clips, _refuse)):
        assert heard is not None
        expected = [_naive(model, Clip(clip.samples[p], clip.rate), site) for p in listener.pieces(len(clip))]
        assert torch.allclose(heard.x[site], torch.cat(expected), atol=1e-5)


def test_tokens_of_a_decoder_have_no_time():
    model = tiny.build("whisper")
    sites = ["decoder.1.resid_post", "encoder.0.resid_post"]
    (heard,) = Listener(model, sites).hear([tiny.sound(0)], _refuse)
    assert heard is not None
    tokens = heard.tokens["decoder"]
    assert tokens.tolist() == model.prompt()
    assert np.isnan(heard.time["decoder"]).all()
    expected = model.capture(model.inputs(tiny.sound(0), tokens=tokens.tolist()), sites)
    assert torch.allclose(heard.x[Site("decoder", 1, "resid_post")], expected["decoder.1.resid_post"][0], atol=1e-5)


@pytest.mark.parametrize("family", ["qwen2_audio", "voxtral", "granite_speech", "qwen2_5_omni_thinker", "glmasr"])
def test_an_audio_llm_is_asked_about_each_sound(family):
    model, sites = tiny.build(family), ["encoder.1.resid_post", "connector.0.resid_post", "decoder.2.resid_post"]
    clip = tiny.sound(0, 9600)
    listener = Listener(model, sites, question="What word was said?")
    (heard,) = listener.hear([clip], _refuse)
    assert heard is not None
    inputs = model.ask(clip, "What word was said?").inputs
    expected = model.capture(inputs, sites)
    for site in listener.sites:
        n = len(heard.x[site])
        if site.stack != "decoder":
            assert n == model.clock(site.stack, len(clip), site.layer).n_valid > 0
        else:
            assert inputs.tokens is not None
            assert heard.tokens["decoder"].tolist() == inputs.tokens[0].tolist()
        assert torch.allclose(heard.x[site], expected[site][0, :n], atol=1e-5)


@pytest.mark.parametrize("family", ["whisper", "hubert-base"])
def test_a_sound_shorter_than_a_frame_is_skipped_and_the_others_are_not(family):
    model, told = tiny.build(family), []
    clips = [tiny.sound(0, 4000), Clip(np.full(40, 0.1, np.float32), 16000, name="blip"), tiny.sound(1, 4000)]
    heard = Listener(model, ["encoder.0.resid_post"]).hear(clips, lambda *why: told.append(why))
    assert [h is None for h in heard] == [False, True, False]
    assert len(told) == 1
    assert told[0][0] == 1
    assert "shorter than one frame" in told[0][1]


def test_nan_names_the_recording():
    model = tiny.build("hubert-base")
    with torch.no_grad():
        model.hf.encoder.layers[1].feed_forward.output_dense.bias[3] = float("nan")
    Listener(model, ["encoder.0.resid_post"]).hear([tiny.sound(4)], _refuse)
    with pytest.raises(ModelError, match=r"encoder.1.resid_post of tiny-hubert is NaN or infinite for 'sound-4'"):
        Listener(model, ["encoder.1.resid_post"]).hear([tiny.sound(4)], _refuse)


def test_what_cannot_be_harvested_is_refused():
    model = tiny.build("whisper")
    with pytest.raises(SiteError, match="every pair of frames"):
        Listener(model, ["encoder.1.pattern"])
    with pytest.raises(SiteError, match="no layer 9"):
        Listener(model, ["encoder.9.resid_post"])
    with pytest.raises(RunError, match=r"do not suffice for tiny-whisper, which needs about .* raise --memory-gb"):
        Listener(model, ["encoder.1.resid_post"], memory_gb=1e-5)
    with pytest.raises(RunError, match="a memory of 0 GB holds nothing"):
        Listener(model, ["encoder.1.resid_post"], memory_gb=0)


def test_little_memory_makes_small_batches():
    model = tiny.build("whisper")
    listener = Listener(model, ["encoder.1.resid_post"])
    tight = Listener(model, ["encoder.1.resid_post"], memory_gb=2.5 * listener._bytes(16000) * 2 / 1e9)
    assert (listener.batch, tight.batch) == (8, 2)
