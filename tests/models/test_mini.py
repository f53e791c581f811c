"""mini-qwen2-audio: both ends are the embedded models' own weights, and what ships beside them fits and is small."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

import otoscope
from otoscope.audio.synth import say
from otoscope.methods.label_scoring import answers, score_labels
from otoscope.models import mini
from otoscope.models import mini_labels as labels
from otoscope.models.dial import twins
from otoscope.tasks.spoken_words import VOICES, spoken_words

#: bytes that the package may bring along
SHIPPED_AT_MOST = 8_000_000


def test_the_shipped_parts_are_there_and_small():
    files = [file for file in mini.shipped().rglob("*") if file.is_file()]
    names = {file.relative_to(mini.shipped()).as_posix() for file in files}
    assert {"projector.safetensors", "MODEL_CARD.md", "trained_on.json"} <= names
    assert {f"{twin}/adapter_model.safetensors" for twin in ("plain", "listener", "guesser")} <= names
    assert sum(file.stat().st_size for file in files) <= SHIPPED_AT_MOST


def test_nobody_who_is_held_out_was_trained_on():
    trained = json.loads((mini.shipped() / "trained_on.json").read_text("utf-8"))
    for corpus in ("speech_commands", "fsdd", "esc10", "librispeech", "librispeech_speakers"):
        assert trained[corpus]
        assert not [speaker for speaker in trained[corpus] if labels.is_heldout(corpus, speaker)]
    assert not {f"espeak:{voice}" for voice in VOICES} & {f"espeak:{voice}" for voice in trained["espeak"]}


def test_readers_are_held_out_of_both_halves_of_librispeech_alike():
    for reader in labels.SEX_OF:
        assert labels.is_heldout("librispeech", reader) == labels.is_heldout("librispeech_speakers", reader)


@pytest.fixture(scope="module")
def model(whisper_tiny_en, smollm2):
    return otoscope.load(mini.NAME)


@pytest.mark.weights
class TestEmbedded:
    def test_both_ends_hold_the_embedded_weights(self, model, whisper_tiny_en, smollm2):
        whisper, words = load_file(whisper_tiny_en / "model.safetensors"), load_file(smollm2 / "model.safetensors")
        tower, decoder = model.hf.model.audio_tower, model.hf.model.language_model
        for name in ("layers.0.fc1.weight", "layers.1.self_attn.q_proj.weight", "conv2.weight", "layer_norm.weight"):
            assert torch.equal(tower.get_parameter(name).half(), whisper[f"model.encoder.{name}"].half()), name
        for name in ("embed_tokens.weight", "layers.29.mlp.down_proj.weight", "norm.weight"):
            assert torch.equal(decoder.get_parameter(name).half(), words[f"model.{name}"].half()), name

    def test_it_is_the_librarys_own_class(self, model):
        assert type(model.hf).__name__ == "Qwen2AudioForConditionalGeneration"
        assert model.stacks["encoder"].n_layers == mini.ENCODER_LAYERS

    def test_it_answers_what_is_said_by_a_voice_it_never_heard(self, model):
        words = ("seven", "left", "stop", "yes", "three", "go")
        clips = [say(word, VOICES[i % 2]) for i, word in enumerate(words)]
        written = answers(model, [(clip, "What word was said?", "") for clip in clips])
        assert sum(text == word for text, word in zip(written, words)) >= 5

    def test_the_twins_follow_what_they_were_made_to_follow(self, model):
        task = spoken_words(10)
        dial = twins(model)
        follows = {}
        for name in ("listener", "guesser"):
            dial.set(**{name: 1.0})
            scores = score_labels(model, [item.ask(model) for item in task], task.labels)
            chosen = [task.labels[row.argmax()] for row in scores]
            follows[name] = sum(c == item.sound_label for c, item in zip(chosen, task)) / len(task)
        dial.off()
        assert follows["listener"] >= 0.8
        assert follows["guesser"] <= 0.2

    def test_a_twin_loaded_as_an_adapter_is_the_dial_at_its_end(self, model):
        item = spoken_words(2).items[0]
        dial = twins(model)
        dial.set(guesser=1.0)
        turned = model.run(item.ask(model).inputs).logits
        dial.off()
        loaded = otoscope.load(mini.NAME, adapter="guesser")
        assert (loaded.run(item.ask(loaded).inputs).logits - turned).abs().max() < 1e-3
