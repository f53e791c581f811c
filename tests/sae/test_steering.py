"""Steering: a planted direction writes its word, nothing added changes nothing, and hooks of our own say the same."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from otoscope.engine.model import Model
from otoscope.errors import ModelError, SiteError
from otoscope.sae.registry import build
from otoscope.sae.steering import Push, changed, differences, direction_of, random_directions, steered
from tests import tiny


class Words:
    """Writes a token as a word."""

    all_special_ids = (0, 1, 2, 3)

    def decode(self, ids, skip_special_tokens=True, **_) -> str:
        return " ".join(f"w{int(i)}" for i in ids if i > 3)

    def __call__(self, text, **_):
        return SimpleNamespace(input_ids=[])


@pytest.fixture(scope="module")
def model() -> Model:
    made = tiny.build("whisper")
    made.adapter.tokenizer = Words()
    return made


def test_a_tokens_own_direction_writes_it(model) -> None:
    """At the decoder's last layer, far along a token's unembedding, every token written is that one."""
    table = model.hf.get_output_embeddings().weight.detach()
    for token in (7, 31):
        text = steered(
            model, tiny.sound(0), "decoder.2.resid_post", 1000.0, [Push(table[token], 1.0)], max_new_tokens=4
        )
        assert set(text[0].split()) == {f"w{token}"}


def test_nothing_added_changes_nothing(model) -> None:
    clip = tiny.sound(1)
    plain = Words().decode(model.generate(model.inputs(clip), max_new_tokens=20)[0])
    pushes = [Push(d, 0.0) for d in random_directions(24, 3)]
    assert steered(model, clip, "encoder.1.resid_post", 5.0, pushes, max_new_tokens=20) == [plain] * 3


def test_a_hook_of_our_own_writes_the_same(model) -> None:
    """Several pushes share a batch; each row has its own, at the frames of the sound and not at its padding."""
    clip, spread = tiny.sound(2, 9000), 3.0
    directions, strengths = random_directions(24, 5, seed=4), (0.0, 1.0, -2.0, 4.0, 8.0)
    texts = steered(
        model, clip, "encoder.1.resid_post", spread, [Push(2 * d, s) for d, s in zip(directions, strengths)]
    )
    n = model.clock("encoder", len(clip), 1).n_valid
    expected = []
    for direction, strength in zip(directions, strengths):

        def hook(_module, _args, out, push=strength * spread * direction):
            value = (out[0] if isinstance(out, tuple) else out).clone()
            value[:, :n] += push
            return (value, *out[1:]) if isinstance(out, tuple) else value

        handle = model.hf.model.encoder.layers[1].register_forward_hook(hook)
        try:
            expected.append(Words().decode(model.generate(model.inputs(clip), max_new_tokens=24)[0]))
        finally:
            handle.remove()
    assert texts == expected
    assert len(set(texts)) > 1


def test_directions_are_of_unit_norm() -> None:
    made = build({"architecture": "standard", "d": 8, "n_features": 3})
    with torch.no_grad():
        made.decoder[1] *= 5
        made.decoder[2] = 0
    assert float(direction_of(made, 1).norm()) == pytest.approx(1)
    torch.testing.assert_close(random_directions(8, 4).norm(dim=1), torch.ones(4))
    assert torch.equal(random_directions(8, 4, seed=1), random_directions(8, 4, seed=1))
    with pytest.raises(ModelError, match="no decoder direction"):
        direction_of(made, 2)
    with pytest.raises(ModelError, match="features of this dictionary are 0 to 2"):
        direction_of(made, 3)


def test_what_cannot_be_steered_is_said(model) -> None:
    push = [Push(torch.ones(24), 1.0)]
    with pytest.raises(SiteError, match="part of a site"):
        steered(model, tiny.sound(0), "encoder.1.resid_post.3", 1.0, push)
    with pytest.raises(ModelError, match="writes no transcripts"):
        steered(tiny.build("hubert-base"), tiny.sound(0), "encoder.1.resid_post", 1.0, push)


def test_words_that_came_and_went() -> None:
    assert changed("the cat sat", "The cat sat.") == 0
    assert changed("the dog sat here", "the cat sat") == pytest.approx(2 / 3)
    assert changed("", "") == 0
    assert changed("two words", "") == 2
    assert differences("The dog sat here", "the cat sat.") == [
        ("same", "The"), ("lost", "cat"), ("gained", "dog"), ("same", "sat"), ("gained", "here"),
    ]  # fmt: skip
