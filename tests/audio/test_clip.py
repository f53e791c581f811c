"""Clip: what it refuses, what it keeps, and that nothing can change it."""

import numpy as np
import pytest

from otoscope.audio.clip import Clip, Span
from otoscope.errors import AudioError

RATE = 16000
WORDS = (Span(0.0, 0.4, "one"), Span(0.4, 1.0, "two"))


def clip(**fields) -> Clip:
    samples = np.sin(np.arange(RATE) * 0.1)
    return Clip(**{"samples": samples, "rate": RATE, "text": "one two", "words": WORDS, "name": "a", **fields})


def test_samples_are_read_only_float32_and_not_the_callers():
    mine = np.ones(10)
    made = Clip(mine, RATE)
    mine[0] = 5
    assert made.samples.dtype == np.float32
    assert made.samples[0] == 1
    with pytest.raises(ValueError, match="read-only"):
        made.samples[0] = 2


@pytest.mark.parametrize("view", [lambda base: base, lambda base: base[2:6]])
def test_a_read_only_view_of_writable_memory_is_copied(view):
    base = np.ones(10, np.float32)
    window = view(base)[:]
    window.flags.writeable = False
    made = Clip(window, RATE)
    base[:] = 7
    assert np.all(made.samples == 1)


def test_replace_does_not_copy_the_samples():
    made = clip()
    assert np.shares_memory(made.replace(text="x").samples, made.samples)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"samples": np.zeros((2, 5))}, r"shape \[2, 5\]; give one dimension"),
        ({"samples": np.zeros(5, np.int16)}, "type int16; give floats"),
        ({"samples": np.zeros(0), "words": ()}, "zero samples"),
        (
            {"samples": np.array([0, 0, np.nan] * RATE)},
            "NaN or infinite samples in clip 'a': 16000, the",
        ),
        ({"samples": np.array([0.0, np.inf] * RATE)}, "NaN or infinite"),
        ({"samples": np.array([0.0, 1e300] * RATE)}, "NaN or infinite"),
        ({"rate": 0}, "must be positive"),
        ({"rate": 16000.5}, "whole number of samples per second"),
        ({"rate": "16000"}, "whole number"),
        ({"words": (Span(0.5, 1.2, "late"),)}, "'late' ends at 1.200 s but the sound at 1.000 s"),
    ],
)
def test_refusals_name_the_clip_and_the_cure(fields, message):
    with pytest.raises(AudioError, match=message) as caught:
        clip(**fields)
    assert "'a'" in str(caught.value)


@pytest.mark.parametrize("times", [(1.0, 0.5), (-0.1, 0.5), (0.0, float("nan")), (0.0, float("inf"))])
def test_span_refuses_times_that_are_none(times):
    with pytest.raises(AudioError, match="0 <= start <= end"):
        Span(*times, "x")


def test_span_samples_rounds_to_the_nearest_sample():
    assert clip().span_samples(0.25, 0.5) == slice(4000, 8000)
    assert clip().span_samples(0.9, 1.0005) == slice(14400, 16000)
    assert clip().span_samples(0.1 + 0.49 / RATE, 0.2) == slice(1600, 3200)


@pytest.mark.parametrize("span", [(0.5, 1.5), (-0.2, 0.5), (0.5, 0.5), (0.6, 0.5), (float("nan"), 0.5)])
def test_span_outside_names_the_duration(span):
    with pytest.raises(AudioError, match=r"not inside clip 'a', which lasts 1.000 s"):
        clip().span_samples(*span)


def test_slice_shifts_times_and_keeps_the_words_whose_middle_is_inside():
    part = clip().slice(0.3, 0.9)
    assert len(part) == 9600
    assert np.array_equal(part.samples, clip().samples[4800:14400])
    (word,) = part.words
    assert (word.start, word.end, word.text) == (pytest.approx(0.1), pytest.approx(0.6), "two")
    assert part.text == "two"
    assert clip(words=()).slice(0.3, 0.9).text is None


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 48000])
def test_resample_keeps_times_pitch_and_level(rate):
    tone = Clip(np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE), RATE, words=WORDS)
    out = tone.resample(rate)
    assert abs(len(out) - rate) <= 1
    assert [word.text for word in out.words] == ["one", "two"]
    want = np.sin(2 * np.pi * 440 * np.arange(len(out)) / rate)
    middle = slice(rate // 10, -rate // 10)
    assert np.abs(out.samples[middle] - want[middle]).max() < 1e-4
    assert bool(out.notices) == (rate != RATE)


def test_digest_tells_content_and_rate_and_nothing_else():
    assert clip().digest() == clip(text="other", name="b").digest()
    assert clip().digest() != clip(rate=8000, words=()).digest()
    changed = clip().samples.copy()
    changed[-1] += 1e-6
    assert clip(samples=changed).digest() != clip().digest()
