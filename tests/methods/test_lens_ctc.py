"""The CTC lens: closed form at the last layer, CTC's sum by brute force, planted answers, bad input."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch

import otoscope
from otoscope.errors import ModelError, TaskError
from otoscope.methods.ctc_lens import collapse, ctc_lens
from otoscope.models.inputs import Inputs
from tests import tiny

HEADS = ["wav2vec2-ctc", "hubert-ctc-pre", "wav2vec2-adapters", "wavlm-ctc"]


@pytest.mark.parametrize("family", HEADS)
def test_last_layer_is_the_models_own_answer(family: str) -> None:
    model = tiny.build(family, torch.float64)
    clip = tiny.sound(1)
    lens = ctc_lens(model, clip)
    logits = model.run(model.inputs(clip)).logits[0]
    assert lens.agreement < 1e-10
    assert np.array_equal(lens.top1[-1], logits.argmax(-1).numpy())
    assert lens.answer == lens.tokens[-1] == collapse(logits.argmax(-1).numpy(), 0)
    assert lens.blank_share[-1] == pytest.approx((logits.argmax(-1) == 0).double().mean().item())
    assert lens.times.shape == (logits.shape[0],)
    assert not np.array_equal(lens.top1[0], lens.top1[-1])


def test_log_prob_is_the_sum_over_all_alignments() -> None:
    model = tiny.build("wav2vec2-ctc", torch.float64)
    lens = ctc_lens(model, tiny.sound(1, n_samples=400), answer=(4, 4))
    state = model.capture(model.inputs(tiny.sound(1, n_samples=400)), "encoder.0.resid_post")["encoder.0.resid_post"]
    with torch.no_grad():
        p = model.hf.lm_head(state)[0].softmax(-1).numpy()
    n_frames = len(p)
    assert 3 <= n_frames <= 6, "small enough to enumerate"
    # only the blank and the answer's token can occur in an alignment of (4, 4)
    paths = [path for path in itertools.product((0, 4), repeat=n_frames) if collapse(np.array(path), 0) == (4, 4)]
    total = sum(np.prod([p[frame, token] for frame, token in enumerate(path)]) for path in paths)
    assert lens.log_prob[0] == pytest.approx(np.log(total), abs=1e-9)


def test_collapse() -> None:
    assert collapse(np.array([0, 3, 3, 0, 3, 5, 5, 0, 0]), 0) == (3, 3, 5)
    assert collapse(np.array([0, 0]), 0) == ()


@pytest.mark.parametrize("family", HEADS)
def test_planted_layer_after_which_nothing_is_written(family: str) -> None:
    """Where the residual stream is pre-LN and later layers write nothing, the lens no longer changes."""
    model = tiny.build(family, torch.float64)
    with torch.no_grad():
        for layer in list(model.adapter.trunk.encoder.layers)[1:]:  # type: ignore[attr-defined]
            for name, part in layer.named_modules():
                if name.split(".")[-1] in ("out_proj", "output_dense", "linear_2", "layer_norm", "final_layer_norm"):
                    if "norm" in name and (model.adapter.pre_norm or "adapter" in name):  # type: ignore[attr-defined]
                        continue
                    for key, parameter in part.named_parameters():
                        parameter.fill_(1.0) if "norm" in name and key == "weight" else parameter.zero_()
    lens = ctc_lens(model, tiny.sound(1))
    if model.adapter.pre_norm:  # type: ignore[attr-defined]
        assert np.array_equal(lens.top1[0], lens.top1[-1])
        assert np.allclose(lens.log_prob, lens.log_prob[0], atol=1e-9)
    else:  # a second normalisation of normalised states changes nothing either, from the first plain one on
        assert np.array_equal(lens.top1[1], lens.top1[2])
        assert lens.log_prob[1] == pytest.approx(lens.log_prob[2], abs=1e-3)


def test_planted_blank_and_token() -> None:
    """A head that always says blank, then one that always says token 6."""
    model = tiny.build("wav2vec2-ctc")
    with torch.no_grad():
        model.hf.lm_head.weight.zero_()
        model.hf.lm_head.bias.zero_()
        model.hf.lm_head.bias[0] = 20.0
    lens = ctc_lens(model, tiny.sound(1))
    assert np.all(lens.blank_share == 1)
    assert lens.answer == ()
    assert np.allclose(lens.log_prob, 0, atol=1e-3)
    with torch.no_grad():
        model.hf.lm_head.bias[0] = 0.0
        model.hf.lm_head.bias[6] = 20.0
    lens = ctc_lens(model, tiny.sound(1))
    assert np.all(lens.blank_share == 0)
    assert lens.tokens == ((6,),) * 3


def test_untrained_head_is_uniform() -> None:
    model = tiny.build("hubert-ctc-pre")
    with torch.no_grad():
        model.hf.lm_head.weight.normal_(0, 0.02)
        model.hf.lm_head.bias.zero_()
    lens = ctc_lens(model, tiny.sound(1))
    assert np.all(lens.entropy > 0.95 * np.log(11))


def test_padding_is_left_out() -> None:
    model = tiny.build("hubert-ctc-pre", torch.float64)
    short, long = tiny.sound(1, 3000), tiny.sound(2, 4000)
    padded = model.inputs([short, long]).item(0)
    assert padded.feature_mask is not None
    alone, beside = ctc_lens(model, short), ctc_lens(model, padded)
    assert beside.top1.shape == alone.top1.shape
    assert np.array_equal(beside.top1, alone.top1)
    assert np.allclose(beside.log_prob, alone.log_prob, atol=1e-6)


def test_table_and_bad_input() -> None:
    model = tiny.build("wav2vec2-ctc")
    rows = ctc_lens(model, tiny.sound(1), answer=(4, 5)).table()
    assert len(rows) == 3
    assert json.loads(json.dumps(rows)) == rows
    with pytest.raises(TaskError, match="needs at least"):
        ctc_lens(model, tiny.sound(1, 400), answer=(4,) * 10)
    with pytest.raises(TaskError, match="blank"):
        ctc_lens(model, tiny.sound(1), answer=(0, 4))
    with pytest.raises(TaskError, match="one sound at a time"):
        ctc_lens(model, Inputs.stack([model.inputs(tiny.sound(1)), model.inputs(tiny.sound(2))]))
    with pytest.raises(ModelError, match="tokenizer"):
        ctc_lens(model, tiny.sound(1), answer="yes")
    for headless in ("hubert-base", "llama", "whisper"):
        other: otoscope.Model = tiny.build(headless)
        inputs, _ = tiny.pair(other)
        with pytest.raises(ModelError, match="no CTC head"):
            ctc_lens(other, inputs)
