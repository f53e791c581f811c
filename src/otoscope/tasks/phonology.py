"""Phonological minimal pairs of English words: the lexicon, and the feature by which the phones of each pair differ.

Phones are ARPAbet as in CMUdict, without stress. Features are those of a phonetics textbook (Ladefoged and Johnson, A Course
in Phonetics, chapters 1 and 2): a consonant has voicing, place and manner; a vowel has height, backness, tenseness and
rounding. Where ``feature`` differs, the other features of the two phones are the same, so pairs such as ``p`` and ``f``
(place and manner) are not in the lexicon.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

from otoscope.errors import TaskError
from otoscope.tasks.source import near

Feature = Literal["voicing", "place", "manner", "height"]

FEATURES: tuple[Feature, ...] = get_args(Feature)


class WordPair(NamedTuple):
    """Two words whose phones are the same but for one."""

    feature: Feature
    first: str
    second: str
    phones: tuple[str, str]
    """the phone that differs, in the first and in the second word"""
    values: tuple[str, str]
    """of the feature, in the first and in the second word"""


def _consonants() -> dict[str, dict[str, str]]:
    table = """
    P voiceless bilabial stop;      B voiced bilabial stop;       M voiced bilabial nasal
    T voiceless alveolar stop;      D voiced alveolar stop;       N voiced alveolar nasal
    K voiceless velar stop;         G voiced velar stop
    F voiceless labiodental fricative; V voiced labiodental fricative
    TH voiceless dental fricative;  DH voiced dental fricative
    S voiceless alveolar fricative; Z voiced alveolar fricative
    SH voiceless postalveolar fricative; ZH voiced postalveolar fricative
    CH voiceless postalveolar affricate; JH voiced postalveolar affricate
    """
    rows = (row.split() for line in table.strip().splitlines() for row in line.split(";"))
    return {phone: {"voicing": voicing, "place": place, "manner": manner} for phone, voicing, place, manner in rows}


def _vowels() -> dict[str, dict[str, str]]:
    table = """
    IY high front tense unrounded;  IH high front lax unrounded
    EY mid front tense unrounded;   EH mid front lax unrounded;   AE low front lax unrounded
    UW high back tense rounded;     OW mid back tense rounded
    """
    rows = (row.split() for line in table.strip().splitlines() for row in line.split(";"))
    return {
        phone: {"height": height, "backness": backness, "tenseness": tenseness, "rounding": rounding}
        for phone, height, backness, tenseness, rounding in rows
    }


#: phone -> its features
PHONES: Mapping[str, Mapping[str, str]] = {**_consonants(), **_vowels()}

#: feature -> "PHONE/PHONE: first/second ..."
_LEXICON: dict[Feature, str] = {
    "voicing": """
        P/B: pad/bad pin/bin pear/bear pack/back pat/bat peach/beach
        T/D: tie/die ten/den town/down
        K/G: coat/goat came/game cold/gold
        F/V: fan/van fine/vine
        S/Z: sip/zip sue/zoo
        CH/JH: cheap/jeep choke/joke
    """,
    "place": """
        P/T: pie/tie pan/tan pop/top pen/ten
        P/K: pup/cup
        T/K: tea/key tap/cap tape/cape
        B/D: big/dig
        B/G: buy/guy bait/gate
        D/G: down/gown
        M/N: map/nap mine/nine might/night meat/neat
        S/SH: sip/ship sell/shell save/shave
    """,
    "manner": """
        B/M: bad/mad bat/mat bill/mill beat/meat bake/make bike/mike
        D/N: deck/neck dot/knot dip/nip down/noun
        D/Z: dip/zip do/zoo
        T/S: tea/sea tell/sell tip/sip top/sop toe/sew
        CH/SH: chip/ship cheap/sheep chew/shoe choose/shoes
    """,
    "height": """
        IH/EH: bit/bet sit/set big/beg bill/bell lid/led miss/mess
        EH/AE: men/man pen/pan bed/bad head/had guess/gas
        IH/AE: bit/bat sit/sat
        IY/EY: sheep/shape beat/bait meal/mail feed/fade
        UW/OW: boot/boat soup/soap moon/moan tool/toll
    """,
}


def word_pairs(feature: Feature | None = None) -> list[WordPair]:
    """The lexicon, or the part of it whose words differ in one feature.

    Raises:
        TaskError: unknown feature.
    """
    if feature is not None and feature not in FEATURES:
        raise TaskError(
            f"there is no phonological feature '{feature}'{near(feature, FEATURES)}: choose one of {', '.join(FEATURES)}."
        )
    return [pair for name in FEATURES if feature in (None, name) for pair in _of(name)]


def _of(feature: Feature) -> list[WordPair]:
    pairs = []
    for line in _LEXICON[feature].strip().splitlines():
        phones, _, words = line.strip().partition(": ")
        one, other = phones.split("/")
        for both in words.split():
            first, second = both.split("/")
            pairs.append(WordPair(feature, first, second, (one, other), (PHONES[one][feature], PHONES[other][feature])))
    return pairs
