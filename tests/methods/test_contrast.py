"""Where the answers to two sounds part: the question, asked again, has the answer that was found."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import otoscope
from otoscope.audio.clip import Clip
from otoscope.errors import ModelError, TaskError
from otoscope.methods.contrast import contrast
from otoscope.models.transcribe import suppressed_tokens
from tests.cli.folder import save_tiny_whisper
from tests.tiny import build


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A random multilingual Whisper, which writes none of its marks, as sound ones do not."""
    made = otoscope.load(str(save_tiny_whisper(tmp_path_factory.mktemp("model"))), offline=True)
    end = made.hf.config.eos_token_id
    made.hf.generation_config.suppress_tokens += [t for t in made.tokenizer.all_special_ids if t != end]
    return made


def clip(seed: int) -> Clip:
    return Clip(0.1 * np.random.default_rng(seed).standard_normal(14400).astype(np.float32), 16000)


def best(model, sound: Clip, tokens: tuple[int, ...]) -> int:
    """The token that greedy decoding writes after others."""
    with torch.no_grad():
        logits = model.run(model.inputs(sound, tokens=tokens)).logits[0, -1]
    barred = suppressed_tokens(model.hf) or []
    if len(tokens) == len(model.prompt()):
        barred = barred + model.hf.generation_config.begin_suppress_tokens
    logits[barred] = -torch.inf
    return int(logits.argmax())


def test_both_sounds_are_read_after_the_prompt_under_which_they_were_transcribed(model):
    assert len(model.prompt()) == 4
    for seed in range(0, 8, 2):
        found = contrast(model, clip(seed), clip(seed + 1))
        assert best(model, clip(seed), found.tokens) == found.answer
        assert best(model, clip(seed + 1), found.tokens) == found.foil
        assert found.position == len(found.tokens) - 1


def test_words_that_begin_alike_cannot_be_compared(model):
    with pytest.raises(TaskError, match="'cat' and 'dog' begin with the same token"):  # it spells a space by itself
        contrast(model, clip(0), clip(1), answer="cat", foil="dog")


def test_the_same_sound_twice_and_models_that_write_nothing_are_refused(model):
    with pytest.raises(TaskError, match="for both sounds"):
        contrast(model, clip(0), clip(0))
    with pytest.raises(ModelError, match="writes no transcript"):
        contrast(build("llama"), clip(0), clip(1))
