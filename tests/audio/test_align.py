"""Alignment: against speech whose times are known, and every trap that a transcript can hold."""

import importlib.util
import sys

import numpy as np
import pytest

from otoscope.audio import align as module
from otoscope.audio.align import align
from otoscope.audio.clip import Clip
from otoscope.audio.pronounce import pronounce, sound_alike, to_arpabet
from otoscope.audio.synth import flite, say
from otoscope.errors import AudioError

needs_sphinx = pytest.mark.skipif(
    importlib.util.find_spec("pocketsphinx") is None, reason='needs pip install "otoscope[speech]"'
)
needs_espeak = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None, reason='needs pip install "otoscope[speech]"'
)
needs_flite = pytest.mark.skipif(not flite.available(), reason="needs apt-get install flite")

TEXT = "the quick brown fox jumps over the lazy dog"


@needs_sphinx
@needs_flite
@pytest.mark.parametrize("voice", ["slt", "rms"])
def test_words_and_phones_are_where_the_synthesiser_put_them(voice):
    spoken = say(TEXT, engine="flite", voice=voice)
    found = align(spoken.replace(words=(), phones=()))
    assert [word.text for word in found.words] == TEXT.split()
    errors = [(a.start - b.start, a.end - b.end) for a, b in zip(found.words, spoken.words)]
    assert np.median(np.abs(errors)) < 0.020
    assert abs(np.median(errors)) < 0.010
    assert np.max(np.abs(errors)) < 0.100
    assert len(found.phones) == pytest.approx(len(spoken.phones), abs=2)
    for word in found.words:
        assert any(phone.start == word.start for phone in found.phones)


@needs_sphinx
@needs_espeak
def test_times_move_with_the_sound_and_survive_rate_and_level():
    spoken = say(TEXT)
    plain = align(spoken)
    late = np.concatenate([np.zeros(8000, np.float32), spoken.samples])
    shifted = align(Clip(late * 0.01, 16000, text=TEXT).resample(44100))
    for early, later in zip(plain.words, shifted.words):
        assert later.start - early.start == pytest.approx(0.5, abs=0.03)


@needs_sphinx
@needs_espeak
@pytest.mark.parametrize("text", ["PLEASE, don’t GO!", "“Please — don't” (go)...", "please don't go"])
def test_case_punctuation_and_curly_apostrophes_do_not_matter(text):
    spoken = say("please don't go").replace(words=(), phones=())
    found = align(spoken, text)
    assert [word.text.lower().replace("’", "'") for word in found.words] == ["please", "don't", "go"]
    assert [word.start for word in found.words] == [word.start for word in align(spoken).words]


@needs_sphinx
@needs_espeak
def test_hyphenated_words_are_one_and_unknown_words_are_said_by_rule():
    found = align(say("a well-known pannikin fell"), "a well-known pannikin fell")
    assert [word.text for word in found.words] == ["a", "well-known", "pannikin", "fell"]
    assert found.notices[-1] == "said by rule, not found in the dictionary: pannikin"
    again = align(say("a well-known pannikin fell"), pronunciations={"Pannikin": "P AE N IH K IH N"})
    assert "by rule" not in again.notices[-1]
    inside = [p.text for p in again.phones if again.words[2].start <= p.start < again.words[2].end]
    assert inside == ["P", "AE", "N", "IH", "K", "IH", "N"]


@needs_sphinx
@needs_espeak
def test_a_pronunciation_given_once_does_not_stay():
    spoken = say("the cat sat")
    before = [phone.text for phone in align(spoken).phones]
    assert [phone.text for phone in align(spoken, pronunciations={"cat": "K AE D"}).phones] != before
    assert [phone.text for phone in align(spoken).phones] == before


@needs_sphinx
@pytest.mark.parametrize(
    ("clip", "arguments", "message"),
    [
        (Clip(np.ones(16000) * 0.1, 16000, name="a"), {}, "no text to align with clip 'a'"),
        (Clip(np.ones(16000) * 0.1, 16000), {"text": " ... "}, "no text to align"),
        (Clip(np.zeros(16000), 16000), {"text": "hello"}, "only silence"),
        (Clip(np.ones(1600) * 0.1, 16000, name="a"), {"text": "far too many words for this"}, "does not fit the sound"),
        (Clip(np.ones(1600) * 0.1, 16000), {"text": "cat", "pronunciations": {"cat": "K Q"}}, "'K Q' of 'cat' is not"),
    ],
)
def test_what_cannot_be_aligned_is_one_sentence(clip, arguments, message):
    with pytest.raises(AudioError, match=message):
        align(clip, **arguments)


@needs_sphinx
def test_an_unknown_word_without_rules_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    pronounce.cache_clear()
    with pytest.raises(AudioError, match="The word 'pannikin' is not in the dictionary"):
        align(Clip(np.ones(1600) * 0.1, 16000), "pannikin")


def test_missing_package_names_its_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    module._decoder.cache_clear()
    with pytest.raises(AudioError, match=r'pip install "otoscope\[speech\]"'):
        align(Clip(np.ones(1600) * 0.1, 16000), "cat")


@pytest.mark.parametrize(
    ("ipa", "phones"), [("ˈɔːɹ", ["AO", "R"]), ("tʃ", ["CH"]), ("aɪɚ", ["AY", "ER"]), ("ˈɜː", ["ER"]), ("?", [])]
)
def test_ipa_becomes_arpabet(ipa, phones):
    assert to_arpabet(ipa) == phones


@needs_sphinx
@needs_espeak
def test_rules_agree_with_the_dictionary_on_words_that_it_has():
    words = [
        "splendid",
        "garden",
        "measure",
        "church",
        "yellow",
        "thing",
        "father",
        "voice",
        "round",
        "boy",
        "under",
        "music",
    ]
    decoder = module._decoder()
    same = [pronounce(word) == decoder.lookup_word(word) for word in words]
    assert np.mean(same) >= 0.6


@needs_sphinx
@pytest.mark.data
def test_real_sentences_are_aligned(shared_data):
    from otoscope.audio.files import read_manifest

    for clip in read_manifest(shared_data / "librispeech")[:5]:
        found = align(clip)
        assert [word.text for word in found.words] == (clip.text or "").split()
        rate = len(found.phones) / (found.words[-1].end - found.words[0].start)
        assert 6 < rate < 20, "phones per second of speech"


@needs_espeak
def test_words_that_sound_alike():
    assert sound_alike(["SEE"], ["sea,"])
    assert sound_alike(["a", "cross"], ["a", "cross"])
    assert not sound_alike(["expected"], ["expect"])
    assert not sound_alike(["see"], [])
