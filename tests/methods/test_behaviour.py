"""Listening and guessing: measures against numbers worked out by hand, against chance, and on a real adapter."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from otoscope.errors import ModelError, TaskError
from otoscope.methods.behaviour import CONDITIONS, NEEDED, Behaviour, ask_all, behaviour, dealt, reference_following
from otoscope.methods.label_scoring import answers, match, score_labels
from otoscope.stats import bootstrap
from otoscope.tasks.conflict import ConflictItem, ConflictTask
from otoscope.tasks.conflict_sounds import with_others
from tests.tasks.conflict_clips import RATE, clip
from tests.tiny import build

K4 = ("no", "up", "go", "me")


def item(i: int, sound: str, text: str, labels: tuple[str, ...] = K4, speaker: str | None = None) -> ConflictItem:
    clips = {"clean": clip(sound, seconds=0.01), "counterfactual": clip(text, seconds=0.01)}
    contexts = {"agreeing": f"It is {sound}.", "conflicting": f"It is {text}."}
    return ConflictItem(str(i), "What?", labels, sound, text, clips, contexts, speaker=speaker)


#: sound, text
PAIRS = [("no", "up"), ("up", "go"), ("go", "me"), ("me", "no"), ("no", "go"), ("up", "me"), ("go", "no"), ("me", "up")]
ITEMS = [item(i, *pair) for i, pair in enumerate(PAIRS)]
#: three follow the sound, four the text, one neither
CONFLICT = ("no", "up", "go", "no", "go", "me", "no", "")
#: six are right with the sound, two with silence, one of them with both
CLEAN = ("no", "up", "go", "me", "no", "up", "up", "")
SILENT = ("no", "go", "me", "no", "", "me", "go", "")
CHOICES = {("clean", "conflicting"): CONFLICT, ("clean", "neutral"): CLEAN, ("silent", "neutral"): SILENT}


def values(found: Behaviour) -> dict[str, float]:
    return {name: interval.value for name, interval in found.table().items()}


def test_hand_made_answers_give_the_numbers_worked_out_by_hand():
    found = values(behaviour(ITEMS, CHOICES))
    assert found == pytest.approx(
        {
            "listen_rate": 3 / 8,
            "guess_rate": 4 / 8,
            "other_rate": 1 / 8,
            "text_dominance": 4 / 7,
            "audio_contribution": (6 - 2) / 8,
            "following.sound": (3 / 8 - 1 / 3) / (1 - 1 / 3),
            "following.text": (4 / 8 - 1 / 3) / (1 - 1 / 3),
            "accuracy.clean.conflicting": 3 / 8,
            "accuracy.clean.neutral": 6 / 8,
            "accuracy.silent.neutral": 2 / 8,
        }
    )


def test_a_counterfactual_sound_is_right_where_its_own_label_is_answered():
    said = tuple(text for _, text in PAIRS)
    found = behaviour(ITEMS, {("counterfactual", "agreeing"): said, ("noise", "neutral"): said})
    assert found.accuracy["counterfactual", "agreeing"].value == 1
    assert found.accuracy["noise", "neutral"].value == 0


def test_pure_listeners_and_guessers_are_at_the_ends():
    listener, guesser = (tuple(pair[i] for pair in PAIRS) for i in (0, 1))
    for followed, expected in ((listener, (1, 0, 0, 0, 1, 0)), (guesser, (0, 1, 0, 1, 0, 1))):
        found = behaviour(ITEMS, {("clean", "conflicting"): followed})
        names = ("listen_rate", "guess_rate", "other_rate", "text_dominance", "following.sound", "following.text")
        assert tuple(values(found)[name] for name in names) == expected
    deaf = {("clean", "neutral"): guesser, ("silent", "neutral"): listener}
    assert behaviour(ITEMS, deaf).audio_contribution.value == -1


def test_intervals_resample_items_or_speakers():
    found = behaviour(ITEMS, CHOICES, seed=5, n_resamples=500, level=0.9)
    heard = [float(c == pair[0]) for c, pair in zip(CONFLICT, PAIRS)]
    assert found.rates.listen == bootstrap(heard, seed=5, n_resamples=500, level=0.9)
    assert found.rates.listen.n == 8
    named = [item(i, *pair, speaker="ab"[i % 2] if i < 6 else None) for i, pair in enumerate(PAIRS)]
    assert behaviour(named, CHOICES).rates.listen.n == 8
    # two speakers, and two items that stand for themselves
    assert behaviour(named, CHOICES, over="speakers").rates.listen.n == 4


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    items = [ITEMS[i % 8] for i in range(60)]
    covered, runs = 0, 100
    for _ in range(runs):
        # follows the text with probability .6, the sound with .3
        draws = rng.choice(3, size=len(items), p=(0.3, 0.6, 0.1))
        chosen = tuple((one.sound_label, one.text_label, "")[d] for one, d in zip(items, draws))
        found = behaviour(items, {("clean", "conflicting"): chosen}, n_resamples=200)
        covered += found.text_dominance.low <= 2 / 3 <= found.text_dominance.high
    assert 0.88 <= covered / runs <= 0.99


def test_answers_that_know_nothing_are_at_chance():
    rng = np.random.default_rng(1)
    items = [ITEMS[i % 8] for i in range(1000)]
    answered = {condition: tuple(rng.choice(K4, len(items))) for condition in NEEDED}
    found = behaviour(items, answered, n_resamples=300)
    for interval in (found.rates.listen, found.rates.guess, found.accuracy["clean", "neutral"]):
        assert interval.low < 1 / 4 < interval.high
    assert found.text_dominance.low < 1 / 2 < found.text_dominance.high
    assert found.audio_contribution.low < 0 < found.audio_contribution.high
    assert found.following_sound.value == found.following_text.value == 0
    assert found.null["listen"] == pytest.approx(1 / 4, abs=1e-9)


def test_the_null_is_the_mean_over_all_ways_to_deal_the_labels():
    chosen, labels = ("no", "up", "up", "", "go"), ("no", "up", "no", "me", "up")
    shares = [
        np.mean([c == label for c, label in zip(chosen, dealt_labels)])
        for dealt_labels in itertools.permutations(labels)
    ]
    assert dealt(chosen, labels) == pytest.approx(np.mean(shares))
    assert dealt((*chosen, None), (*labels, "no")) == dealt(chosen, labels)
    # a model that always says the same is right as often as that label is asked for, and the null says so
    always = behaviour(ITEMS, {("clean", "conflicting"): ("no",) * 8})
    assert always.null["listen"] == always.rates.listen.value == 1 / 4


def test_chance_is_that_of_the_other_options():
    # following by pure chance among the K - 1 others is 0, and below that it stays 0
    assert reference_following(np.array([[1, 1 / 3], [0, 1 / 3], [0, 1 / 3]])) == 0
    assert reference_following(np.array([[0, 1 / 3]])) == 0
    assert reference_following(np.array([[1, 1 / 3], [1, 1 / 3]])) == 1
    # items with different numbers of options: chances are averaged
    assert reference_following(np.array([[1, 1 / 2], [1, 1 / 4], [0, 3 / 4]])) == pytest.approx(
        (2 / 3 - 1 / 2) / (1 / 2)
    )


def test_what_is_not_defined_is_nan():
    nothing = behaviour(ITEMS, {})
    assert all(math.isnan(value) for value in values(nothing).values())
    assert math.isnan(nothing.null["listen"])
    assert nothing.accuracy == {}
    # nobody follows sound or text
    other = behaviour(ITEMS, {("clean", "conflicting"): ("",) * 8})
    assert (other.rates.other.value, other.rates.listen.value) == (1, 0)
    assert math.isnan(other.text_dominance.value)
    # with two options, not following one is following the other
    two = [item(i, "no", "up", ("no", "up")) for i in range(4)]
    found = behaviour(two, {("clean", "conflicting"): ("no", "no", "up", "no")})
    assert found.rates.listen.value == 3 / 4
    assert math.isnan(found.following_sound.value)
    # one item says nothing about the next
    one = behaviour(ITEMS[:1], {("clean", "conflicting"): ("no",)})
    assert (one.rates.listen.value, math.isnan(one.rates.listen.low)) == (1, True)


def test_items_that_were_not_asked_do_not_count():
    asked = (None, *CONFLICT[1:])
    found = behaviour(ITEMS, {**CHOICES, ("clean", "conflicting"): asked})
    assert found.rates.listen.value == pytest.approx(2 / 7)
    assert (found.rates.listen.n, found.rates.listen.dropped) == (7, 1)
    silent = behaviour(ITEMS, {**CHOICES, ("silent", "neutral"): (None, *SILENT[1:])})
    assert silent.audio_contribution.value == pytest.approx((5 - 1) / 7)
    with pytest.raises(TaskError, match="clean / neutral has 7 answers for 8 items; give one per item"):
        behaviour(ITEMS, {("clean", "neutral"): CLEAN[1:]})


# -- asking a model ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    return build("qwen2_audio")


def test_a_model_is_asked_in_every_condition(model):
    task = ConflictTask.from_clips([clip(word, s) for s in "ab" for word in K4], "What word was said?", seed=1)
    lacking = task.items[0].replace(
        id="lacking", clips={s: c for s, c in task.items[0].clips.items() if s != "counterfactual"}
    )
    fewer = task.items[1].replace(id="fewer", labels=(task.items[1].text_label, task.items[1].sound_label))
    items = [*task, lacking, fewer]
    told = []
    found = ask_all(model, items, batch_size=3, progress=lambda done, total: told.append((done, total)))
    assert told == [(3, 10), (6, 10), (9, 10), (10, 10)]
    assert set(found.choices) == set(found.margins) == set(CONDITIONS)
    for condition in CONDITIONS:
        for i, one in enumerate(items):
            choice, margin = found.choices[condition][i], found.margins[condition][i]
            if condition[0] not in one.clips:
                assert choice is None
                assert math.isnan(margin)
                continue
            scores = dict(zip(one.labels, score_labels(model, one.ask(model, *condition), one.labels)[0]))
            assert choice == max(scores, key=scores.__getitem__)
            assert margin == pytest.approx(scores[one.sound_label] - scores[one.text_label], abs=1e-4)
    assert len(set(found.choices["clean", "conflicting"])) > 1
    measured = behaviour(items, found.choices)
    assert measured.accuracy["counterfactual", "neutral"].dropped == 1
    total = sum(rate.value for rate in measured.rates)
    assert total == pytest.approx(1)


def test_written_answers_are_matched_and_have_no_margins(model, monkeypatch):
    items = list(ConflictTask.from_clips([clip(word) for word in K4], "What word was said?"))
    found = ask_all(model, items, NEEDED[:1], how="write")
    texts = answers(model, [one.ask(model) for one in items])
    assert found.choices == {NEEDED[0]: tuple(match(text, K4) for text in texts)}
    assert found.margins == {}
    monkeypatch.setattr("otoscope.methods.behaviour.answers", lambda *_, **__: ["No!", "it is up", "ME", ""])
    assert ask_all(model, items, NEEDED[:1], how="write").choices[NEEDED[0]] == ("no", "", "me", "")


def test_what_cannot_be_asked_is_refused(model):
    with pytest.raises(TaskError, match="There are no items to ask"):
        ask_all(model, [])
    with pytest.raises(TaskError, match=r"no condition \('loud', 'neutral'\); give a sound of clean, counterfactual"):
        ask_all(model, ITEMS, [("loud", "neutral")])  # type: ignore[list-item]
    with pytest.raises(ModelError, match="cannot be asked"):
        ask_all(build("wav2vec2-ctc"), [ITEMS[0].replace(clips=with_others(clip("no"), None, RATE))])
