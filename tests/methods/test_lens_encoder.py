"""The encoder lens: the last layer is the model itself, layers that write nothing change nothing, real weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import otoscope
from otoscope.errors import ModelError, TaskError
from otoscope.methods.encoder_lens import encoder_lens
from tests import tiny


def test_last_layer_is_the_whole_model() -> None:
    model = tiny.build("whisper", torch.float64)
    clip = tiny.sound(1)
    lens = encoder_lens(model, clip, max_new_tokens=6)
    written = model.generate(model.inputs(clip, tokens=[3]), max_new_tokens=6)[0]
    assert lens.tokens[-1] == tuple(t for t in written if t != 2)
    # teacher-forced log-probability of what it wrote and the end, by a plain forward
    scored = [*lens.tokens[-1], 2]
    logits = model.run(model.inputs(clip, tokens=[3, *scored[:-1]])).logits[0].log_softmax(-1)
    assert lens.log_prob[-1] == pytest.approx(float(sum(logits[i, t] for i, t in enumerate(scored))), abs=1e-4)
    assert lens.n_scored == len(scored)
    assert len(set(lens.log_prob.round(3))) > 1


def test_layers_that_write_nothing_change_nothing() -> None:
    """Planted: everything is heard by layer 0, so every layer reads the same and scores the same."""
    model = tiny.build("whisper", torch.float64)
    with torch.no_grad():
        for layer in list(model.hf.model.encoder.layers)[1:]:
            for part in (layer.self_attn.out_proj, layer.fc2):
                part.weight.zero_()
                part.bias.zero_()
    lens = encoder_lens(model, tiny.sound(1), max_new_tokens=6)
    assert lens.tokens[0] == lens.tokens[1] == lens.tokens[2]
    assert np.allclose(lens.log_prob, lens.log_prob[0], atol=1e-6)


def test_a_decoder_that_does_not_listen_writes_the_same_for_every_layer() -> None:
    """Null: with cross-attention cut, no layer can look better than another."""
    model = tiny.build("whisper", torch.float64)
    with torch.no_grad():
        for layer in model.hf.model.decoder.layers:
            layer.encoder_attn.out_proj.weight.zero_()
    lens = encoder_lens(model, tiny.sound(1), max_new_tokens=6)
    assert len(set(lens.tokens)) == 1
    assert np.ptp(lens.log_prob) < 1e-6


def test_table_and_bad_input() -> None:
    model = tiny.build("whisper")
    lens = encoder_lens(model, tiny.sound(1), max_new_tokens=4)
    rows = lens.table()
    assert len(rows) == 3
    assert json.loads(json.dumps(rows)) == rows
    assert rows[0]["wer"] is None
    with pytest.raises(TaskError, match=r"lasts 1\.5 s and tiny-whisper hears 1 s"):
        encoder_lens(model, tiny.sound(1, 24000))
    with pytest.raises(ModelError, match="load a Whisper"):
        encoder_lens(tiny.build("hubert-base"), tiny.sound(1))


def test_max_new_tokens_never_exceeds_the_decoder() -> None:
    model = tiny.build("whisper")
    lens = encoder_lens(model, tiny.sound(1), max_new_tokens=1000)
    assert max(map(len, lens.tokens)) <= 31


@pytest.mark.weights
@pytest.mark.data
def test_real_whisper(shared_data: Path, whisper_tiny_en: Path) -> None:
    model = otoscope.load(str(whisper_tiny_en))
    clip = otoscope.read(shared_data / "recordings/jfk.flac", 16000)
    said = "and so my fellow americans ask not what your country can do for you ask what you can do for your country"
    lens = encoder_lens(model, clip, said, max_new_tokens=40)
    assert lens.texts is not None
    assert lens.wer is not None
    assert lens.wer_to_final is not None
    assert lens.wer[-1] == 0
    assert lens.wer_to_final[-1] == 0
    assert lens.ended[-1]
    assert lens.wer[0] > 0.5, "the first layer is not yet readable by the decoder"
    assert np.all(np.diff(lens.log_prob) > 0), "the transcript becomes more likely layer by layer"
    assert "end" not in lens.texts[-1]
