"""What holds of every task, whatever its sounds come from."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from otoscope.audio.synth import flite
from otoscope.errors import TaskError
from otoscope.tasks.registry import TASKS, make
from otoscope.tasks.source import RATE
from otoscope.tasks.task import Task
from tests.tasks import tiny_corpora

SPOKEN = pytest.mark.skipif(
    not (flite.available() or find_spec("espeakng_loader")), reason='needs flite or pip install "otoscope[speech]"'
)
#: tasks whose recorded form needs no forced alignment
RECORDED = ("commands", "digits", "sounds", "voices")


@pytest.fixture(scope="module")
def corpora(tmp_path_factory) -> Path:
    """A folder with a tiny corpus for each task."""
    folder = tmp_path_factory.mktemp("corpora")
    tiny_corpora.speech_commands(folder / "speech_commands")
    tiny_corpora.fsdd(folder / "fsdd")
    tiny_corpora.esc50(folder / "ESC-50")
    sexes = {"84": "F", "174": "M", "251": "M", "1462": "F", "777": "M"}
    tiny_corpora.librispeech(folder / "LibriSpeech", sexes)
    return folder


def _check(task: Task) -> None:
    """What every item promises."""
    assert len({item.pair.name for item in task}) == len(task)
    assert len({item.digest() for item in task}) == len(task)
    for item in task:
        pair = item.pair
        assert len(pair.clean) == len(pair.corrupt)
        assert pair.rate == RATE
        assert 0 <= pair.span[0] < pair.span[1] <= pair.duration
        assert pair.difference() is not None
        assert item.answer.strip().lower() != item.foil.strip().lower()
        assert item.question.endswith("?")
        assert item.unit
        if task.options:
            assert {item.answer, item.foil} <= set(task.options)


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_items_are_seeded_balanced_and_equally_long(corpora, name):
    size = {"voices": 6}.get(name, 20)
    task = make(name, n=size, data=corpora)
    _check(task)
    assert task.digest() == make(name, n=size, data=corpora).digest()
    assert task.digest() != make(name, n=size, data=corpora, seed=1).digest()
    assert [i.digest() for i in make(name, n=3, data=corpora)] == [i.digest() for i in task.items[:3]]
    # every label is answer and foil equally often, and every unit is used about equally often
    for said in (Counter(i.answer for i in task), Counter(i.foil for i in task)):
        assert set(said) == set(task.options)
        assert len(set(said.values())) == 1
    units = Counter(item.unit for item in task)
    assert max(units.values()) - min(units.values()) <= 2
    assert task.card.licence not in ("", TASKS[name].card.licence)
    assert len({item.pair.duration for item in task}) == 1


@SPOKEN
@pytest.mark.parametrize("name", list(TASKS))
def test_every_task_works_without_data(name):
    n = 4 if name in ("sentences", "voices", "minimal-pairs") else 10
    task = make(name, n=n)
    _check(task)
    assert task.digest() == make(name, n=n).digest()
    assert [i.digest() for i in make(name, n=2)] == [i.digest() for i in task.items[:2]]
    assert [i.digest() for i in make(name, n=2, seed=5)] != [i.digest() for i in task.items[:2]]
    assert task.card.licence == "free of rights"
    assert len({item.unit for item in task}) >= 2


@pytest.mark.parametrize("name", list(TASKS))
def test_a_card_says_what_must_be_known(name):
    source = TASKS[name]
    assert source.name == name
    assert source.version >= 1
    for text in (source.card.summary, source.card.made_by, source.card.limits):
        assert text.endswith(".")
    assert source.card.factor
    assert source.card.licence
    assert source.card.citation
    assert set(source.card.families) <= {"recogniser", "audio-llm"}


def test_recordings_of_one_speaker_are_set_against_each_other_and_padded(corpora):
    for name in ("commands", "digits"):
        for item in make(name, n=20, data=corpora):
            assert item.pair.clean.speaker == item.pair.corrupt.speaker == item.unit
            assert item.labels["same_speaker"] == "yes"
            assert item.pair.duration == 1.0
            assert item.pair.span[1] < 0.7  # what was added is silence, which is no part of the span
            assert not np.any(item.pair.clean.samples[round(0.7 * RATE) :])


def test_a_folder_of_the_corpus_itself_will_do(corpora):
    whole, own = make("digits", n=5, data=corpora), make("digits", n=5, data=corpora / "fsdd")
    assert whole.digest() == own.digest()


def test_digits_are_found_in_speech_commands_too(tmp_path):
    from otoscope.models.mini_labels import DIGITS

    task = make("digits", n=10, data=tiny_corpora.speech_commands(tmp_path / "sc", words=DIGITS))
    assert task.card.source == "Speech Commands v0.02"
    assert {item.answer for item in task} == set(DIGITS)


def test_only_words_that_are_asked_for_are_used(corpora):
    task = make("commands", n=4, data=corpora, words="yes, no")
    assert task.options == ("yes", "no")
    assert {item.answer for item in task} == {"yes", "no"}
    assert make("commands", n=4, data=corpora, words=("yes", "no")).digest() == task.digest()


def test_only_the_fold_that_is_asked_for_is_used(corpora):
    task = make("sounds", n=10, data=corpora, fold=2)
    assert {item.labels["fold"] for item in task} == {"2"}
    assert "vacuum cleaner" not in task.options
    with pytest.raises(TaskError, match=r"there is no fold '9': folds are 1, 2\."):
        make("sounds", data=corpora, fold=9)


def test_what_a_digest_depends_on(corpora):
    task = make("commands", n=4, data=corpora)
    again = {make("commands", n=4, data=corpora, seed=seed).digest() for seed in range(5)}
    assert len(again) == 5
    described = task.describe()
    assert described["digest"] == task.digest()
    assert task.take(2).digest() != task.digest()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("comands",), "there is no task 'comands' (did you mean 'commands'?): tasks are commands, digits, sounds"),
        (("commands", {"source": "locl"}), "there is no source 'locl' (did you mean 'local'?): choose auto, local"),
        (("commands", {"source": "local"}), "the task 'commands' from the source 'local' needs its corpus: give data=FOLDER"),
        (("commands", {"data": "/no/such/folder"}), "there is no folder '/no/such/folder': give the folder of the corpus."),
        (("commands", {"n": 0}), "n is 0: give at least one item"),
        (("commands", {"word": "yes,no"}), "has no option 'word' (did you mean 'words'?): it has words, engine."),
        (("commands", {"words": "yes"}), "words is 'yes': give at least two words"),
        (("minimal-pairs", {"feature": "voice"}), "there is no phonological feature 'voice' (did you mean 'voicing'?)"),
        (("minimal-pairs", {"frame": "no place"}), "the frame 'no place' has no place for the word"),
        (("minimal-pairs", {"source": "hub"}), "the task 'minimal-pairs' has no source 'hub': choose one of synthetic."),
        (("commands", {"engine": "fliet"}), "there is no speech engine 'fliet' (did you mean 'flite'?)"),
        (("voices", {"seconds": "-1"}), "seconds is '-1': give a positive number, such as 3."),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_said_in_one_sentence(arguments, sentence):
    name, options = (*arguments, {})[:2]
    with pytest.raises(TaskError) as error:
        make(name, **options)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_more_items_than_there_are_sounds_are_refused(corpora):
    with pytest.raises(TaskError, match=r"has only 40 items there, and 41 were asked for"):
        make("commands", n=41, data=corpora)
    assert len(make("commands", data=corpora)) == 40


def test_an_empty_folder_is_no_corpus(tmp_path):
    for name in ("commands", "digits", "sounds", "sentences", "voices"):
        with pytest.raises(TaskError, match=r"holds no recordings of this corpus: expected"):
            make(name, data=tmp_path)


def test_a_corpus_of_one_sex_has_no_voices_to_compare(tmp_path):
    folder = tiny_corpora.librispeech(tmp_path / "LibriSpeech", {"84": "F", "1462": "F"})
    with pytest.raises(TaskError, match="there is no recording of a male reader"):
        make("voices", data=folder)


def test_tasks_are_known_without_torch():
    code = "import sys, otoscope.tasks.registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.data
def test_real_recordings_make_every_task(shared_data):
    for name in ("commands", "digits", "sounds", "sentences", "voices"):
        task = make(name, n=6, data=shared_data)
        _check(task)
        assert len({item.unit for item in task}) >= 5
