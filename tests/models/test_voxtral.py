"""What only Voxtral has: four frames side by side in the connector, and audio positions for the whole window."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import soundfile
import torch

from otoscope.engine.intervene import scale
from otoscope.errors import ModelError, SiteError
from tests.tiny import build, pair, sound


def test_every_sound_takes_the_whole_window_and_the_clock_says_what_is_sound():
    model = build("voxtral")
    for n_samples, valid in ((1600, 1), (4000, 3), (15360, 12)):
        assert model.adapter.audio_tokens(n_samples) == 12
        assert len(model.ask(sound(1, n_samples), "What?").groups["audio"]) == 12
        assert model.clock("connector", n_samples).n_valid in (valid, valid + 1)
    clock = model.clock("connector", 4000)
    assert clock.rate == 12.5
    assert clock.time(0) == 0.03  # amid the frames at 0, 20, 40 and 60 ms


def test_the_connector_reads_four_frames_side_by_side():
    model = build("voxtral")
    values = model.capture(pair(model)[0], "encoder.2.resid_post,connector.0.resid_pre")
    frames = model.hf.model.audio_tower.layer_norm(values["encoder.2.resid_post"])
    read = values["connector.0.resid_pre"]
    assert read.shape == (1, 12, 64)
    assert torch.allclose(read[0, 3], frames[0, 12:16].flatten(), atol=1e-6)


def test_what_the_connector_reads_is_wider_than_what_it_writes():
    model = build("voxtral")
    inputs, _ = pair(model)
    assert model.stacks["connector"].shape("resid_pre") == "[batch, frame, 64]"
    plain = model.run(inputs).logits
    changed = model.run(inputs, [scale("connector.0.resid_pre", 5.0, neurons=60)]).logits
    assert (changed - plain).abs().max() > 1e-4
    with pytest.raises(SiteError, match=r"has no neurons \[64\]: its last dimension has 64 neurons"):
        model.run(inputs, [scale("connector.0.resid_pre", 5.0, neurons=64)])


class MistralCommonBackend:
    """Stands for the tokenizer of the package mistral-common: no template, no offsets, prompts made by itself."""

    is_fast, bos_token = False, None

    def __init__(self, reader):
        self.reader, self.sounds = reader, []

    def __call__(self, text, **_options):
        return {"input_ids": self.reader(text, add_special_tokens=False).input_ids}

    def decode(self, ids):
        return self.reader.decode(ids)

    def convert_ids_to_tokens(self, token):
        return self.reader.convert_ids_to_tokens(token)

    def apply_chat_template(self, messages, return_dict):
        assert return_dict is False
        if messages[0]["role"] == "system":
            raise ValueError("system messages and audio chunks")
        *audio, text = messages[0]["content"]
        for part in audio:
            self.sounds.append(soundfile.read(io.BytesIO(base64.b64decode(part["base64"]))))
        return self.reader("<|im_start|>" + "[BEGIN_AUDIO]" * len(audio) + "[AUDIO]" * 12 * len(audio) + text["text"]
                           + "<|im_end|>").input_ids  # fmt: skip


def test_mistrals_own_tokenizer_writes_the_prompt_and_hears_the_sound():
    model = build("voxtral")
    reader = model.adapter.tokenizer = MistralCommonBackend(model.tokenizer)
    clip = sound(1)
    asked = model.ask(clip, "What word was said?", "The caption says seven.", "seven")
    assert asked.groups["audio"] == tuple(range(2, 14))
    tokens = asked.inputs.tokens[0].tolist()
    for group, words in (("context", "The caption says seven."), ("question", "What word was said?")):
        assert reader.decode([tokens[p] for p in asked.groups[group]]).strip() == words
    assert [tokens[p + 1] for p in asked.groups["answer"]] == list(model.label_tokens("seven"))
    heard, rate = reader.sounds[0]
    assert rate == 16000
    assert np.allclose(heard, clip.samples, atol=1e-6)
    assert model.ask(None, "What?").groups["audio"] == ()
    with pytest.raises(ModelError, match="mistral-common refuses this prompt for tiny-voxtral: system messages"):
        model.ask(clip, "What?", system="Be brief.")
