"""Word error rates: counted by hand, normalised as Whisper's authors do."""

from __future__ import annotations

import math

import pytest

from otoscope.errors import TaskError
from otoscope.models.wer import normaliser, score


def test_errors_are_counted_over_the_whole_set():
    # one of each kind by hand: "bat" for "cat", "on" lost, "very" added
    result = score(["The bat sat the mat", "a very good day"], ["the cat sat on the mat.", "A good day!"])
    assert (result.substitutions, result.deletions, result.insertions, result.words) == (1, 1, 1, 9)
    assert result.wer == pytest.approx(3 / 9)  # not the mean of the items' rates
    first, second = result.items
    assert (first.errors, first.words, first.wer) == (2, 6, pytest.approx(2 / 6))
    assert (second.hypothesis, second.reference) == ("a very good day", "a good day")
    assert (second.substitutions, second.deletions, second.insertions) == (0, 0, 1)


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("MISTER QUILTER IS THE APOSTLE", "Mr. Quilter is the apostle."),
        ("twenty five colours", "25 colors"),
        ("he'll theorise, um, that it isn't", "he will theorize that it is not"),
        ("[music] good bye (laughs)", "goodbye"),
    ],
)
def test_english_is_compared_as_whispers_authors_do(said, written):
    if "good" in said:  # the normaliser leaves compounds alone
        assert score([said], [written]).wer == 2
    else:
        assert score([said], [written]).wer == 0


def test_other_languages_keep_their_numbers_and_spelling():
    assert score(["Der Kaffee, bitte!"], ["der kaffee bitte"], english=False).wer == 0
    assert score(["25"], ["twenty five"], english=False).wer == 1
    assert normaliser(english=False)("Ça, c'est la vie!").strip() == "ça c est la vie"


def test_empty_texts():
    nothing_heard = score([""], ["one word"])
    assert (nothing_heard.wer, nothing_heard.deletions) == (1, 2)
    nothing_said = score(["two words", "a"], ["[noise]", "a"])
    assert (nothing_said.insertions, nothing_said.words, nothing_said.wer) == (2, 1, 2)
    assert math.isnan(nothing_said.items[0].wer)
    assert math.isnan(score([], []).wer)


def test_unequal_numbers_are_refused():
    with pytest.raises(TaskError, match="1 transcripts cannot be scored against 2 references"):
        score(["a"], ["a", "b"])
