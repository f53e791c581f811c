"""Activity is what the model computes, and planted patterns are named for where they look."""

from __future__ import annotations

import numpy as np
import pytest

from otoscope.engine.model import Model
from otoscope.errors import ModelError
from otoscope.methods.units import activity, cross_looks, decoder_looks, encoder_looks, names_of, unit_sites
from tests.tiny import build, pair, sound


@pytest.fixture(scope="module")
def model() -> Model:
    return build("whisper")


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_activity_of_neurons_and_heads_is_that_of_the_model(model: Model, stack: str):
    inputs = pair(model)[0]
    sites = unit_sites(model, stack)
    found = activity(model, inputs, sites, np.array([1, 4]))
    cache = model.capture(inputs, sites)
    for site in sites:
        assert found[site].shape == (2, len(names_of(model, site)))
        value = cache[site][0, [1, 4]]
        if site.point == "mlp_post":
            assert np.allclose(found[site], value.numpy(), atol=1e-6)
            continue
        layer = getattr(model.hf.model, stack).layers[site.layer]
        out = (layer.encoder_attn if site.point == "cross_z" else layer.self_attn).out_proj.weight
        for h in range(4):
            written = value[:, h] @ out[:, 6 * h : 6 * (h + 1)].T
            assert np.allclose(found[site][:, h], written.norm(dim=-1).detach().numpy(), atol=1e-4)


def test_names_are_sites(model: Model):
    site = unit_sites(model, "encoder")[1]
    assert names_of(model, site)[7] == "encoder.0.mlp_post.7"
    assert [str(s) for s in model.sites(names_of(model, site)[7])] == ["encoder.0.mlp_post.7"]


def test_other_families_have_no_atlas():
    with pytest.raises(ModelError, match="is no Whisper"):
        unit_sites(build("hubert-base"), "encoder")


N, VALID = 60, 40
SILENT = np.arange(VALID) < 10
PHONE = np.where(SILENT, -1, (np.arange(VALID) // 5) % 3)


def looking_at(there: np.ndarray) -> np.ndarray:
    """A head that spreads its attention evenly over a place, and over everything where there is no such place."""
    there = np.where(there.any(axis=1, keepdims=True), there, True).astype(float)
    return there / there.sum(axis=1, keepdims=True)


def test_planted_encoder_heads_are_named():
    key, query = np.arange(N)[None, :], np.arange(N)[:, None]
    phone = np.full(N, -1)
    phone[:VALID] = PHONE
    same = (phone[None] == phone[:, None]) & (phone[:, None] >= 0) & (np.abs(key - query) > 12)
    planted = {
        "its own frame": np.abs(key - query) <= 1,
        "just before": (key - query < -3) & (key - query > -9),
        "just after": (key - query > 3) & (key - query < 9),
        "padding": np.broadcast_to(key >= VALID, (N, N)),
        "pauses": np.broadcast_to(key < 10, (N, N)),
        "the same phone elsewhere": same,
    }
    heads = np.stack([looking_at(there) for there in planted.values()] + [np.full((N, N), 1 / N)])
    found = encoder_looks(heads, VALID, SILENT, PHONE)
    for h, name in enumerate(planted):
        values = {place: v[h] for place, v in found.items()}
        assert max(values, key=lambda place: values[place]) == name
        assert values[name] > 0.7
    assert all(abs(v[-1]) < 1e-9 for v in found.values())  # equal attention is at chance everywhere


def test_planted_decoder_heads_are_named():
    tokens = np.array([90, 91, 5, 6, 7, 8, 5, 6, 7, 8])
    n, start = len(tokens), 2
    key, query = np.arange(n)[None, :], np.arange(n)[:, None]
    causal = key <= query
    same = (tokens[None] == tokens[:, None]) & (key < query)
    after = np.zeros_like(same)
    after[:, 1:] = same[:, :-1]
    planted = {
        "the first token": np.broadcast_to(key == 0, (n, n)),
        "the token before": key == query - 1,
        "the same token earlier": same,
        "what followed the same token": after,
    }
    heads = np.stack([looking_at(there & causal) * causal for there in planted.values()])
    heads /= heads.sum(axis=2, keepdims=True)
    found = decoder_looks(heads, start, tokens)
    for h, name in enumerate(planted):
        values = {place: v[h] for place, v in found.items()}
        assert max(values, key=lambda place: values[place]) == name
        assert values[name] > 0.7
    even = decoder_looks((causal / causal.sum(1, keepdims=True))[None], start, tokens)
    assert all(abs(v[0]) < 1e-9 for v in even.values())


def test_cross_attention_that_follows_the_words_is_monotonic():
    word = np.arange(VALID)[None] // 5 == np.arange(8)[:, None]
    aligned = np.zeros((8, N))
    aligned[:, :VALID] = word / 5
    padding = np.zeros((8, N))
    padding[:, VALID:] = 1 / (N - VALID)
    found = cross_looks(np.stack([aligned, aligned[::-1], padding]), VALID, SILENT, word)
    assert found["the word being written"] == pytest.approx([1.0, *found["the word being written"][1:]])
    assert found["monotonic"][0] == pytest.approx(1.0)
    assert found["monotonic"][1] == pytest.approx(-1.0)
    assert found["padding"][2] == pytest.approx(1.0)
    assert found["the word being written"][2] < 0


def test_untrained_heads_look_almost_everywhere(model: Model):
    clip = sound(1, 8000)
    inputs = model.inputs(clip)
    n = model.clock("encoder", 8000).n_valid
    pattern = model.capture(inputs, "encoder.0.pattern")["encoder.0.pattern"][0].numpy()
    found = encoder_looks(pattern, n, np.zeros(n, bool), np.full(n, -1))
    assert np.isnan(found["pauses"]).all()  # there are none
    assert np.abs(found["its own frame"]).max() < 0.4
