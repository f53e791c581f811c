"""A fix goes onto a plain transformers model, acts in batches and with a cache, comes off, and travels as a file."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers as tf
from transformers.modeling_outputs import BaseModelOutput

import otoscope
from otoscope.engine.fix import Fix, neuron, read_fix
from otoscope.errors import ModelError
from tests.methods.tiny_sentences import clip, model
from tests.tiny import build


@pytest.fixture
def whisper():
    return model()


@pytest.fixture
def fix(whisper):
    torch.manual_seed(0)
    width = whisper.stacks["decoder"].d_model
    edits = (
        {"op": "scale", "site": "decoder.0.z", "heads": [1], "factor": 0.0},
        {"op": "add", "site": "decoder.1.resid_post", "vector": "v", "strength": 2.0},
        {"op": "neuron", "site": "decoder.1.resid_post", "read": "r", "bias": 0.3, "write": "w", "strength": 3.0},
    )
    vectors = {name: torch.randn(width) for name in "vrw"}
    return Fix("test", "whisper", whisper.weights_hash(), edits, vectors, (3,), {"a": 1.0}, {"seed": 0})


def heard(whisper, n: int = 3) -> torch.Tensor:
    sounds = [clip(i).samples for i in range(n)]
    made = whisper.feature_extractor(sounds, sampling_rate=16000, return_tensors="pt").input_features
    return made[..., : 2 * whisper.hf.config.max_source_positions]


def logits(hf, features) -> torch.Tensor:
    with torch.no_grad():
        return hf(input_features=features, decoder_input_ids=torch.tensor([[4, 7, 9]] * len(features))).logits


def test_a_bare_model_is_changed_as_the_engine_changes_it_and_comes_back(whisper, fix):
    features = heard(whisper)
    bare = tf.WhisperForConditionalGeneration(whisper.hf.config)
    bare.load_state_dict(whisper.hf.state_dict())
    bare.set_attn_implementation("eager")
    bare.generation_config.begin_suppress_tokens = [5]
    bare.train()
    before = logits(bare.eval(), features)
    bare.train()
    applied = otoscope.apply(bare, fix)
    with whisper.intervene(*fix.interventions()):
        expected = logits(whisper.hf, features)
    assert torch.allclose(logits(bare, features), expected, atol=1e-5)
    assert not torch.allclose(expected, before, atol=1e-2)
    assert bare.generation_config.begin_suppress_tokens == [3]
    applied.remove()
    applied.remove()
    assert bare.config._attn_implementation == "eager"
    assert bare.training
    assert bare.generation_config.begin_suppress_tokens == [5]
    assert torch.equal(logits(bare.eval(), features), before)


def test_batched_generation_with_a_cache_writes_what_each_sound_alone_gives(whisper, fix):
    features = heard(whisper, 4)
    with torch.no_grad():
        states = whisper.hf.get_encoder()(features).last_hidden_state

    def written(rows: torch.Tensor, **options) -> list[list[int]]:
        return whisper.hf.generate(
            encoder_outputs=BaseModelOutput(rows), max_new_tokens=8, min_new_tokens=8, do_sample=False, **options
        ).tolist()

    plain = written(states)
    with otoscope.apply(whisper, fix):
        together = written(states)
        alone = [written(states[i : i + 1])[0] for i in range(4)]
        beams = written(states, num_beams=2)
    assert together == alone
    assert together != plain
    assert len(beams) == 4
    assert written(states) == plain


def test_a_fix_is_the_same_after_a_journey_through_its_file(whisper, fix, tmp_path):
    path = fix.save(tmp_path / "mine")
    assert {p.name for p in path.parent.iterdir()} == {"fix.json", "fix.safetensors"}
    features = heard(whisper)
    with otoscope.apply(whisper, fix):
        expected = logits(whisper.hf, features)
    for name in (path, path.parent, str(path)):
        with otoscope.apply(whisper, name) as applied:
            assert torch.equal(logits(whisper.hf, features), expected)
            assert applied.fix.scores == {"a": 1.0}
    assert json.loads(path.read_text())["weights"] == whisper.weights_hash()


def test_a_pipeline_takes_it(whisper, fix):
    class Pipeline:
        model = whisper.hf

    features = heard(whisper)
    before = logits(whisper.hf, features)
    with otoscope.apply(Pipeline(), fix):
        assert not torch.equal(logits(whisper.hf, features), before)
    assert torch.equal(logits(whisper.hf, features), before)


def test_a_neuron_does_nothing_where_it_does_not_fire():
    torch.manual_seed(1)
    x, read, write = torch.randn(2, 5, 8), torch.randn(8), torch.randn(8)
    changed = neuron("decoder.0.resid_post", read, -0.2, write).change(x, torch.arange(5))
    fires = (x @ read - 0.2).clamp(0, 1)
    assert torch.equal(changed[fires == 0], x[fires == 0])
    assert (fires == 0).any()
    assert torch.allclose(changed, x + fires[..., None] * write)
    assert torch.allclose(changed[fires == 1], (x + write)[fires == 1])


def test_a_strength_of_zero_changes_no_bit(whisper, fix):
    features = heard(whisper)
    before = logits(whisper.hf, features)
    off = tuple({**e, "factor": 1.0} if e["op"] == "scale" else {**e, "strength": 0.0} for e in fix.edits)
    with otoscope.apply(whisper, Fix("off", "whisper", fix.weights, off, fix.vectors)):
        assert torch.equal(logits(whisper.hf, features), before)


def test_what_does_not_fit_is_refused_in_one_sentence(whisper, fix, tmp_path):
    with pytest.raises(ModelError, match="other weights"):
        otoscope.apply(model(seed=1), fix)
    with otoscope.apply(model(seed=1), fix, any_weights=True):
        pass
    with pytest.raises(ModelError, match="family 'whisper', and"):
        otoscope.apply(build("hubert-base"), fix)
    with pytest.raises(ModelError, match="not onto a list"):
        otoscope.apply([1], fix)
    with pytest.raises(ModelError, match="holds no fix"):
        read_fix(tmp_path)
    wide = Fix("w", "whisper", fix.weights, fix.edits, {k: torch.zeros(7) for k in "vrw"})
    with pytest.raises(ModelError, match="model of another size"):
        otoscope.apply(whisper, wide)
    for edit, said in (
        ({"op": "delete", "site": "decoder.0.z"}, "cannot 'delete'"),
        ({"op": "add", "site": "decoder.0.z", "vector": "v"}, "lacks strength"),
        ({"op": "add", "site": "decoder.0.resid_post", "vector": "q", "strength": 1}, "lacks q"),
        ({"op": "scale", "site": "decoder.9.z", "heads": [0], "factor": 0}, "decoder"),
    ):
        with pytest.raises(otoscope.OtoscopeError, match=said):
            otoscope.apply(whisper, Fix("bad", "whisper", fix.weights, (edit,), fix.vectors))
    path = fix.save(tmp_path / "cut")
    (path.parent / "fix.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(ModelError, match="holds no fix"):
        read_fix(path)
    path = fix.save(tmp_path / "old")
    path.write_text(json.dumps({"format": 0}))
    with pytest.raises(ModelError, match="format 1"):
        read_fix(path)
    features = heard(whisper)
    assert np.isfinite(logits(whisper.hf, features).numpy()).all()
