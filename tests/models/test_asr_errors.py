"""Errors of a transcript: their kinds and places, what does not count as one, and agreement with the word error rate."""

import pytest

from otoscope.models.asr_errors import compare, spelled, token_words
from otoscope.models.wer import score
from tests.models.tiny_whisper import tokenizer


@pytest.mark.parametrize(
    ("said", "written", "expected"),
    [
        ("I SAW A BEAR", "I saw a bare", [("substitution", (3, 4), (3, 4))]),
        ("the house but the cat", "The house. The cat", [("deletion", (2, 3), (2, 2))]),
        ("one two", "one or two", [("insertion", (1, 1), (1, 2))]),
        ("a b c", "a b c a b c a b c", [("repetition", (3, 3), (3, 9))]),
        ("go on", "go on and on and on and on", [("repetition", (2, 2), (2, 8))]),
        ("commandant is cottages", "common nonsense cottages", [("substitution", (0, 2), (0, 2))]),
        ("hi", "", [("deletion", (0, 1), (0, 0))]),
        ("", "hello", [("insertion", (0, 0), (0, 1))]),
        ("I DON'T SAY", "I do say", [("substitution", (1, 2), (1, 2))]),
    ],
)
def test_kind_and_place(said, written, expected):
    assert [(e.kind, e.said_at, e.written_at) for e in compare(said, written).errors] == expected


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("HE HAD TWENTY FIVE DOGS", "He had 25 dogs."),
        ("MISTER SMITH UH WENT", "Mr. Smith went"),
        ("the colour, please", "The color please!"),
        ("I WON'T", "I will not."),
        ("", ""),
    ],
)
def test_what_reads_the_same_is_no_error(said, written):
    assert compare(said, written).errors == ()


def test_words_split_otherwise_are_marked():
    (error,) = compare("THE RINGLEADER SPOKE", "the ring leader spoke").errors
    assert error.same_letters
    assert not compare("a bear", "a bare").errors[0].same_letters


@pytest.mark.parametrize("written", ["the cat sat", "the cat", "a cat sat on", "the the cat sat", "cats sit", ""])
def test_there_are_errors_exactly_where_the_word_error_rate_counts_some(written):
    said = "the cat sat"
    found, scored = compare(said, written), score([written], [said]).items[0]
    assert bool(found.errors) == bool(scored.errors)
    # every word is either matched or in some error, and the longer side of the places is what the rate counts
    assert sum(max(len(e.said), len(e.written)) for e in found.errors) == scored.errors
    assert len(found.matches) + sum(len(e.said) for e in found.errors) == len(said.split())


def test_an_error_reads_as_a_sentence():
    texts = [compare(s, w).errors[0].text for s, w in (("a b", "a c"), ("a b", "a"), ("a", "a c"))]
    assert texts == ["'c' for 'b'", "'b' is missing", "'c' was not said"]


def test_words_own_their_tokens_and_punctuation():
    class Reader:
        """The two methods that are used, on the tiny tokenizer."""

        inner = tokenizer()

        def convert_ids_to_tokens(self, ids):
            return [self.inner.id_to_token(i) for i in ids]

        def decode(self, ids):
            return self.inner.decode(ids)

    ids = Reader.inner.encode(" the cat, sat").ids
    words = token_words(Reader(), ids)
    assert [t for word in words for t in word] == ids
    assert spelled(Reader(), words) == ["the", "cat,", "sat"]
