"""What only Granite Speech has: a Conformer, its own spectrogram, multipliers, and a LoRA that is there for sounds."""

from __future__ import annotations

import numpy as np
import peft
import pytest
import torch
import transformers as tf
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

import otoscope
from otoscope.engine.capture import capture_until
from otoscope.models.site import Site
from tests.tiny import build, pair, sound


@pytest.fixture
def model():
    return build("granite_speech")


@pytest.mark.parametrize("n_samples", [800, 4000, 4100, 15999])
def test_the_spectrogram_is_the_librarys_recipe(model, n_samples):
    samples = sound(1, n_samples).samples
    mel = spectrogram(
        samples, window_function(400, "hann"), frame_length=400, hop_length=160, fft_length=512, power=2.0, center=True,
        mel_filters=mel_filter_bank(257, 8, 0.0, 8000.0, 16000, norm=None, mel_scale="htk"), mel_floor=1e-10,
        log_mel="log10",
    )  # fmt: skip
    expected = np.maximum(mel, mel.max() - 8.0).T / 4 + 1
    expected = expected[: len(expected) // 2 * 2].reshape(-1, 16)
    got = model.adapter.features([sound(1, n_samples)]).features[0]
    assert got.shape == expected.shape
    # the library centres its window of 400 in the 512 samples one way, torch another, where the edges are
    assert np.abs(got.numpy() - expected)[1:-1].max() < 2e-3


@pytest.mark.parametrize(("n_samples", "frames", "positions"), [(800, 3, 3), (4000, 13, 3), (16000, 50, 12)])
def test_frames_and_positions(model, n_samples, frames, positions):
    clock = model.clock("encoder", n_samples)
    assert clock.n_frames == frames
    assert model.adapter.audio_tokens(n_samples) == positions
    out = model.clock("connector", n_samples)
    assert out.rate == 10
    assert out.edges(0) == (0.0, pytest.approx(0.1))
    assert out.n_valid <= out.n_frames == positions


def test_what_leaves_the_middle_layer_is_what_the_next_one_reads(model):
    inputs = pair(model)[0]
    values = model.capture(inputs, "encoder.*.resid_pre,encoder.*.resid_post")
    for layer in range(3):
        assert torch.equal(values[f"encoder.{layer}.resid_post"], values[f"encoder.{layer + 1}.resid_pre"])
    stopped = capture_until(model.adapter, inputs, [Site("encoder", 1, "resid_post")])
    assert torch.equal(stopped["encoder.1.resid_post"], values["encoder.1.resid_post"])


def test_the_lora_of_a_checkpoint_is_in_force_for_sounds_alone(model):
    config = peft.LoraConfig(r=2, target_modules=r".*language_model.*(q_proj|v_proj)")
    plain = [build("granite_speech").run(x).logits for x in (pair(model)[0], model.ask(None, "What?").inputs)]
    model.hf.add_adapter(config)
    for name, p in model.hf.named_parameters():
        if "lora_" in name:
            p.data = torch.full_like(p, 0.2)
    heard, read = (model.run(x).logits for x in (pair(model)[0], model.ask(None, "What?").inputs))
    assert (heard - plain[0]).abs().max() > 0.01
    assert (read - plain[1]).abs().max() < 1e-6


def test_the_lora_in_a_checkpoints_folder_is_loaded_with_it(model, tmp_path):
    folder = str(tmp_path)
    build("granite_speech").hf.save_pretrained(folder)
    model.hf.add_adapter(peft.LoraConfig(r=2, target_modules=r".*language_model.*(q_proj|v_proj)"))
    for name, p in model.hf.named_parameters():
        if "lora_" in name:
            p.data = torch.full_like(p, 0.2)
    model.hf.peft_config["default"].base_model_name_or_path = folder
    tf.PreTrainedModel.save_pretrained(model.hf, folder)  # the adapter alone
    assert (tmp_path / "adapter_model.safetensors").exists()
    loaded = otoscope.load(folder, offline=True)
    inputs = pair(model)[0]
    expected = model.run(inputs).logits
    assert (loaded.run(inputs).logits - expected).abs().max() < 1e-5
    assert (build("granite_speech").run(inputs).logits - expected).abs().max() > 0.01
