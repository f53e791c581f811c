"""Interventions during generation with a key/value cache equal recomputing the whole prefix at every step."""

from __future__ import annotations

import pytest
import torch

from otoscope.engine.intervene import Intervention, add, mean_ablate, project_out, replace_with, resample_ablate, scale
from otoscope.errors import ModelError, SiteError
from otoscope.models.inputs import Inputs
from tests.tiny import build, pair

NEW = 9
FAMILIES = ["whisper", "llama", "qwen3"]


def prompt_of(model, n_items):
    """Different items; a prompt of three tokens, so that generation soon leaves it."""
    items = [item.with_tokens(item.tokens[:, :3]) for item in pair(model)[:n_items]]
    return Inputs.stack(items)


def cached(model, prompt, interventions):
    """transformers' own greedy loop with its cache: tokens and raw logits of every step."""
    given = {"input_features": prompt.features, "decoder_input_ids": prompt.tokens}
    if prompt.features is None:
        given = {"input_ids": prompt.tokens, "attention_mask": torch.ones_like(prompt.tokens)}
    model.hf.generation_config.suppress_tokens = model.hf.generation_config.begin_suppress_tokens = None
    with model.intervene(*interventions, inputs=prompt):
        out = model.hf.generate(
            **given, max_new_tokens=NEW, do_sample=False, num_beams=1, use_cache=True, eos_token_id=None,
            return_dict_in_generate=True, output_logits=True,
        )  # fmt: skip
    assert out.past_key_values is not None
    return out.sequences[:, -NEW:], torch.stack(out.logits, 1)


def recomputed(model, prompt, interventions):
    """The whole prefix again for every token, without any cache."""
    tokens, steps = prompt.tokens, []
    with torch.no_grad(), model.intervene(*interventions, inputs=prompt):
        for _ in range(NEW):
            steps.append(model.adapter.forward(prompt.with_tokens(tokens))[:, -1])
            tokens = torch.cat((tokens, steps[-1].argmax(-1, keepdim=True)), 1)
    return tokens[:, -NEW:], torch.stack(steps, 1)


def interventions_of(model, prompt):
    """Name -> changes. Positions 0-2 are the prompt, 3 and on are generated; position 11 is never reached."""
    d, generator = 24, torch.Generator().manual_seed(0)
    vector = torch.randn(d, generator=generator, dtype=torch.float64)
    long = prompt.with_tokens(torch.randint(4, 50, (prompt.batch, 3 + NEW), generator=generator))
    donor = model.capture(long, "decoder.*")
    heads = model.stacks["decoder"].n_heads
    sites = ["resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post"]
    sites += ["cross_attn_out"] if model.family == "whisper" else []
    made = {f"add everywhere at {p}": [add(f"decoder.1.{p}", vector)] for p in sites}
    made |= {f"add at one generated position of {p}": [add(f"decoder.1.{p}", 2 * vector, positions=5)] for p in sites}
    made |= {
        "nothing": [],
        "scale a prompt position": [scale("decoder.1.resid_post", -2.0, positions=1)],
        "prompt and generated": [scale("decoder.0.resid_post", -1.0, positions=(2, 3, 7))],
        "a position never reached": [scale("decoder.1.resid_post", 0.0, positions=50)],
        "a head": [scale(f"decoder.1.z.{heads - 1}", -3.0)],
        "heads at a position": [scale("decoder.2.z", 5.0, heads=(0, 2), positions=(4, 6))],
        "neurons": [scale("decoder.1.mlp_post", 6.0, neurons=(3, 8, 9))],
        "a pattern": [scale("decoder.1.pattern", 0.3)],
        "one head's pattern at a position": [scale("decoder.1.pattern", 0.0, heads=1, positions=6)],
        "project out": [project_out("decoder.*.resid_post", vector)],
        "mean": [mean_ablate("decoder.1.mlp_out", donor["decoder.1.mlp_out"])],
        "mean of heads": [mean_ablate("decoder.1.z", donor["decoder.1.z"], heads=(1, 2))],
        "resample": [resample_ablate("decoder.1.attn_out", donor["decoder.1.attn_out"], seed=5)],
        "a whole donor text": [replace_with("decoder.2.attn_out", donor["decoder.2.attn_out"])],
        "a donor at positions": [replace_with("decoder.1.z", donor["decoder.1.z"], positions=(2, 6))],
        "as many values as positions": [
            replace_with("decoder.1.resid_post", donor["decoder.1.resid_post"][:, :3], positions=(6, 1, 4))
        ],
        "two at a site": [add("decoder.1.resid_post", vector), scale("decoder.1.resid_post", 0.5, positions=(4, 8))],
        "the stream and its part": [scale("decoder.1.attn_out", 2.0), add("decoder.1.resid_mid", vector, positions=6)],
    }
    if model.family == "whisper":
        made["the encoder"] = [add("encoder.1.resid_post", vector, seconds=(0.05, 0.2))]
        made["cross heads"] = [scale("decoder.1.cross_z", 4.0, heads=(0, 3), positions=(2, 5))]
        made["a cross pattern"] = [scale("decoder.1.cross_pattern", 0.0, heads=2)]
    return made


@pytest.mark.parametrize("items", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_cache_changes_no_token_and_no_logit(family, items):
    model = build(family, torch.float64)
    prompt = prompt_of(model, items)
    plain = recomputed(model, prompt, [])[1]
    unmoved = []
    for name, changes in interventions_of(model, prompt).items():
        tokens, logits = cached(model, prompt, changes)
        expected, steps = recomputed(model, prompt, changes)
        assert torch.equal(tokens, expected), name
        assert (logits - steps).abs().max() < 1e-5, name  # the library rounds the logits it returns to float32
        if (steps - plain).abs().max() < 1e-6:
            unmoved.append(name)
    assert unmoved == ["nothing", "a position never reached"], "every other change must show"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_later_position_leaves_earlier_tokens_alone(family):
    model = build(family, torch.float64)
    prompt = prompt_of(model, 1)
    _, plain = cached(model, prompt, [])
    _, steps = cached(model, prompt, [scale("decoder.0.resid_post", -3.0, positions=6)])
    # position 6 is the input of step 4: its output decides the token after it
    assert torch.equal(steps[:, :4], plain[:, :4])
    assert (steps[:, 4] - plain[:, 4]).abs().max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_positions_count_from_the_start_of_the_sequence(family):
    model = build(family)
    seen = []

    def note(value, at):
        seen.append(at.tolist())
        return value

    cached(model, prompt_of(model, 2), [Intervention("decoder.1.mlp_out", note)])
    assert seen == [[0, 1, 2], *([p] for p in range(3, 2 + NEW))]


def test_a_donor_shorter_than_what_is_generated_is_refused():
    model = build("llama")
    prompt = prompt_of(model, 1)
    donor = model.capture(pair(model)[1], "decoder.1.resid_post")["decoder.1.resid_post"]
    with pytest.raises(SiteError, match="has 7 positions where the model has 1"):
        model.generate(prompt, [replace_with("decoder.1.resid_post", donor)], max_new_tokens=NEW, eos_token_id=None)
    few = replace_with("decoder.1.resid_post", donor, positions=range(7))
    assert len(model.generate(prompt, [few], max_new_tokens=NEW, eos_token_id=None)[0]) == 3 + NEW


@pytest.mark.parametrize("family", ["whisper", "llama"])
def test_generate_is_the_librarys_and_leaves_nothing_behind(family):
    model = build(family)
    prompt = prompt_of(model, 2)
    plain = model.generate(prompt, max_new_tokens=NEW)
    changed = model.generate(prompt, [scale("decoder.*.mlp_out", -1.0)], max_new_tokens=NEW)
    assert changed != plain
    assert model.generate(prompt, max_new_tokens=NEW) == plain
    with model.intervene(scale("decoder.*.mlp_out", -1.0)):
        assert model.generate(prompt, max_new_tokens=NEW) == changed


def test_an_encoder_does_not_generate():
    model = build("hubert-base")
    with pytest.raises(ModelError, match="does not generate: transcribe with it, or read its logits"):
        model.generate(pair(model)[0])
