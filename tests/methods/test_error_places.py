"""Places of an error: the share that a head moves is that of the same change as a hook on the whole model."""

import pytest

from otoscope.engine.intervene import replace_with
from otoscope.methods.error_evidence import gather_evidence, make_arms, neutral_prompt, prompt_tokens
from otoscope.methods.error_places import places_of_sound, places_of_text
from otoscope.tasks.planted_errors import hear
from tests.methods import tiny_sentences

CONTEXT = "the mat"


@pytest.fixture(scope="module")
def case():
    model = tiny_sentences.model()
    clip = tiny_sentences.clip(0, text="the cat sat")
    heard = hear(model, clip, context=CONTEXT)
    error = heard.found.errors[0]
    evidence = gather_evidence(model, clip, heard.found, error, heard.words, context=CONTEXT)
    assert evidence is not None
    return model, clip, error, evidence


def margin(model, inputs, evidence, changes=()):
    logits = model.run(inputs, list(changes)).logits[0, -1]
    return float(logits[evidence.written] - logits[evidence.said])


def test_heads_of_the_text(case):
    model, clip, _, evidence = case
    found = places_of_text(model, clip, evidence, CONTEXT)
    assert found is not None
    tokens = [*prompt_tokens(model, CONTEXT), *evidence.before]
    base = model.inputs(clip, tokens=tokens)
    donor = base.with_tokens([*neutral_prompt(model, CONTEXT), *evidence.before])
    assert found.base == pytest.approx(margin(model, base, evidence), abs=1e-4)
    assert found.mended == pytest.approx(margin(model, donor, evidence), abs=1e-4)
    top = found.heads[0]
    value = model.capture(donor, top.site)[top.site]
    change = replace_with(top.site, value, positions=(len(tokens) - 1,), heads=(top.head,))
    moved = found.base - margin(model, base, evidence, [change])
    assert top.effect == pytest.approx(moved / (found.base - found.mended), abs=1e-3)
    assert len(found.heads) == 12
    assert found.layers == ()
    assert places_of_text(model, clip, evidence, "") is None


def test_layers_and_heads_of_the_sound(case):
    model, clip, error, evidence = case
    found = places_of_sound(model, clip, error, evidence, context=CONTEXT)
    assert found is not None
    assert len(found.layers) == model.stacks["encoder"].n_layers
    tokens = [*prompt_tokens(model, CONTEXT), *evidence.before]
    donor = make_arms(clip, evidence.span, " ".join(error.said), "").said[0]
    assert found.mended == pytest.approx(margin(model, model.inputs(donor, tokens=tokens), evidence), abs=1e-4)
    # the last layer's exchange is what the evidence holds of the same voice
    assert found.layers[-1] == pytest.approx(evidence.rendered_said[0], abs=1e-3)
