"""Speech synthesis: times that fit the sound, the same sound every time, pairs that differ only where they say."""

import importlib.util
import itertools
import sys

import numpy as np
import pytest

from otoscope.audio.synth import espeak, flite, minimal_pair, say
from otoscope.audio.synth.engine import bare, owners_of
from otoscope.errors import AudioError

ENGINES = [
    pytest.param(
        "espeak",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("espeakng_loader") is None, reason='needs pip install "otoscope[speech]"'
        ),
    ),
    pytest.param("flite", marks=pytest.mark.skipif(not flite.available(), reason="needs apt-get install flite")),
]
every_engine = pytest.mark.parametrize("engine", ENGINES)


def loudness(clip, start, end):
    return float(np.sqrt(np.mean(np.square(clip.samples[clip.span_samples(start, end)], dtype=np.float64))))


@every_engine
def test_speech_has_its_words_and_phones_in_order_and_within_the_sound(engine):
    clip = say("Bob's 42 dogs, don't sit on the mat!", engine=engine)
    assert clip.rate == 16000
    assert [word.text for word in clip.words] == ["Bob's", "42", "dogs", "don't", "sit", "on", "the", "mat"]
    assert len(clip.phones) > 20
    for spans in (clip.words, clip.phones):
        assert all(first.end <= second.start + 1e-6 for first, second in itertools.pairwise(spans))
        assert all(span.duration > 0.005 for span in spans)
        assert spans[-1].end <= clip.duration
    for word in clip.words:
        inside = [phone for phone in clip.phones if word.start <= phone.start and phone.end <= word.end]
        assert inside[0].start == word.start
        assert inside[-1].end == word.end
    assert {"s", "t", "n", "m"} <= {phone.text for phone in clip.phones}


@every_engine
def test_times_fit_the_sound(engine):
    clip = say("sassa, fafa", engine=engine)
    vowels = [phone for phone in clip.phones if phone.text.strip("ˈˌː")[0] in "aæɑəɐ" and phone.duration > 0.03]
    fricatives = [phone for phone in clip.phones if phone.text in ("s", "f")]
    assert len(vowels) >= 3
    assert len(fricatives) >= 4
    middle = [loudness(clip, v.start + v.duration * 0.3, v.end - v.duration * 0.3) for v in vowels]
    between = [loudness(clip, f.start + f.duration * 0.3, f.end - f.duration * 0.3) for f in fricatives]
    assert min(middle) > max(between)
    pause = next((a.end, b.start) for a, b in zip(clip.words, clip.words[1:]))
    assert pause[1] - pause[0] > 0.05
    assert loudness(clip, pause[0] + 0.04, pause[1] - 0.01) < 0.05 * max(middle)


@every_engine
def test_the_same_words_are_the_same_samples(engine):
    assert say("once more", engine=engine).digest() == say(" once  more", engine=engine).digest()


@every_engine
def test_speed_and_pitch_do_what_they_say(engine):
    plain, fast, high = (say("we are away", engine=engine, **more) for more in ({}, {"speed": 1.5}, {"pitch": 80}))
    assert fast.duration < 0.85 * plain.duration

    def pitch(clip):
        vowel = max(clip.phones, key=lambda phone: phone.duration)
        wave = clip.samples[clip.span_samples(vowel.start, vowel.end)].astype(np.float64)
        correlation = np.correlate(wave, wave, "full")[len(wave) - 1 :]
        return 16000 / (40 + np.argmax(correlation[40:267]))

    assert pitch(high) > 1.15 * pitch(plain)


@every_engine
@pytest.mark.parametrize(
    ("text_a", "text_b"),
    [
        ("please say bad again", "please say pad again"),
        ("good morning Bob", "good morning Rob"),
    ],
)
@pytest.mark.parametrize("join", [False, True])
def test_minimal_pairs_are_equally_long_and_equal_before_their_span(engine, text_a, text_b, join):
    pair = minimal_pair(text_a, text_b, engine=engine, join=join)
    first, second, (start, end) = pair
    assert len(first) == len(second)
    assert first.text == text_a
    assert second.text == text_b
    until = round(start * 16000)
    assert np.array_equal(first.samples[:until], second.samples[:until])
    assert first.samples[until] != second.samples[until]
    assert start == pair.identical_until > 0.1
    assert 0.1 < end - start < 0.9
    changed = second.words[-1 if "again" not in text_b else -2]
    assert end >= changed.end - 1e-6


@pytest.mark.skipif(not flite.available(), reason="needs apt-get install flite")
def test_kal16_is_identical_up_to_the_middle_of_the_phone_before_the_change():
    pair = minimal_pair("please say bad again", "please say pad again", engine="flite")
    vowel = next(phone for phone in pair.first.phones if phone.text == "ey")
    assert vowel.start + 0.3 * vowel.duration < pair.identical_until < vowel.end


@every_engine
def test_joining_makes_the_pair_identical_until_the_changed_phone(engine):
    plain = minimal_pair("please say bad again", "please say pad again", engine=engine)
    joined = minimal_pair("please say bad again", "please say pad again", engine=engine, join=True)
    changed = joined.second.words[2]
    assert plain.identical_until < joined.identical_until
    assert changed.start - 0.006 <= joined.identical_until <= changed.start
    # no click: the step at the join is no larger than those that speech has anyway
    steps = np.abs(np.diff(joined.second.samples))
    where = joined.second.span_samples(changed.start - 0.01, changed.start + 0.002)
    assert steps[where].max() <= steps.max() / 2


@every_engine
@pytest.mark.parametrize("join", [False, True])
def test_a_pair_may_differ_by_a_word_more_at_its_end(engine, join):
    pair = minimal_pair("say it", "say it now", engine=engine, join=join)
    assert len(pair.first) == len(pair.second)
    assert pair.span == (pair.identical_until, pair.second.words[-1].end)
    if join:
        assert pair.identical_until > pair.second.words[0].end - 0.01


@every_engine
def test_a_tail_that_is_shifted_is_said(engine):
    pair = minimal_pair("please say bad again", "please say pad again", engine=engine)
    later = pair.second.words[3].start - pair.first.words[3].start
    (notice,) = [notice for notice in pair.second.notices if "runs" in notice]
    assert f"{abs(later):.3f} s {'later' if later > 0 else 'earlier'}" in notice


@every_engine
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": "..."}, "nothing to say"),
        ({"text": ""}, "nothing to say"),
        ({"text": "hi", "voice": "nobody-here"}, "nobody-here"),
        ({"text": "hi", "speed": 0}, "speed is 0"),
        ({"text": "hi", "pitch": float("nan")}, "pitch is nan"),
    ],
)
def test_what_cannot_be_spoken_is_refused(engine, arguments, message):
    with pytest.raises(AudioError, match=message):
        say(**arguments, engine=engine)


def test_unknown_engine_and_texts_without_difference_or_frame():
    with pytest.raises(AudioError, match="no speech engine 'hal'; choose one of espeak, flite"):
        say("hi", engine="hal")
    with pytest.raises(AudioError, match="have the same words"):
        minimal_pair("say bad", "Say, bad!")
    with pytest.raises(AudioError, match="share no word at their start or end"):
        minimal_pair("good day", "bad night")


def test_missing_package_and_program_name_their_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(AudioError, match=r'pip install "otoscope\[speech\]"'):
        say("hi")
    monkeypatch.setattr(flite.shutil, "which", lambda _: None)
    flite.voices.cache_clear()
    with pytest.raises(AudioError, match="apt-get install flite"):
        say("hi", engine="flite")


def test_a_crash_of_the_worker_is_one_sentence(monkeypatch):
    pytest.importorskip("espeakng_loader")
    monkeypatch.setattr(espeak, "_request", lambda *_: {"library": "/nowhere.so"})
    with pytest.raises(AudioError, match=r"process failed \(OSError: .*nowhere"):
        say("hi")


def test_phones_find_their_token_though_the_sentence_changes_them():
    alone = [("dh", "iy"), ("k", "ae", "t"), (), ("s", "ih", "t")]
    assert owners_of(["dh", "ax", "k", "ae", "s", "ih", "t"], alone) == [0, 0, 1, 1, 3, 3, 3]


@pytest.mark.parametrize(("token", "word"), [("“Don't!”", "Don't"), ("...", ""), ("3.5%", "3.5"), ("x", "x")])
def test_bare_takes_the_punctuation_off(token, word):
    assert bare(token) == word
