"""Signals of words that nobody has checked: closed forms, a loop that is found, and text that is left alone."""

import numpy as np
import pytest

from otoscope.methods.suspicion import COMPRESSION, Suspect, Suspicion, compression_ratio, suspicion
from otoscope.models.asr_errors import says_again
from otoscope.tasks.planted_errors import hear
from tests.methods import tiny_sentences


def test_a_loop_compresses_and_a_sentence_does_not():
    assert compression_ratio("thank you for watching. " * 12) > COMPRESSION
    assert compression_ratio("He has the strangest fits at times, and I sent it to the bishop.") < COMPRESSION
    assert compression_ratio("") == 0


def test_only_a_whole_turn_of_a_phrase_is_a_repetition():
    keys = [[w] for w in ["we", "will", "meet", "and", "we", "will", "meet", "and", "then"]]
    assert says_again(keys, (4, 8))
    assert not says_again(keys, (4, 6))
    assert not says_again(keys, (8, 9))


def test_a_word_is_flagged_by_the_signals_above_their_thresholds():
    calm = {"doubt": 0.1, "unsteady": 0.0, "padding": 0.1, "repetition": 0.0}
    words = (Suspect("a", 0, 1, calm), Suspect("b", 1, 2, {**calm, "doubt": 0.95, "padding": 0.6}))
    found = Suspicion(words, 1.0, {})
    assert found.flagged == (words[1],)
    assert words[1].reasons == ("doubt", "padding")


def test_signals_of_a_transcript():
    model, clip = tiny_sentences.model(), tiny_sentences.clip(0)
    heard = hear(model, clip)
    found = suspicion(model, clip, heard.tokens, heard.encoded[0])
    assert [w.text for w in found.words] == list(heard.found.written)
    assert len(found.rewritings) == 2
    # doubt is one minus the least probability of the word's tokens in a plain run
    prompt = model.prompt()
    logits = model.run(model.inputs(clip, tokens=[*prompt, *heard.tokens])).logits[0, len(prompt) - 1 : -1]
    probability = logits.softmax(-1)[range(len(heard.tokens)), list(heard.tokens)].numpy()
    first = probability[: len(heard.words[0])].min()
    assert found.words[0].signals["doubt"] == pytest.approx(1 - first, abs=1e-4)
    values = np.array([list(w.signals.values()) for w in found.words])
    assert ((values >= 0) & (values <= 1 + 1e-6)).all()


def test_nothing_written_is_nothing_suspect():
    model, clip = tiny_sentences.model(), tiny_sentences.clip(0)
    assert suspicion(model, clip, (), hear(model, clip).encoded[0]).words == ()
