"""What only Qwen2.5-Omni's tower has: chunks, packed items, no padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.tiny import build, sound


@pytest.fixture
def model():
    return build("qwen2_5_omni_thinker")


def heard(model, *clips):
    n = model.adapter.audio_tokens(len(clips[0].samples))
    return model.inputs(list(clips), tokens=[5, *[model.adapter.audio_token] * n, 6])


def test_attention_stays_within_chunks(model):
    pattern = model.capture(heard(model, sound(1)), "encoder.0.pattern")["encoder.0.pattern"][0]
    frames = torch.arange(pattern.shape[-1])
    other = frames[:, None] // 5 != frames // 5  # five frames a chunk
    assert (pattern[:, other] == 0).all()
    assert (pattern[:, ~other] > 0).all()


@pytest.mark.parametrize("n_samples", [800, 1600, 1601, 4000, 4321, 15999, 16000])
def test_frames_are_those_of_the_sound_alone(model, n_samples):
    values = model.capture(heard(model, sound(1, n_samples)), "*")
    for stack, layer, point in (("frontend", 0, "conv_out"), ("frontend", 1, "conv_out"), ("encoder", 2, "resid_post"),
                                ("connector", 0, "resid_post")):  # fmt: skip
        clock = model.clock(stack, n_samples, layer)
        assert values[f"{stack}.{layer}.{point}"].shape[1] == clock.n_frames
        assert 0 < clock.n_valid <= clock.n_frames
        assert stack == "frontend" or clock.n_valid == clock.n_frames


@pytest.mark.parametrize("n_samples", [800, 4000, 4321, 15999, 16000])
def test_the_spectrogram_is_that_of_the_extractors_whole_window(model, n_samples):
    clip = sound(1, n_samples)
    whole = model.feature_extractor(
        [np.pad(clip.samples, (0, 64000 - n_samples))], sampling_rate=16000, padding="max_length", max_length=64000,
        return_tensors="pt",
    ).input_features  # fmt: skip
    mel = model.adapter.features([clip]).features
    assert mel.shape[-1] == -(-n_samples // 160)
    assert torch.allclose(mel, whole[..., : mel.shape[-1]], atol=1e-5)


def test_items_of_a_batch_are_told_apart(model):
    clips = [sound(1), sound(2), sound(3)]
    together = model.capture(heard(model, *clips), "*")
    for i, clip in enumerate(clips):
        alone = model.capture(heard(model, clip), "*")
        for site in alone:
            assert (together[site][i] - alone[site][0]).abs().max() < 1e-4, site


def test_tapped_patterns_change_no_number_beyond_rounding(model):
    inputs = heard(model, sound(1), sound(2))
    plain = model.run(inputs).logits
    assert (model.run(inputs, capture_sites="encoder.*.pattern").logits - plain).abs().max() < 1e-4
