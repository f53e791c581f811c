"""A decoder that is given a known encoder output answers as the whole model does, without running the encoder."""

from __future__ import annotations

import pytest
import torch

from otoscope.engine.hearing import hearing
from otoscope.errors import ModelError
from otoscope.models.site import Site
from tests.tiny import build, pair


def test_the_answer_is_the_whole_model_s():
    model = build("whisper")
    clean, corrupt = pair(model)
    last = Site("encoder", model.stacks["encoder"].n_layers - 1, "resid_post")
    encoded = model.adapter.final("encoder", model.capture(clean, last)[last])
    ran = []
    handle = model.hf.model.encoder.layers[0].register_forward_hook(lambda *_: ran.append(1))
    with hearing(model.adapter, encoded):
        # whatever sound is given, what is heard is the known one
        torch.testing.assert_close(model.run(corrupt).logits, model.run(clean).logits, rtol=0, atol=0)
        heard = model.run(clean).logits
        assert not ran
    handle.remove()
    torch.testing.assert_close(heard, model.run(clean).logits)
    assert not torch.allclose(model.run(corrupt).logits, heard)


def test_a_language_model_hears_nothing():
    with (
        pytest.raises(ModelError, match="attends to no encoder"),
        hearing(build("llama").adapter, torch.zeros(1, 1, 1)),
    ):
        pass
