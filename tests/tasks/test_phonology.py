"""The lexicon of minimal pairs, checked against a feature table of its own and against dictionaries of others."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from otoscope.audio.synth import flite
from otoscope.errors import TaskError
from otoscope.tasks.phonology import FEATURES, PHONES, word_pairs

# written from the chart of the International Phonetic Association, by classes instead of by phones
CLASSES = {
    "voiced": "B D G V DH Z ZH JH M N",
    "bilabial": "P B M", "labiodental": "F V", "dental": "TH DH", "alveolar": "T D N S Z",
    "postalveolar": "SH ZH CH JH", "velar": "K G",
    "stop": "P B T D K G", "nasal": "M N", "fricative": "F V TH DH S Z SH ZH", "affricate": "CH JH",
    "high": "IY IH UW", "mid": "EY EH OW", "low": "AE",
    "back": "UW OW", "tense": "IY EY UW OW",
}  # fmt: skip
DIMENSIONS = {
    "voicing": ("voiced",),
    "place": ("bilabial", "labiodental", "dental", "alveolar", "postalveolar", "velar"),
    "manner": ("stop", "nasal", "fricative", "affricate"),
    "height": ("high", "mid", "low"),
    "backness": ("back",),
    "tenseness": ("tense",),
}


def _differences(one: str, other: str) -> set[str]:
    """The dimensions in which two phones fall into different classes."""
    of = {name: set(phones.split()) for name, phones in CLASSES.items()}
    return {
        dimension
        for dimension, names in DIMENSIONS.items()
        if [one in of[name] for name in names] != [other in of[name] for name in names]
    }


@pytest.mark.parametrize("pair", word_pairs(), ids=lambda pair: f"{pair.first}-{pair.second}")
def test_exactly_one_feature_differs(pair):
    assert _differences(*pair.phones) == {pair.feature}
    assert pair.values[0] != pair.values[1]
    one, other = (PHONES[phone] for phone in pair.phones)
    assert {feature for feature in one if one[feature] != other[feature]} == {pair.feature}


def test_there_are_enough_pairs_of_each_feature_and_none_twice():
    pairs = word_pairs()
    assert min(Counter(pair.feature for pair in pairs).values()) >= 8
    assert len({frozenset((pair.first, pair.second)) for pair in pairs}) == len(pairs)
    for feature in FEATURES:
        assert {pair.feature for pair in word_pairs(feature)} == {feature}


def test_the_dictionary_agrees_that_one_phone_differs():
    pytest.importorskip("pocketsphinx", reason='needs pip install "otoscope[speech]"')
    from otoscope.audio.align import _decoder

    look_up = _decoder().lookup_word
    for pair in word_pairs():
        one, other = (look_up(word).split() for word in (pair.first, pair.second))
        differing = [(a, b) for a, b in zip(one, other, strict=True) if a != b]
        assert differing == [pair.phones], (pair, one, other)


@pytest.mark.skipif(not flite.available(), reason="needs flite (apt-get install flite)")
def test_the_synthesiser_says_one_phone_differently():
    for feature in FEATURES:
        for pair in word_pairs(feature)[::5]:
            one, other = (flite._alone(word, "kal16") for word in (pair.first, pair.second))
            differing = [(re.sub(r"\d", "", a).upper(), b.upper()) for a, b in zip(one, other, strict=True) if a != b]
            assert differing == [pair.phones], (pair, one, other)


def test_an_unknown_feature_is_refused_with_the_nearest():
    with pytest.raises(TaskError, match=r"there is no phonological feature 'vocing' \(did you mean 'voicing'\?\)"):
        word_pairs("vocing")  # type: ignore[arg-type]
