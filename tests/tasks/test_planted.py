"""Planted pairs: the truth that is planted is the only difference."""

import numpy as np
import pytest

from otoscope.audio.clip import Clip, Span
from otoscope.errors import TaskError
from otoscope.tasks.planted import FUNCTION_WORDS, overwrite_pairs

RATE = 16000
SENTENCES = (
    "the small dog found water",
    "a green bird of paradise sang songs",
    "seven children and teachers were walking home",
)


def sentence(text: str, speaker: str, seed: int) -> Clip:
    """Noise with an envelope, a word every 0.3 s or so."""
    rng = np.random.default_rng(seed)
    ends = np.cumsum(rng.uniform(0.25, 0.35, len(text.split())))
    words = tuple(Span(end - 0.24, end, word) for end, word in zip(ends.tolist(), text.split()))
    samples = 0.1 * rng.standard_normal(round((ends[-1] + 0.1) * RATE))
    return Clip(samples, RATE, text=text, words=words, speaker=speaker, name=f"{speaker}{seed}", labels={"set": "x"})


CLIPS = [sentence(text, "ab"[i % 2], i) for i, text in enumerate(SENTENCES * 2)]


@pytest.mark.parametrize("kind", ["noise", "word", "silence"])
def test_the_planted_span_is_the_only_difference_and_a_content_word_inside(kind):
    pairs = overwrite_pairs(CLIPS, kind, seed=1)
    assert len(pairs) == len(CLIPS)
    for pair, clip in zip(pairs, CLIPS):
        assert pair.clean is clip
        where = clip.span_samples(*pair.span)
        same = pair.clean.samples == pair.corrupt.samples
        outside = np.ones(len(clip), bool)
        outside[where] = False
        assert same[outside].all()
        assert (~same[where]).mean() > 0.9
        word = pair.corrupt.labels["word"]
        index = [w.text for w in clip.words].index(word)
        assert 0 < index < len(clip.words) - 1
        assert word not in FUNCTION_WORDS
        span = clip.words[index]
        assert pair.span == (pytest.approx(span.start, abs=1e-4), pytest.approx(span.end, abs=1e-4))
        assert pair.clean_text == clip.text
        assert word in pair.change
        assert pair.corrupt.labels["set"] == "x"


def test_noise_has_the_level_of_the_word_and_silence_has_none():
    for kind, level in (("noise", 1.0), ("silence", 0.0)):
        for pair in overwrite_pairs(CLIPS, kind):
            where = pair.clean.span_samples(*pair.span)
            middle = slice(where.start + 100, where.stop - 100)
            ratio = np.std(pair.corrupt.samples[middle]) / np.std(pair.clean.samples[middle])
            assert ratio == pytest.approx(level, abs=0.1)


def test_noise_at_an_snr_is_added_to_the_word():
    for pair in overwrite_pairs(CLIPS, "noise", snr_db=5.0):
        where = pair.clean.span_samples(*pair.span)
        speech, noise = pair.clean.samples[where], pair.corrupt.samples[where] - pair.clean.samples[where]
        assert 10 * np.log10(np.mean(speech**2) / np.mean(noise**2)) == pytest.approx(5.0, abs=0.01)
        assert "5 dB" in pair.change


def test_another_word_comes_from_the_same_speaker_and_is_in_the_text():
    own = {name: {w.text for c in CLIPS if c.speaker == name for w in c.words} for name in "ab"}
    for pair in overwrite_pairs(CLIPS, "word"):
        donor, word = pair.corrupt.labels["donor"], pair.corrupt.labels["word"]
        assert donor in own[pair.clean.speaker or ""]
        assert donor not in (pair.clean_text or "").split()
        assert pair.corrupt_text == (pair.clean_text or "").replace(f" {word} ", f" {donor} ")


def test_pairs_are_seeded_and_do_not_depend_on_the_other_clips():
    def digests(clips, **more):
        return [pair.corrupt.digest() for pair in overwrite_pairs(clips, "noise", **more)]

    assert digests(CLIPS) == digests(CLIPS)
    assert digests(CLIPS, seed=1) != digests(CLIPS, seed=2)
    assert digests(CLIPS[:3]) == digests(CLIPS)[:3]


def test_so_many_pairs_as_asked_for():
    assert len(overwrite_pairs(CLIPS, n=4)) == 4
    assert len({pair.clean.name for pair in overwrite_pairs(CLIPS, n=4)}) == 4
    twice = overwrite_pairs(CLIPS, per_clip=2)
    assert len(twice) == 2 * len(CLIPS)
    assert len({pair.name for pair in twice}) == len(twice)


@pytest.mark.parametrize(
    ("clips", "arguments", "message"),
    [
        (CLIPS, {"kind": "tone"}, "no kind 'tone' of planted pair; choose one of noise, word, silence"),
        ([clip.replace(words=()) for clip in CLIPS], {}, "has word times; find them first with"),
        ([], {}, "has word times"),
        (CLIPS, {"min_duration": 0.5}, "None of the 6 clips has a content word inside it of 0.5 to 1.5 s"),
        (CLIPS, {"n": 0}, "at least 1"),
        ([sentence("the small the", "a", 0)], {"kind": "word"}, "No word of any clip fits in the place of another"),
    ],
)
def test_what_cannot_be_planted_is_refused(clips, arguments, message):
    with pytest.raises(TaskError, match=message):
        overwrite_pairs(clips, **arguments)
