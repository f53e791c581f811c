"""The searches recover what is planted in a model's weights or states, and find nothing in shuffled labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from otoscope.engine.fix import Fix
from otoscope.engine.intervene import scale
from otoscope.methods.invention import Ears
from otoscope.methods.invention_edits import (
    damped,
    end_direction,
    end_margins,
    head_effects,
    last_layer,
    neurons,
    reader,
    states,
    steered,
)
from otoscope.stats.ranking import roc_auc
from tests.methods.tiny_sentences import clip, model


@pytest.fixture
def whisper():
    return model()


def test_margins_are_those_of_plain_runs(whisper):
    ears = Ears(whisper, [clip(0), clip(1)])
    edit = scale("decoder.1.cross_z", 0.0, heads=(0,))
    found = end_margins(ears, [0, 1], [[], [edit]])
    end, barred = whisper.hf.generation_config.eos_token_id, whisper.hf.generation_config.suppress_tokens
    for column in range(2):
        for row, edits in enumerate(([], [edit])):
            with torch.no_grad(), whisper.intervene(*edits):
                logits = whisper.hf(
                    decoder_input_ids=torch.tensor([whisper.adapter.prompt("en")]),
                    encoder_outputs=(ears.encoded([column]),),
                ).logits[0, -1]
            others = [t for t in range(end) if t not in barred]
            assert found[row, column] == pytest.approx(float(logits[end] - logits[others].max()), abs=1e-4)


def test_a_head_that_speaks_against_the_end_is_found_first(whisper):
    """Planted: one head of the last layer writes, whatever it hears, the end token's direction with a minus."""
    site, head = "decoder.2.cross_z", 1
    assert last_layer(whisper) == "decoder.2.resid_post"
    layer, width = whisper.hf.model.decoder.layers[-1], whisper.stacks["decoder"].d_model
    n = width // whisper.stacks["decoder"].n_heads
    own = slice(head * n, (head + 1) * n)
    against = -torch.tensor(end_direction(whisper), dtype=torch.float32)
    with torch.no_grad():
        layer.encoder_attn.v_proj.weight[own] = 0
        layer.encoder_attn.v_proj.bias[own] = 1
        layer.encoder_attn.out_proj.weight[:, own] = 40 * against[:, None] / n
    ears = Ears(whisper, [clip(i) for i in range(6)])
    effects = head_effects(ears, [0, 1, 2], [3])
    # the plant acts on every sound alike, so only the side without speech is asked about it
    alone = dict(zip(effects, _quiet_gains(ears, effects)))
    assert max(alone, key=lambda h: alone[h]) == (site, head)
    assert len(effects) == 2 * 3 * whisper.stacks["decoder"].n_heads


def _quiet_gains(ears, effects):
    changes = [[], *([scale(site, 0.0, heads=(head,))] for site, head in effects)]
    margins = end_margins(ears, [0, 1, 2], changes)
    return (margins[1:] - margins[0]).mean(1)


def test_the_reader_finds_a_planted_direction_and_nothing_in_shuffled_labels():
    rng = np.random.default_rng(0)
    direction = rng.standard_normal(32)
    direction /= np.linalg.norm(direction)

    def texts(n: int, sign: float) -> list[np.ndarray]:
        return [rng.standard_normal((int(rng.integers(2, 6)), 32)) + 2.5 * sign * direction for _ in range(n)]

    quiet, spoken = texts(80, 1), texts(80, -1)
    found = reader(quiet, spoken)
    assert found.weights @ direction / np.linalg.norm(found.weights) > 0.9
    new = np.concatenate([x[:1] for x in texts(200, 1) + texts(200, -1)])
    assert roc_auc(found(new), list(range(200))) > 0.99
    assert abs(np.mean(found(new) > 0) - 0.5) < 0.05
    medians = [float(np.median(found(np.concatenate(side)))) for side in (quiet, spoken)]
    assert medians == pytest.approx([1, -1], abs=0.1)
    # the way that a shuffle leans is a matter of chance; it tells nothing on average
    leans = [roc_auc(reader(quiet, spoken, shuffled=seed)(new), list(range(200))) for seed in range(24)]
    assert abs(np.mean(leans) - 0.5) < 0.25
    assert min(leans) < 0.5 < max(leans)


def test_every_side_counts_the_same_however_many_sounds_it_has():
    rng = np.random.default_rng(1)
    quiet = [rng.standard_normal((3, 8)) + 1 for _ in range(300)]
    spoken = [rng.standard_normal((3, 8)) - 1 for _ in range(10)]
    found = reader(quiet, spoken)
    middle = found(np.zeros((1, 8)))[0]
    assert abs(middle) < 0.3 * abs(found(np.ones((1, 8)))[0])


def test_what_the_neuron_writes_makes_the_end_likelier(whisper):
    write = end_direction(whisper)
    assert np.linalg.norm(write) == pytest.approx(1)
    ears = Ears(whisper, [clip(2)])
    always = reader([np.ones((1, len(write)))] * 2, [-np.ones((1, len(write)))] * 2)
    always = type(always)(np.zeros(len(write)), 5.0, always.level)
    (one,) = neurons(last_layer(whisper), always, write, [0.0], 20.0)
    edits = Fix("", "", "", one.edits, one.vectors).interventions()
    margins = end_margins(ears, [0], [[], edits])
    assert margins[1, 0] > margins[0, 0]


def test_candidates_and_their_controls_match_in_size():
    effects = {("decoder.0.z", h): float(h) for h in range(8)}
    heads = damped(effects, (1, 3))
    assert [c.edits[0]["heads"] for c in heads if not c.control] == [[7], [5, 6, 7]]
    (null,) = [c for c in heads if c.control]
    assert len(null.edits[0]["heads"]) == 3
    assert not set(null.edits[0]["heads"]) & {5, 6, 7}
    rng = np.random.default_rng(0)
    moved = steered("decoder.1.resid_post", rng.standard_normal((9, 6)) + 1, rng.standard_normal((9, 6)), (1.0, 2.0))
    norms = [float(c.vectors["direction"].norm()) for c in moved]
    assert norms == pytest.approx([norms[0]] * 3, rel=1e-5)
    assert [c.strength for c in moved] == [1.0, 2.0, 2.0]
    assert moved[2].control


def test_states_are_read_from_the_last_prompt_token_on(whisper):
    ears = Ears(whisper, [clip(0), clip(1)])
    site = last_layer(whisper)
    seen = states(ears, [0, 1], [[5, 6], []], [site])
    assert [len(row[site]) for row in seen] == [3, 1]
    whole = states(ears, [1], [[5, 6]], [site])[0][site]
    assert np.allclose(whole[:1], seen[1][site], atol=1e-5)
