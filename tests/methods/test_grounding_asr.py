"""Grounding of a speech recogniser: exactness against hooks on the library's model, planted truths, one encoder pass."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers as tf

from otoscope.engine.intervene import replace_with
from otoscope.engine.model import Model
from otoscope.errors import ModelError, TaskError
from otoscope.methods import grounding_asr as asr
from otoscope.methods.grounding import Corners
from otoscope.methods.grounding_asr import grounding_asr
from otoscope.methods.listen_layer import listen_layer
from otoscope.models.prompt import Asked
from otoscope.models.whisper import WhisperAdapter
from tests import tiny
from tests.methods import planted
from tests.models.tiny_whisper import tokenizer, whisper

#: a label of two tokens, another that begins alike, and one of a single token
LABELS = [(5, 9), (5, 11), (13,)]
PREVIOUS, START = 2, 3


def asked(model: Model, sound: int, context: list[int]) -> Asked:
    """A prompt with a preceding text, as Whisper's adapter lays it out, from tokens."""
    tokens = [PREVIOUS, *context, START, 1]
    n = len(context)
    groups = {"audio": (), "context": tuple(range(1, n + 1)), "question": (n + 1,), "answer": (n + 2,)}
    return Asked(model.inputs(tiny.sound(sound), tokens=tokens), groups, "")


def corners(model: Model, index: int, same_sound: bool = False) -> Corners:
    rng = np.random.default_rng(index)
    contexts = dict(zip("ab", rng.integers(20, 50, (2, 3)).tolist()))
    sounds = {"a": 2 * index, "b": 2 * index + (not same_sound)}
    made = {s + c: asked(model, sounds[s], contexts[c]) for s in "ab" for c in "ab"}
    return Corners(**made, audio_label=LABELS[0], text_label=LABELS[1], unit=f"item {index}", others=(LABELS[2],))


@contextmanager
def hearing_from(model: Model, k: int, frames: torch.Tensor):
    """Let the decoder layers from k on attend to other frames: a hook on each layer of the library's model."""

    def hook(_module, args, kwargs):
        if "encoder_hidden_states" in kwargs:
            return args, {**kwargs, "encoder_hidden_states": frames}
        return (args[0], args[1], frames, *args[3:]), kwargs

    with ExitStack() as stack:
        for layer in model.hf.model.decoder.layers[k:]:
            handle = layer.register_forward_pre_hook(hook, with_kwargs=True)
            stack.callback(handle.remove)
        yield


def margin(model: Model, prompt: Asked, interventions=()) -> tuple[float, int]:
    """Whole-label margin of A over B, and the best option, by plain forwards of the library's model."""
    start, scores = prompt.groups["answer"][0], []
    for label in LABELS:
        inputs = prompt.inputs.with_tokens([*prompt.inputs.tokens[0].tolist(), *label])
        log_p = model.run(inputs, interventions).logits[0].log_softmax(-1)
        scores.append(sum(float(log_p[start + i, token]) for i, token in enumerate(label)))
    return scores[0] - scores[1], int(np.argmax(scores))


class TestExactness:
    """What the replay gives is what hooks on the library's model give."""

    def test_every_effect_is_that_of_hooks(self) -> None:
        model = tiny.build("whisper", torch.float64)
        items = [corners(model, i) for i in range(2)]
        found = grounding_asr(model, items)
        assert set(found.margin) == {
            f"{d}/{s}/all tokens" for d in ("noise", "denoise") for s in ("audio", "text", "after")
        }
        for i, item in enumerate(items):
            runs = {name: getattr(item, name) for name in ("ab", "bb", "aa")}
            plain = [margin(model, runs[name]) for name in ("ab", "bb", "aa")]
            assert found.corners[i] == pytest.approx([m for m, _ in plain], abs=1e-9)
            assert found.corner_answers[i].tolist() == [best for _, best in plain]
            with torch.no_grad():
                frames = {
                    s: model.hf.model.encoder(runs[c].inputs.features).last_hidden_state
                    for s, c in (("a", "aa"), ("b", "bb"))
                }
            for k in range(found.n_layers):
                for direction, base, other in (("noise", "ab", "b"), ("denoise", "bb", "a")):
                    with hearing_from(model, k, frames[other]):
                        expected, best = margin(model, runs[base])
                    name = f"{direction}/audio/all tokens"
                    assert found.margin[name][i, k] == pytest.approx(expected, abs=1e-9)
                    assert found.answer[name][i, k] == best
                site = f"decoder.{k}.resid_pre"
                for direction, base, source in (("noise", "ab", "aa"), ("denoise", "aa", "ab")):
                    states = model.capture(runs[source].inputs, site)[site]
                    at = item.ab.groups["context"]
                    expected, _ = margin(model, runs[base], [replace_with(site, states[:, list(at)], positions=at)])
                    assert found.margin[f"{direction}/text/all tokens"][i, k] == pytest.approx(expected, abs=1e-9)

    def test_positions_after_the_text_are_exchanged_with_the_answer_in_them(self) -> None:
        model = tiny.build("whisper", torch.float64)
        item = corners(model, 0)
        found = grounding_asr(model, [item], directions=("noise",))
        start, site = item.ab.groups["answer"][0], "decoder.2.resid_pre"
        scores = []
        for label in LABELS[:2]:
            base, source = (a.inputs.with_tokens([*a.inputs.tokens[0].tolist(), *label]) for a in (item.ab, item.bb))
            states = model.capture(source, site)[site]
            after = tuple(range(item.ab.groups["context"][-1] + 1, states.shape[1]))
            hook = replace_with(site, states[:, list(after)], positions=after)
            log_p = model.run(base, [hook]).logits[0].log_softmax(-1)
            scores.append(sum(float(log_p[start + i, token]) for i, token in enumerate(label)))
        assert found.margin["noise/after/all tokens"][0, 2] == pytest.approx(scores[0] - scores[1], abs=1e-9)

    def test_the_encoder_runs_once_per_item_over_both_sounds(self) -> None:
        model = tiny.build("whisper")
        seen = []
        handle = model.hf.model.encoder.register_forward_pre_hook(lambda *_: seen.append(1))
        grounding_asr(model, [corners(model, 0)], controls=("same input",))
        handle.remove()
        assert len(seen) == 1


class TestPlanted:
    """A decoder that cannot hear, and one that cannot read."""

    def test_without_cross_attention_it_guesses(self) -> None:
        model = tiny.build("whisper")
        with torch.no_grad():
            for layer in model.hf.model.decoder.layers:
                layer.encoder_attn.out_proj.weight.zero_()
        found = grounding_asr(model, following(model, "text"))
        assert found.effect("audio") == pytest.approx(0, abs=1e-5)
        assert found.summary().value == pytest.approx(0, abs=1e-5)
        assert listen_layer(found).layer is None

    def test_without_self_attention_it_listens(self) -> None:
        model = tiny.build("whisper")
        with torch.no_grad():
            for layer in model.hf.model.decoder.layers:
                layer.self_attn.out_proj.weight.zero_()
        found = grounding_asr(model, following(model, "audio"))
        assert found.effect("text") == pytest.approx(0, abs=1e-5)
        assert found.summary().value == pytest.approx(1, abs=1e-5)

    def test_a_sound_that_only_the_last_layer_hears_counts_up_to_it(self) -> None:
        model = tiny.build("whisper")
        with torch.no_grad():
            for layer in model.hf.model.decoder.layers[:-1]:
                layer.encoder_attn.out_proj.weight.zero_()
        effect = grounding_asr(model, following(model, "audio")).effect("audio", "denoise")
        assert effect == pytest.approx(effect[:, :1] * np.ones((1, 3)), abs=1e-5)

    def test_the_same_sound_gives_nan(self) -> None:
        model = tiny.build("whisper")
        found = grounding_asr(model, [corners(model, i, same_sound=True) for i in range(3)])
        assert np.isnan(found.curve().gc).all()

    def test_controls(self) -> None:
        model = tiny.build("whisper", torch.float64)
        controls = ("random donor", "random direction", "same input")
        found = grounding_asr(model, [corners(model, i) for i in range(3)], controls=controls)
        for direction in found.directions:
            for side in ("audio", "text"):
                assert found.effect(side, direction, "same input") == pytest.approx(0, abs=1e-9)
                for control in controls[:2]:
                    effect = found.effect(side, direction, control)
                    assert np.isfinite(effect).all()
                    assert np.abs(effect - found.effect(side, direction)).max() > 1e-3
            assert np.isnan(found.curve(direction, "same input").gc).all()


def following(model: Model, side: str) -> list[Corners]:
    """Items whose labels are what the model's answer turns with, so that the effect of one side is positive for each."""
    made = []
    for i in range(8):
        item = corners(model, i)
        source = item.bb if side == "audio" else item.aa
        away = model.run(item.ab.inputs).logits[0, -1] - model.run(source.inputs).logits[0, -1]
        # A is what (A, B) prefers where it listens, and B where it guesses
        order = away.argsort().tolist()
        a, b = (order[-1], order[0]) if side == "audio" else (order[0], order[-1])
        made.append(replace(item, audio_label=(a,), text_label=(b,), others=()))
    return made


class TestAdapter:
    """Prompts as Whisper's adapter writes them."""

    def test_whisper_is_asked_with_a_preceding_text(self) -> None:
        reader = tf.PreTrainedTokenizerFast(tokenizer_object=tokenizer(), unk_token="<|endoftext|>")
        extractor = tf.WhisperFeatureExtractor(feature_size=8, chunk_length=1)
        model = Model(WhisperAdapter(whisper(), "tiny", reader, extractor))
        made = {s + c: model.ask(tiny.sound(ord(s)), "", f"the {c}") for s in "ab" for c in "ab"}
        item = Corners(**made, audio_label=model.label_tokens("a"), text_label=model.label_tokens("b"), unit="x")
        found = grounding_asr(model, [item], directions=("noise",))
        assert found.margin["noise/audio/all tokens"].shape == (1, 3)
        assert found.corners[0, 0] == pytest.approx(
            sum_of(model, item.ab, item.audio_label) - sum_of(model, item.ab, item.text_label), abs=1e-4
        )


def sum_of(model: Model, prompt: Asked, label: tuple[int, ...]) -> float:
    inputs = prompt.inputs.with_tokens([*prompt.inputs.tokens[0].tolist(), *label])
    log_p = model.run(inputs).logits[0].log_softmax(-1)
    return sum(float(log_p[prompt.groups["answer"][0] + i, token]) for i, token in enumerate(label))


class TestInput:
    """Resuming and refusals."""

    def test_resuming_computes_nothing_again(self, monkeypatch) -> None:
        model = tiny.build("whisper")
        items, store, seen = [corners(model, i) for i in range(2)], {}, []

        def step(key, compute):
            if key not in store:
                store[key] = compute()
            return store[key]

        first = grounding_asr(model, items, step=step, progress=lambda *at: seen.append(at))
        assert seen == [(1, 2), (2, 2)]
        monkeypatch.setattr(asr, "_ask", lambda *_: pytest.fail("computed again"))
        again = grounding_asr(model, items, step=step)
        assert again.effect("text") == pytest.approx(first.effect("text"))

    def test_what_cannot_be_measured_is_refused(self) -> None:
        model = tiny.build("whisper")
        with pytest.raises(TaskError, match="no item"):
            grounding_asr(model, [])
        with pytest.raises(TaskError, match="'luck' is not a control"):
            grounding_asr(model, [corners(model, 0)], controls=("luck",))
        text = planted.planted()
        with pytest.raises(ModelError, match="use grounding\\(\\) for it"):
            grounding_asr(text, planted.items(text, 1))
