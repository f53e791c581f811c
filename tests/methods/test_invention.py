"""What a Whisper writes for kept encoder outputs is what it writes for the sounds, and the rule is Whisper's."""

from __future__ import annotations

import pytest
import torch

from otoscope.errors import ModelError
from otoscope.methods.invention import Ears, Written, has_words, judged, padding_attention, write
from tests.methods.tiny_sentences import clip, model
from tests.tiny import build


@pytest.fixture(scope="module")
def whisper():
    return model()


def test_what_is_kept_of_a_sound_is_what_the_encoder_gives_in_half_precision(whisper):
    clips = [clip(i, seconds) for i, seconds in enumerate((0.8, 0.3, 0.6))]
    kept = Ears(whisper, clips).encoded([2, 0])
    for row, i in zip(kept, (2, 0)):
        states = whisper.capture(whisper.inputs(clips[i]), "encoder.1.resid_post")["encoder.1.resid_post"]
        assert torch.allclose(row, whisper.hf.get_encoder().layer_norm(states[0]), atol=5e-3, rtol=2e-3)


def test_a_batch_writes_what_each_sound_alone_gives(whisper):
    ears = Ears(whisper, [clip(i, seconds) for i, seconds in enumerate((0.8, 0.3, 0.6))])
    together = write(ears, [0, 1, 2], max_new_tokens=12)
    assert together == [write(ears, [i], max_new_tokens=12)[0] for i in range(3)]
    assert any(together)
    assert write(ears, [2, 0], max_new_tokens=12) == [together[2], together[0]]


def test_what_the_rule_judges_by_is_that_of_one_plain_run(whisper):
    ears = Ears(whisper, [clip(1)])
    (row,) = write(ears, [0], max_new_tokens=5)
    (found,) = judged(ears, [0], max_new_tokens=5)
    prompt, end = whisper.adapter.prompt("en"), whisper.hf.generation_config.eos_token_id
    with torch.no_grad():
        logs = (
            whisper.hf(decoder_input_ids=torch.tensor([[*prompt, *row]]), encoder_outputs=(ears.encoded([0]),))
            .logits[0]
            .log_softmax(-1)
        )
    wanted = [*row, end]
    mean = sum(float(logs[len(prompt) - 1 + i, token]) for i, token in enumerate(wanted)) / len(wanted)
    assert found.log_prob == pytest.approx(mean, abs=1e-5)
    assert found.text == whisper.tokenizer.decode(row).strip()


@pytest.mark.parametrize(
    ("no_speech", "log_prob", "dropped"),
    [(0.7, -1.5, True), (0.7, -0.5, False), (0.5, -1.5, False), (0.61, -1.01, True)],
)
def test_the_rule_needs_both(no_speech, log_prob, dropped):
    assert Written("Thank you.", no_speech, log_prob).dropped is dropped


def test_words_are_letters_or_digits():
    assert has_words("Mm.")
    assert has_words("3")
    assert not has_words(" , . ...")
    assert not has_words("")


def test_padding_is_behind_the_end(whisper):
    ears = Ears(whisper, [clip(0, 0.5)])
    behind = ears.padding(0)
    rate = whisper.clock("encoder", 1).rate
    assert behind.sum() == len(behind) - round(0.5 * rate)
    assert not behind[: round(0.5 * rate)].any()


def test_attention_to_padding_is_that_of_the_patterns(whisper):
    ears = Ears(whisper, [clip(0, 0.5), clip(1, 0.9)])
    found = padding_attention(ears, [0, 1])
    for i in range(2):
        inputs = whisper.inputs(ears.clips[i])
        kept = whisper.capture(inputs, "decoder.*.cross_pattern")
        shares = [kept[site][0, :, -1, torch.from_numpy(ears.padding(i))].sum(-1).mean() for site in kept]
        assert found[i] == pytest.approx(float(torch.stack(shares).mean()), abs=5e-3)
    assert 0 < found[1] < found[0] < 1


def test_another_family_is_refused():
    with pytest.raises(ModelError, match="studied in a Whisper"):
        Ears(build("hubert-base"), [clip(0)])
    with pytest.raises(ModelError, match="no tokenizer"):
        Ears(build("whisper"), [clip(0)])
