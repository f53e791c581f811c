"""What holds for every yardstick: silent for identical clips, follows its own factor, unmoved by another one."""

from __future__ import annotations

import numpy as np
import pytest

from otoscope.audio.corruptions import FACTORS
from otoscope.methods.isolation import MARGIN
from otoscope.methods.yardsticks.base import Yardstick
from otoscope.methods.yardsticks.registry import yardsticks
from otoscope.methods.yardsticks.speaker import SpeakerSpace
from otoscope.methods.yardsticks.words import Words
from tests.methods.yardsticks.speech import TEXTS, gain, needs_speech, noisy, slower, spoken

pytestmark = needs_speech
#: natural differences as measured on read speech, rounded: what an effect of 1 is for the margins below
NATURAL = {
    "words": 1.0, "phones": 5.8, "speaker": 1.0, "pitch": 7.0, "loudness": 5.0, "background": 3.5, "rhythm": 0.85,
    "duration": 0.5,
}  # fmt: skip
SIX = [factor for factor in FACTORS if factor not in ("words", "speaker")]


@pytest.fixture(scope="module")
def rulers() -> dict[str, Yardstick]:
    voices = ("en-us+f1", "en-us+m1", "en-gb-x-rp", "en-us+m5")
    training = [spoken(text, voice) for voice in voices for text in TEXTS[:2]]
    made = yardsticks(SpeakerSpace.train(training), recogniser="none is loaded")
    words = made["words"]
    assert isinstance(words, Words)
    for text in TEXTS:
        for clip in (spoken(text), spoken(text, pitch=80), gain(spoken(text), -12), noisy(spoken(text), 40)):
            words.remember(clip, text)
    return made


def test_there_is_one_per_factor_with_a_unit_and_a_sentence(rulers):
    assert tuple(rulers) == FACTORS
    for factor, ruler in rulers.items():
        assert ruler.factor == factor
        assert ruler.unit
        assert ruler.summary


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("span", [None, (0.4, 1.1)])
def test_identical_clips_do_not_differ(rulers, factor, span):
    clip = spoken()
    twin = clip.replace(samples=clip.samples.copy())
    words = rulers["words"]
    words.remember(twin, TEXTS[0])
    words.remember(clip, TEXTS[0])
    assert rulers[factor].moved(clip, twin, span) == pytest.approx(0, abs=1e-9)


OWN = {
    "phones": [lambda: spoken("the old man sold his house this morning"), lambda: spoken("the old man found a house this year"),
               lambda: spoken(TEXTS[1])],
    "pitch": [lambda: spoken(pitch=60), lambda: spoken(pitch=75), lambda: spoken(pitch=99)],
    "loudness": [lambda: gain(spoken(), -3), lambda: gain(spoken(), -6), lambda: gain(spoken(), -12)],
    "background": [lambda: noisy(spoken(), 40), lambda: noisy(spoken(), 25), lambda: noisy(spoken(), 5)],
    "rhythm": [lambda: slower(spoken(), 1.02), lambda: slower(spoken(), 1.05), lambda: slower(spoken(), 1.3)],
    "duration": [lambda: slower(spoken(), 1.1), lambda: slower(spoken(), 1.3), lambda: slower(spoken(), 1.6)],
}  # fmt: skip


@pytest.mark.parametrize("factor", SIX)
def test_it_follows_its_own_factor(rulers, factor):
    sizes = [abs(rulers[factor].moved(spoken(), make())) for make in OWN[factor]]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 3
    assert sizes[-1] > MARGIN * NATURAL[factor]


def test_the_speaker_yardstick_tells_another_voice_from_other_words(rulers):
    own = [rulers["speaker"].moved(spoken(a), spoken(b)) for a, b in zip(TEXTS, TEXTS[1:] + TEXTS[:1])]
    other = [rulers["speaker"].moved(spoken(text), spoken(text, "en-us+f4")) for text in TEXTS]
    assert min(other) > max(own)
    assert min(other) > MARGIN * NATURAL["speaker"]


UNMOVED = [
    ("loudness", lambda: gain(spoken(), -12), [f for f in FACTORS if f != "loudness"]),
    ("background", lambda: noisy(spoken(), 40), [f for f in FACTORS if f not in ("background", "speaker")]),
    ("pitch", lambda: spoken(pitch=80), ["words", "phones", "background", "rhythm", "duration"]),
    ("duration", lambda: slower(spoken(), 1.3), ["phones", "pitch", "loudness", "background"]),
]


@pytest.mark.parametrize(("changed", "make", "factors"), UNMOVED, ids=[row[0] for row in UNMOVED])
def test_it_is_unmoved_by_another_factor(rulers, changed, make, factors):
    clean, corrupt = spoken(), make()
    if "words" in factors:  # what a recogniser would write of both; none is loaded here
        for clip in (clean, corrupt):
            rulers["words"].remember(clip, TEXTS[0])
    moved = {factor: abs(rulers[factor].moved(clean, corrupt)) / NATURAL[factor] for factor in factors}
    assert {factor: size for factor, size in moved.items() if not size <= MARGIN} == {}


def test_a_factor_that_is_not_there_is_unknown_and_not_zero(rulers):
    mute = spoken().replace(samples=np.zeros(len(spoken()), np.float32))
    for factor in ("pitch", "background", "rhythm", "duration", "phones"):
        assert np.isnan(rulers[factor].moved(mute, spoken())), factor


@pytest.mark.parametrize("factor", ["phones", "pitch", "loudness", "background", "rhythm", "duration"])
def test_silence_takes_everything_away(rulers, factor):
    mute = spoken().replace(samples=np.zeros(len(spoken()), np.float32))
    assert abs(rulers[factor].moved(spoken(), mute)) > 0.9 * NATURAL[factor]
