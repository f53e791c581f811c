"""Verdicts on evidence whose reason is written by hand, and silence where the evidence says nothing."""

from dataclasses import replace

import pytest

from otoscope.methods.error_evidence import Evidence
from otoscope.methods.error_verdict import judge, settled


def evidence(prior: float, sound: float, clean: float = 10.0, other: float = -6.0, **context: float) -> Evidence:
    """Log odds that add: the text prefers what was written by ``prior``, the sound speaks for the reference by ``sound``."""
    return Evidence(
        (0.5, 0.9), (1, 2), 3, 4, "bare", "bear", prior - sound, (prior, prior + 0.2), (prior - clean, prior - clean + 0.4),
        (prior - other,), alone=-sound, **context,
    )  # fmt: skip


@pytest.mark.parametrize("prior", [0.5, 2.0, 6.0])
@pytest.mark.parametrize("sound", [0.0, -3.0])
def test_sound_that_does_not_say_the_word_was_heard_wrong(prior, sound):
    assert judge(evidence(prior, sound)).name == "heard wrong"


@pytest.mark.parametrize("sound", [8.0, 10.0, 14.0])
def test_sound_as_good_as_a_clean_rendering_that_is_overruled_was_guessed(sound):
    verdict = judge(evidence(sound + 1.5, sound))
    assert verdict.name == "guessed"
    assert verdict.quality > 0.5


def test_a_text_without_which_the_word_is_right_is_to_blame():
    verdict = judge(evidence(9.0, 2.0, without_context=-3.0, neutral_context=-2.5))
    assert verdict.name == "guessed"
    assert "without it" in verdict.reason


def test_a_bad_sound_and_a_text_that_adds_to_it_are_mixed():
    verdict = judge(evidence(2.0, 0.0, without_context=-1.5, neutral_context=1.0))
    assert verdict.name == "mixed"
    assert "without it the word is right" in verdict.reason
    # by less than what says nothing, it does not count
    assert judge(evidence(2.0, 0.0, without_context=-0.5, neutral_context=1.0)).name == "heard wrong"


def test_sound_that_speaks_against_the_words_was_heard_wrong_whatever_a_voice_does():
    assert judge(evidence(2.0, -4.0, clean=0.2)).name == "heard wrong"
    assert judge(replace(evidence(2.0, -4.0), rendered_said=())).name == "heard wrong"


@pytest.mark.parametrize(("sound", "verdict"), [(0.2, "guessed"), (-2.5, "undetermined"), (-2.9, "heard wrong")])
def test_where_little_speaks_for_the_words_the_nearer_rendering_decides(sound, verdict):
    # the place is (sound - other) / (clean - other)
    assert judge(evidence(2.0, sound, clean=0.8, other=-2.8)).name == verdict


def test_words_that_sound_alike_were_guessed():
    assert judge(evidence(2.0, 0.0), alike=True).name == "guessed"


def test_a_harmless_text_changes_nothing():
    plain, harmless = evidence(2.0, 0.0), evidence(2.0, 0.0, without_context=1.8, neutral_context=2.1)
    assert judge(plain).name == judge(harmless).name == "heard wrong"


def test_a_margin_below_zero_is_no_error():
    assert judge(evidence(2.0, 9.0)).name == "no error"


def test_nothing_is_said_where_no_voice_is_understood_or_both_sound_alike():
    silent = evidence(2.0, 0.0, clean=0.2, other=0.0)
    assert judge(silent).name == "undetermined"
    assert judge(replace(silent, rendered_said=(), rendered_written=())).name == "undetermined"
    assert judge(evidence(2.0, 0.0), same_letters=True).name == "undetermined"


def test_what_the_text_expects_drops_out_of_the_place():
    assert evidence(2.0, 1.0).place == pytest.approx(evidence(9.0, 1.0).place)


def test_evidence_survives_json():
    e = evidence(2.0, 1.0, without_context=1.0, neutral_context=0.5)
    assert Evidence.from_json(e.to_json()) == e


@pytest.mark.parametrize("prior", [-9.0, 0.5, 4.0])
@pytest.mark.parametrize("sound", [-4.0, -2.0, 0.0, 3.0, 8.0])
@pytest.mark.parametrize("clean", [0.2, 5.0, 10.0])
@pytest.mark.parametrize(
    "context",
    [{}, {"without_context": -1.0, "neutral_context": -2.0}, {"without_context": -1.0, "neutral_context": 1.0}],
)
def test_a_settled_verdict_does_not_change_with_more_evidence(prior, sound, clean, context):
    whole = evidence(prior, sound, clean, **context)
    heard = replace(whole, rendered_written=(), alone=None)
    for partial in (replace(heard, none=(), rendered_said=()), heard):
        if settled(partial):
            assert judge(partial).name == judge(whole).name
    assert settled(heard) or whole.support >= 1 or whole.clean_support < 1
