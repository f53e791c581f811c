"""Words: counting, spans, and a recogniser that hears a shorter window."""

from __future__ import annotations

import pytest

import otoscope
from otoscope.audio.clip import Clip, Span
from otoscope.errors import ModelError
from otoscope.methods.yardsticks.words import Words, shorten
from tests.cli.folder import save_tiny_whisper
from tests.tiny import build, sound


# no numerals: the normaliser writes several in a row as one number, which is one word
def planted(clean: str, corrupt: str) -> tuple[Words, Clip, Clip]:
    words = Words("none is loaded")
    clips = sound(1), sound(2)
    for clip, text in zip(clips, (clean, corrupt)):
        words.remember(clip, text)
    return words, *clips


@pytest.mark.parametrize(
    ("corrupt", "share"),
    [("cat dog hen cow", 0), ("cat dog pen cow", 0.25), ("cat dog", 0.5), ("cat dog and hen cow", 0.25), ("", 1.0),
     ("a b c d e f g h i", 1.0)],
)  # fmt: skip
def test_errors_per_word_of_the_clean_clip_at_most_one(corrupt, share):
    words, clean, other = planted("cat dog hen cow", corrupt)
    assert words.moved(clean, other) == pytest.approx(share)


def test_within_a_span_the_words_of_the_span_are_the_denominator():
    words, clean, other = planted("cat dog hen cow", "cat dog pen cow")
    length = clean.duration / 4
    known = clean.replace(words=tuple(Span(i * length, (i + 1) * length, w) for i, w in enumerate("abcd")))
    words.remember(known, "cat dog hen cow")
    assert words.moved(known, other, (2 * length, 3 * length)) == 1.0
    assert words.moved(known, other, (0.0, 2 * length)) == 0.5
    assert words.moved(clean, other, (0.0, 2 * length)) == 0.5  # without word times: its share of the duration


def test_a_shortened_whisper_hears_a_shorter_window_with_the_same_weights(tmp_path):
    folder = str(save_tiny_whisper(tmp_path))
    whole, short = otoscope.load(folder, offline=True), otoscope.load(folder, offline=True)
    shorten(short, 0.5)
    assert short.hf.config.max_source_positions == 25
    table = short.hf.model.encoder.embed_positions.weight
    assert table.equal(whole.hf.model.encoder.embed_positions.weight[:25])
    words = Words(short, window=None)
    clips = [sound(1, 8000), sound(2, 8000)]
    words.prepare(clips)
    assert words.moved(clips[0], clips[0]) == 0
    assert words.heard(clips[0]) == words.heard(clips[0].replace(samples=clips[0].samples.copy()))


def test_only_a_whisper_can_be_shortened():
    with pytest.raises(ModelError, match="no Whisper"):
        shorten(build("hubert-base"), 5.0)


@pytest.mark.weights
@pytest.mark.data
def test_a_short_window_hears_real_speech(whisper_tiny_en, shared_data):
    from otoscope.models.wer import score

    clip = otoscope.read(shared_data / "librispeech" / "2412-153948-0005.flac", rate=16000)
    words = Words(str(whisper_tiny_en))
    assert score([words.heard(clip)], ["I was delighted with the country and the manner of life"]).wer < 0.3
    assert words.model.hf.config.max_source_positions == 500
