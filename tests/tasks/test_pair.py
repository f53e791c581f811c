"""Pair: equal lengths or a sentence that says how to get them."""

import numpy as np
import pytest

from otoscope.audio.clip import Clip, Span
from otoscope.errors import TaskError
from otoscope.tasks.pair import Pair, pad_to_equal

RATE = 16000
CLEAN = Clip(np.linspace(-1, 1, RATE), RATE, text="a", name="clean")
OTHER = CLEAN.replace(samples=np.where(np.arange(RATE) // 4000 == 1, 0.0, CLEAN.samples), text="b", name="corrupt")


def pair(**fields) -> Pair:
    return Pair(**{"clean": CLEAN, "corrupt": OTHER, "span": (0.25, 0.5), "change": "a hole", "name": "p", **fields})


def test_a_pair_knows_where_it_differs_and_swaps():
    made = pair(clean_text="a", corrupt_text="b", seed=3)
    assert made.difference() == (0.25, 0.5)
    assert (made.rate, made.duration) == (RATE, 1.0)
    back = made.swap()
    assert (back.clean, back.corrupt, back.clean_text, back.corrupt_text) == (OTHER, CLEAN, "b", "a")
    assert (back.span, back.change, back.seed, back.name) == (made.span, "a hole", 3, "p")
    assert pair(corrupt=CLEAN).difference() is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"corrupt": CLEAN.slice(0, 0.5)},
            r"pair 'p' the clean clip has 16000 samples \(1.000 s\) and the corrupt one 8000 \(0.500 s\).*pad_to_equal",
        ),
        ({"corrupt": CLEAN.replace(rate=8000)}, r"16000 Hz and the corrupt one 8000 Hz; resample"),
        ({"span": (0.5, 1.5)}, "span of pair 'p' cannot be used: .* lasts 1.000 s"),
        ({"span": (0.5, 0.5)}, "cannot be used"),
        ({"span": (0.5,)}, "cannot be used"),
        ({"span": None}, "cannot be used"),
    ],
)
def test_what_is_no_pair_is_refused(fields, message):
    with pytest.raises(TaskError, match=message):
        pair(**fields)


def test_padding_adds_silence_at_the_end_of_the_shorter_only():
    short = CLEAN.slice(0, 0.75).replace(words=(Span(0, 0.5, "a"),))
    for first, second, padded in ((*pad_to_equal(CLEAN, short), 1), (*pad_to_equal(short, CLEAN), 0)):
        clips = (first, second)
        assert len(first) == len(second) == RATE
        assert clips[1 - padded] is CLEAN
        assert np.array_equal(clips[padded].samples[:12000], short.samples)
        assert not clips[padded].samples[12000:].any()
        assert clips[padded].words == short.words
        assert clips[padded].notices == ("padded with 0.250 s of silence at the end",)
    with pytest.raises(TaskError, match="16000 Hz and the second 8000 Hz"):
        pad_to_equal(CLEAN, CLEAN.replace(rate=8000))
