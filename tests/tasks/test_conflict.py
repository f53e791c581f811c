"""Conflict items: what differs between conditions is what is meant to differ, and nothing else."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest

from otoscope.audio.clip import Clip
from otoscope.errors import OtoscopeError, TaskError
from otoscope.tasks.conflict import CONTEXTS, ConflictItem, ConflictTask, plain
from otoscope.tasks.conflict_corners import CORNERS, check_labels, corners, usable
from otoscope.tasks.conflict_sounds import SOUNDS, with_others
from otoscope.tasks.framings import FRAMINGS, render, wordings
from tests.tasks.conflict_clips import RATE, clip, tiny_asr
from tests.tiny import build

WORDS = ("no", "up", "go", "me")
CLIPS = [clip(word, speaker) for speaker in "abc" for word in WORDS]


def item(**fields) -> ConflictItem:
    made = {
        "id": "x", "question": "What word was said?", "labels": WORDS, "sound_label": "no", "text_label": "up",
        "clips": with_others(clip("no"), clip("up"), RATE), "contexts": {"agreeing": "It is no.", "conflicting": "It is up."},
    }  # fmt: skip
    return ConflictItem(**{**made, **fields})


def task(clips=CLIPS, **options) -> ConflictTask:
    return ConflictTask.from_clips(clips, "What word was said?", **options)


@pytest.fixture(scope="module")
def model():
    return build("qwen2_audio")


# -- framings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", FRAMINGS)
def test_every_wording_changes_in_the_label_and_nowhere_else(framing):
    assert len(wordings(framing)) >= 3
    for i in range(len(wordings(framing))):
        texts = [render(framing, label, wording=i, topic="the word") for label in ("seven", "two")]
        assert texts[0] != texts[1]
        assert texts[0].split("seven") == texts[1].split("two")
        assert len(texts[0].split("seven")) == 2
        assert "the word" in texts[0]
        assert not set("{}") & set(texts[0])


def test_a_framing_of_ones_own_needs_its_slot_and_braces_in_labels_are_only_braces():
    assert render("They told me {label}!", "seven") == "They told me seven!"
    assert render("caption", "{topic}", topic="it") == 'The caption says it is "{topic}".'
    assert render("caption", "seven") == 'The caption says the answer is "seven".'
    for bad in ("rumour", "{label} or {label}", ""):
        with pytest.raises(TaskError, match="is no framing: expected one of caption, hint, speaker, transcript"):
            render(bad, "seven")


# -- items -------------------------------------------------------------------------------------------------------------


def test_an_item_knows_what_each_condition_says():
    one = item()
    assert tuple(one.clips) == SOUNDS
    assert [one.said(s) for s in SOUNDS] == ["no", "up", None, None]
    assert [one.context(c) for c in CONTEXTS] == ["", "It is no.", "It is up."]
    with pytest.raises(TaskError, match="no counterfactual sound; it has clean, silent, noise"):
        item(clips=with_others(clip("no"), None, RATE)).clip("counterfactual")
    with pytest.raises(TaskError, match="no context 'opposing'; choose one of neutral, agreeing, conflicting"):
        one.context("opposing")  # type: ignore[arg-type]


def test_the_other_sounds_are_equally_long_and_say_nothing():
    short, long = clip("no", seconds=0.2), clip("up", seconds=0.3)
    sounds = with_others(short, long, RATE, seconds=0.5, seed=3)
    assert {(c.rate, len(c)) for c in sounds.values()} == {(RATE, 8000)}
    assert np.array_equal(sounds["clean"].samples[:3200], short.samples)
    assert not sounds["clean"].samples[3200:].any()
    assert np.array_equal(sounds["counterfactual"].samples[:4800], long.samples)
    assert not sounds["silent"].samples.any()
    assert sounds["noise"].rms == pytest.approx(sounds["clean"].rms, rel=1e-5)
    assert abs(np.corrcoef(sounds["noise"].samples, sounds["clean"].samples)[0, 1]) < 0.05
    assert (sounds["silent"].text, sounds["noise"].text) == (None, None)
    # without a length of its own, the longer of the two decides; other rates are brought to one
    assert len(with_others(short, long, RATE)["silent"]) == 4800
    assert len(with_others(short, long, 8000)["noise"]) == 2400
    assert with_others(short, None, RATE, seed=3)["noise"].digest() != with_others(short, None, RATE)["noise"].digest()
    with pytest.raises(TaskError, match=r"'anyone up 0' lasts 0.300 s and the items 0.25 s; cut it with clip.slice"):
        with_others(short, long, RATE, seconds=0.25)
    with pytest.raises(TaskError, match="'hush', is silent, so it says no label"):
        with_others(Clip(np.zeros(100, np.float32), RATE, name="hush"), long, RATE)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"question": " "}, "has no question"),
        ({"labels": ("no",)}, "give at least two, none of them empty"),
        ({"labels": ("no", "up", "!")}, "give at least two, none of them empty"),
        ({"labels": ("no", "up", "No.")}, "has the label 'No.' twice"),
        ({"text_label": "down"}, "text label 'down', which is not among its labels no, up, go, me"),
        ({"sound_label": "NO"}, "sound label 'NO', which is not among"),
        ({"text_label": "no"}, "says 'no' in sound and in text"),
        ({"clips": {"silent": clip("no")}}, "has no clean sound"),
        ({"clips": {"clean": clip("no"), "noise": clip("no", seconds=0.3)}}, "4000 samples at 16000 Hz and the noise one 4800"),
        ({"clips": {"clean": clip("no"), "noise": clip("no").replace(rate=8000)}}, "the noise one 4000 at 8000 Hz"),
        ({"contexts": {"agreeing": "It is no."}}, "has no conflicting context"),
        ({"contexts": {"agreeing": " ", "conflicting": "It is up."}}, "has no agreeing context"),
    ],
)  # fmt: skip
def test_what_is_no_item_is_refused(fields, message):
    with pytest.raises(TaskError, match=f"tem 'x' .*{message}"):
        item(**fields)


def test_labels_compare_without_case_and_punctuation():
    assert plain("Sea-waves. ") == plain("sea  waves") == "sea waves"
    assert plain("Ñandú") == "ñandú"
    assert plain("seventy") != plain("seven")


# -- tasks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [None, 12, 7, 1])
def test_labels_are_said_and_named_equally_often_and_never_meet_themselves(n):
    made = task(n=n)
    assert len(made) == (n or 12)
    said, named = (Counter(getattr(one, kind) for one in made) for kind in ("sound_label", "text_label"))
    for counts in (said, named):
        full = [counts[word] for word in WORDS]
        assert max(full) - min(full) <= 1
    for one in made:
        assert one.sound_label != one.text_label
        assert one.clips["clean"].text == one.sound_label
        assert one.clips["counterfactual"].text == one.text_label
    # any beginning is balanced, too
    for k in range(4, len(made), 4):
        assert len(set(Counter(one.sound_label for one in made.first(k)).values())) == 1
    # no clean recording is used twice, and no pair of labels is favoured
    assert len({one.source for one in made}) == len(made)
    assert max(Counter((one.sound_label, one.text_label) for one in made).values()) <= 2


def test_a_task_depends_on_its_seed_and_on_nothing_else():
    assert task(seed=4).digest() == task(seed=4).digest()
    assert task(seed=4).digest() != task(seed=5).digest()
    assert [one.source for one in task(seed=4)] != [one.source for one in task(seed=5)]
    ids = [one.id for one in task()]
    assert len(set(ids)) == len(ids)


def test_the_same_speaker_is_preferred_then_the_same_sex():
    assert {one.match for one in task()} == {"speaker"}
    assert all(one.clips["counterfactual"].speaker == one.speaker for one in task())
    # each speaker says one word only, so none can be matched with itself; half are of each sex
    lone = [clip(word, f"{word}{i}", sex="male" if i % 2 else "female") for i in range(4) for word in WORDS]
    sexed = task(lone)
    assert {one.match for one in sexed} == {"sex"}
    for one in sexed:
        assert one.clips["clean"].labels["sex"] == one.clips["counterfactual"].labels["sex"]
    assert {one.match for one in task([clip(word, take=i) for i in range(2) for word in WORDS])} == {""}
    # one speaker says everything, the others one word each: whoever can be matched, is
    mixed = [*(clip(word, "all") for word in WORDS), *(clip(word, f"only {word}") for word in WORDS)]
    matches = {one.source: one.match for one in task(mixed)}
    assert all(match == ("speaker" if source.startswith("all") else "") for source, match in matches.items())


def test_counterfactuals_are_shared_out():
    many = [clip(word, take=i) for i in range(6) for word in WORDS]
    used = Counter(one.clips["counterfactual"].name for one in task(many))
    assert set(used.values()) == {1}


def test_framings_wordings_and_questions_take_turns_for_every_label():
    many = [clip(word, take=i) for i in range(24) for word in WORDS]
    made = ConflictTask.from_clips(many, ["What was it?", "Which word?"], topic="the word")
    assert len({(one.framing, one.contexts["agreeing"].replace(f'"{one.sound_label}"', "?")) for one in made}) == 12
    ways = defaultdict(Counter)
    for one in made:
        ways[one.sound_label][one.question, one.contexts["agreeing"].replace(f'"{one.sound_label}"', "?")] += 1
    assert all(len(seen) == 24 and set(seen.values()) == {1} for seen in ways.values())
    assert Counter(one.framing for one in made.first(4)) == dict.fromkeys(FRAMINGS, 1)
    only = task(framings=["hint", "Psst: {label}"], wording=2, topic="the word")
    assert {one.framing for one in only} == {"hint", "own"}
    expected = ('As a hint, the word might be "{}".', "Psst: {}")
    assert all(one.contexts["conflicting"] in [text.format(one.text_label) for text in expected] for one in only)


def test_labels_come_from_where_they_are_said_to_be():
    bare = [one.replace(labels={}) for one in CLIPS]
    assert task(bare, label="text").labels == tuple(sorted(WORDS))
    loud = task(bare, label=lambda one: None if one.text == "me" else f"{one.text}!", labels=("up!", "no!"))
    assert loud.labels == ("up!", "no!")
    assert len(loud) == 6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: task([]), "The labels are none; give at least two"),
        (lambda: task(labels=("no",)), "The labels are no; give at least two"),
        (lambda: task(labels=("no", "up", "no")), "The labels are no, up, no; give at least two, each once"),
        (lambda: task(labels=("no", "yes")), "There are 0 recordings of 'yes', and 1 of each label are needed"),
        (lambda: task(n=13), "There are 3 recordings of '.*', and 4 of each label are needed; .*at most 12 items"),
        (lambda: task(n=0), "n is 0; give at least one item"),
        (lambda: task(framings=[]), "no framing or no question"),
        (lambda: task(framings=["gossip"]), "'gossip' is no framing"),
        (lambda: ConflictTask("t", (), "CC0"), "The task 't' has no items"),
        (lambda: ConflictTask("t", (item(), item()), "CC0"), "Two items of the task 't' have the id 'x'"),
    ],
)
def test_what_is_no_task_is_refused(make, message):
    with pytest.raises(TaskError, match=message):
        make()


def test_spoken_tasks_need_no_data():
    pytest.importorskip("espeakng_loader", reason='needs pip install "otoscope[speech]"')
    made = ConflictTask.spoken(["yes", "no", "stop"], ["en-us", "en-us+f4"], seed=1)
    assert len(made) == 6
    assert made.labels == ("yes", "no", "stop")
    assert {len(c) for one in made for c in one.clips.values()} == {16000}
    assert {one.match for one in made} == {"speaker"}
    assert {one.speaker for one in made} == {"espeak:en-us", "espeak:en-us+f4"}
    assert all("the word" in one.contexts["conflicting"] for one in made)
    assert "espeak" in made.licence
    assert made.digest() == ConflictTask.spoken(["yes", "no", "stop"], ["en-us", "en-us+f4"], seed=1).digest()
    with pytest.raises(TaskError, match=r"'espeak:en-us yes' lasts .* and the items 0\.1 s"):
        ConflictTask.spoken(["yes", "no"], ["en-us"], seconds=0.1)
    with pytest.raises(OtoscopeError, match="voice 'nobody' is not known"):
        ConflictTask.spoken(["yes", "no"], ["nobody"])


# -- corners -----------------------------------------------------------------------------------------------------------


def test_the_four_corners_differ_in_the_sound_or_in_the_label_of_the_context_only(model):
    for one in task(topic="the word"):
        runs = corners(model, one)
        assert tuple(runs) == CORNERS
        tokens = {corner: asked.inputs.tokens[0] for corner, asked in runs.items()}
        sounds = {corner: asked.inputs.features for corner, asked in runs.items()}
        for first, second in (("AA", "BA"), ("AB", "BB")):
            assert tokens[first].equal(tokens[second])
            assert not sounds[first].equal(sounds[second])
        for first, second in (("AA", "AB"), ("BA", "BB")):
            assert sounds[first].equal(sounds[second])
            differ = (tokens[first] != tokens[second]).nonzero().flatten().tolist()
            assert 0 < len(differ) <= len(model.label_tokens(one.text_label))
            assert set(differ) <= set(runs[first].groups["context"])
        assert len({tuple(asked.groups["audio"]) for asked in runs.values()}) == 1
        assert len(runs["AA"].groups["audio"]) > 0


def test_a_model_that_transcribes_is_asked_nothing_and_has_its_corners():
    contexts = {"agreeing": "a", "conflicting": "b"}
    one = item(labels=("the", "no"), sound_label="the", text_label="no", contexts=contexts)
    runs = corners(tiny_asr(), one)
    assert runs["AB"].inputs.tokens.equal(runs["BB"].inputs.tokens)
    assert not runs["AB"].inputs.features.equal(runs["BB"].inputs.features)
    differ = (runs["AA"].inputs.tokens != runs["AB"].inputs.tokens)[0].nonzero().flatten().tolist()
    assert len(differ) > 0
    assert set(differ) <= set(runs["AA"].groups["context"])
    assert runs["AA"].groups["audio"] == ()


def test_labels_that_begin_with_the_same_token_are_refused(model):
    same = item(labels=("seven", "six", "up"), sound_label="seven", text_label="up")
    with pytest.raises(TaskError, match="'seven' and 'six' of item 'x' begin with the same token in tiny"):
        check_labels(model, same)
    with pytest.raises(TaskError, match="begin with the same token"):
        corners(model, same)
    check_labels(model, item())


def test_runs_of_unequal_length_are_refused(model):
    longer = item(contexts={"agreeing": "It is no.", "conflicting": "It is maybe up."})
    with pytest.raises(TaskError, match=r"makes \d+ tokens in the run AA and \d+ in AB .*A is 'no', B 'up'"):
        corners(model, longer)
    with pytest.raises(TaskError, match="no counterfactual sound"):
        corners(model, item(clips=with_others(clip("no"), None, RATE)))
    # equally many tokens, but the context is longer and the question shorter: told apart by the groups
    moved = item(contexts={"agreeing": "It is no. Well?", "conflicting": "It is up."})
    with pytest.raises(TaskError, match="run AA and"):
        corners(model, moved)


def test_a_task_keeps_what_a_model_can_be_asked_and_says_why_not_the_rest(model):
    mixed = ConflictTask(
        "mixed",
        (
            item(id="good"),
            item(id="alone", clips=with_others(clip("no"), None, RATE)),
            item(id="long", contexts={"agreeing": "It is no.", "conflicting": "It is maybe up."}),
            item(id="same", labels=("no", "up", "upper")),
        ),
        "CC0",
        seed=3,
    )
    kept, refused = usable(model, mixed)
    assert [one.id for one in kept] == ["good", "alone"]
    assert (kept.name, kept.licence, kept.seed) == ("mixed", "CC0", 3)
    assert {one.task for one in kept} == {"mixed"}
    assert [one.id for one in refused] == ["long", "same"]
    assert "tokens in the run AA" in refused[0].why
    assert "'up' and 'upper'" in refused[1].why
    with pytest.raises(TaskError, match="can be asked no item of the task 'mixed': Item 'long'"):
        usable(model, ConflictTask("mixed", mixed.items[2:], "CC0"))
