"""Grounding, heads, alignment search and lens on a tiny random model of every audio-LLM family."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from otoscope.engine.model import Model
from otoscope.methods.alignment_search import Training, das
from otoscope.methods.audio_lens import LensItem, audio_lens
from otoscope.methods.grounding import Corners, grounding
from otoscope.methods.interchange import States, pairs
from otoscope.methods.listen_layer import heads, listen_layer
from tests import tiny

WORDS = ["pig", "dog", "fog"]


@pytest.fixture(scope="module", params=tiny.AUDIO_LLM)
def setting(request) -> tuple[Model, list[Corners]]:
    model = tiny.build(request.param, torch.float64)
    made = []
    for i in range(3):
        said = dict(zip("ab", (WORDS[i], WORDS[(i + 1) % 3])))
        sounds = {"a": tiny.sound(2 * i), "b": tiny.sound(2 * i + 1)}
        runs = {s + c: model.ask(sounds[s], "What is it?", f"A {said[c]}.") for s in "ab" for c in "ab"}
        labels = [model.label_tokens(said[c]) for c in "ab"]
        made.append(Corners(**runs, audio_label=labels[0], text_label=labels[1], unit=f"item {i}"))
    return model, made


def test_the_fast_path_is_the_naive_one_and_every_part_has_an_effect(setting) -> None:
    model, items = setting
    fast, slow = (grounding(model, items[:1], method=method) for method in ("replay", "naive"))
    for name in fast.margin:
        assert fast.margin[name] == pytest.approx(slow.margin[name], abs=1e-6), name
    for side in ("audio", "text"):
        assert np.abs(fast.effect(side)[:, 0]).min() > 1e-6, side
    # at the first layer both directions compare whole runs
    assert fast.effect("audio", "noise")[:, 0] == pytest.approx(fast.effect("audio", "denoise")[:, 0], abs=1e-6)
    assert fast.effect("text", "noise")[:, 0] == pytest.approx(fast.effect("text", "denoise")[:, 0], abs=1e-6)


def test_whole_states_exchanged_by_the_search_are_those_of_the_sweep(setting) -> None:
    model, items = setting
    found = grounding(model, items[:1], directions=("denoise",))
    states = States(model.adapter, items[:1], [0, 2])
    everything = torch.eye(model.stacks["decoder"].d_model, dtype=torch.float64)
    for side, index in (("audio", 0), ("text", 1)):
        pair = pairs(side, [0])[index]
        assert (pair.base, pair.source) == ({"audio": "bb", "text": "aa"}[side], "ab")
        for layer in (0, 2):
            scores = states.scores(side, layer, [pair], everything)[0].detach()
            margin = found.margin[f"denoise/{side}/all tokens"][0, layer]
            assert float(scores[0] - scores[1]) == pytest.approx(margin, abs=1e-6)


def test_everything_runs(setting) -> None:
    model, items = setting
    found = grounding(model, items, variants=("all tokens", "equal tokens"), controls=("random donor", "same input"))
    assert len(found.table()) == 2 * 5 * found.n_layers
    assert listen_layer(found).table()
    assert np.isfinite(heads(model, items[:1], where=("answer", "question"), layers=(1,)).values).all()
    searched = das(model, items, [1], training=Training(rank=4, epochs=1), n_train=2, n_test=4)
    assert searched.hits["audio/learned"].shape == (1, len(searched.units))
    labels = tuple(model.label_tokens(word) for word in WORDS)
    read = [LensItem(item.ab, model.ask(None, "What is it?"), labels, 0, item.unit) for item in items[:2]]
    assert audio_lens(model, read).information().shape == (found.n_layers, 3)
