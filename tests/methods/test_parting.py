"""Where both sides part: by words, not by the case of a reference that has none; with a time that fits the sound."""

from types import SimpleNamespace

import pytest

from otoscope.methods.parting import LATE_START, SHORTEST, partings, widened
from otoscope.models.asr_errors import compare

WORDS = {"Ġ" + w: i for i, w in enumerate(["the", "The", "silver", "Silver", "cord", "Cord", "gold", "i", "I"])}
END = 99


class Reader:
    """One token per word, with the space before it."""

    def __call__(self, text, add_special_tokens=False):
        return SimpleNamespace(input_ids=[WORDS["Ġ" + word] for word in text.split()])

    def decode(self, tokens):
        return " ".join(name[1:] for name, token in WORDS.items() if token in tokens)


MODEL = SimpleNamespace(
    tokenizer=Reader(), hf=SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=END))
)  # fmt: skip


def found(said, written):
    comparison = compare(said, written)
    words = [[WORDS["Ġ" + word]] for word in written.split()]
    return partings(MODEL, comparison, comparison.errors[0], words)  # type: ignore[arg-type]


def test_every_spelling_of_a_reference_without_case_is_a_way():
    ways = found("THE SILVER CORD", "the gold cord")
    assert {way.said for way in ways} == {WORDS["Ġsilver"], WORDS["ĠSilver"]}
    assert all(way.before == (WORDS["Ġthe"],) and way.written == WORDS["Ġgold"] for way in ways)


def test_a_reference_with_case_has_one_way():
    (way,) = found("The silver cord", "The gold cord")
    assert (way.said, way.written) == (WORDS["Ġsilver"], WORDS["Ġgold"])


def test_a_text_that_ends_too_early_parts_at_its_end():
    ways = found("the silver cord", "the silver")
    assert [(way.said, way.written) for way in ways] == [(WORDS["Ġcord"], END), (WORDS["ĠCord"], END)]


def test_a_short_span_is_widened_within_the_sound():
    assert widened(0.5, 0.52, 2.0) == pytest.approx((0.46, 0.56))
    assert widened(0.0, 0.01, 2.0) == pytest.approx((0.0, SHORTEST))
    assert widened(0.99, 1.0, 1.0) == pytest.approx((1 - SHORTEST, 1.0))
    assert widened(0.2, 0.9, 1.0) == (0.2, 0.9)
    assert LATE_START > 0
