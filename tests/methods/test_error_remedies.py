"""Remedies: writing on is the library's greedy decoding, and a remedy that does nothing mends nothing."""

import pytest
import torch

from otoscope.methods.error_evidence import encode, gather_evidence
from otoscope.methods.error_remedies import ALPHA, allowed, last_logits, remedies, write_on
from otoscope.tasks.planted_errors import hear
from tests.methods import tiny_sentences


@pytest.fixture(scope="module")
def model():
    return tiny_sentences.model()


@pytest.mark.parametrize("seed", [0, 2])
def test_writing_on_is_greedy_decoding(model, seed):
    clip = tiny_sentences.clip(seed)
    whole = write_on(model, encode(model, [clip]), model.prompt())[0]
    plain = [t for t in model.generate(model.inputs(clip), max_new_tokens=46)[0] if t < model.hf.config.eos_token_id]
    assert whole == plain[: len(whole)]
    assert len(whole) >= min(len(plain), 44)
    # and it may start from any beginning of the text
    assert write_on(model, encode(model, [clip]), [*model.prompt(), *whole[:5]])[0] == whole[5:]


def test_rows_do_not_disturb_each_other(model):
    states = encode(model, [tiny_sentences.clip(0), tiny_sentences.clip(2)])
    together = write_on(model, states, model.prompt())
    assert together == [write_on(model, states[i : i + 1], model.prompt())[0] for i in range(2)]


def test_remedies_are_tried_and_told_apart(model):
    clip = tiny_sentences.clip(0, text="the cat sat")
    heard = hear(model, clip, context="the mat")
    error = heard.found.errors[0]
    evidence = gather_evidence(model, clip, heard.found, error, heard.words, context="the mat")
    assert evidence is not None
    tried = remedies(
        model, clip, "the cat sat", error, evidence, heard.encoded[0], context="the mat",
        heads=[("decoder.1.cross_z", 0, 1.0)],
    )  # fmt: skip
    by_kind = {r.kind: r for r in tried}
    assert [r.kind for r in tried][:3] == ["head", "context", "prior"]
    assert "sound" in by_kind
    # a head that is left as it is changes nothing, and nothing is mended
    assert by_kind["head"].text == heard.text or by_kind["head"].text.startswith(heard.text[:10])
    assert not by_kind["head"].mends
    assert by_kind["context"].text.startswith(hear(model, clip).text[:10])


def test_taking_off_the_prior_is_contrastive_decoding(model):
    clip = tiny_sentences.clip(0, text="the cat sat")
    heard = hear(model, clip)
    error = heard.found.errors[0]
    evidence = gather_evidence(model, clip, heard.found, error, heard.words)
    assert evidence is not None
    prior = next(r for r in remedies(model, clip, clip.text, error, evidence, heard.encoded[0]) if r.kind == "prior")
    from otoscope.methods.error_evidence import exchanged, make_arms

    silent = encode(model, [make_arms(clip, evidence.span, "", "").none[0]])
    none = exchanged(model, heard.encoded[0], silent, clip, evidence.span)
    tokens = [*model.prompt(), *evidence.before]
    full, bare = last_logits(model, torch.cat([heard.encoded, none]), tokens)
    best = int(((1 + ALPHA) * full - ALPHA * bare + allowed(model, not evidence.before)).argmax())
    written = model.tokenizer.decode([*evidence.before, best])
    assert prior.text.startswith(written.strip()[:8])
