"""``otoscope tasks``: the list, a task's card and examples, and what is said where a task cannot be made."""

from __future__ import annotations

import json

import pytest

from otoscope.tasks.registry import TASKS, make
from tests.tasks import tiny_corpora

KEYS = {"command", "version", "run", "metrics", "intervals", "claims"}


@pytest.fixture
def digits(tmp_path):
    return tiny_corpora.fsdd(tmp_path / "fsdd")


def test_tasks_are_listed(cli):
    for said in (cli("tasks"), cli("tasks", "list")):
        assert said.code == 0, said.err
        for name in TASKS:
            assert f"\n{name} " in said.out


def test_the_list_as_json(cli, tmp_path):
    said = cli("tasks", "list", "--json", "--out", tmp_path / "run")
    given = json.loads(said.out)
    assert set(given) >= KEYS
    assert given["metrics"]["tasks"] == len(TASKS)
    assert [task["name"] for task in given["tasks"]] == list(TASKS)
    assert (tmp_path / "run" / "tables" / "tasks.csv").exists()


def test_options_without_a_command_are_those_of_the_list(cli, tmp_path):
    assert json.loads(cli("tasks", "--json").out) == json.loads(cli("tasks", "list", "--json").out)
    assert cli("tasks", "--out", tmp_path / "run").code == 0
    assert (tmp_path / "run" / "tables" / "tasks.csv").exists()
    said = cli("tasks", "--help")
    assert "play and draw examples of a task" in said.out, "help is that of the group"
    assert "no option '--jsn' (did you mean '--json'?)" in cli("tasks", "--jsn").err


def test_a_task_is_shown(cli, digits, tmp_path):
    said = cli("tasks", "show", "digits", "--data", digits, "--n", 1, "--out", tmp_path / "run")
    assert said.code == 0, said.err
    assert said.out.startswith("digits@1: One spoken digit against another.")
    assert "licence: CC BY-SA 4.0" in said.out
    task = make("digits", n=1, data=digits)
    assert task.digest() in said.out
    assert all(item.pair.name in said.out for item in task)
    assert (tmp_path / "run" / "report.html").exists()


def test_a_task_as_json_has_its_card_and_digests(cli, digits):
    given = json.loads(
        cli("tasks", "show", "digits", "--data", digits, "--seed", 2, "--set", "split=test", "--json").out
    )
    assert set(given) >= KEYS
    task = make("digits", n=4, seed=2, data=digits, split="test")
    assert given["task"] == json.loads(json.dumps(task.describe()))
    assert [item["digest"] for item in given["items"]] == [item.digest() for item in task]
    assert given["metrics"]["n"] == 4


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("show", "digit"), "there is no task 'digit' (did you mean 'digits'?): tasks are commands,"),
        (("show", "minimal-pairs", "--feature", "nasality"), "there is no phonological feature 'nasality'"),
        (("show", "digits", "--feature", "place"), "the task 'digits' has no option 'feature'"),
        (("show", "digits", "--data", "nowhere"), "there is no folder 'nowhere': give the folder of the corpus."),
        (("show", "digits", "--source", "local"), "needs its corpus: give data=FOLDER (--data DIR)."),
        (("show", "digits", "--source", "disk"), "--source of otoscope tasks show cannot be used"),
        (("show", "digits", "--set", "split"), "'split' is no setting of 'digits': expected NAME=VALUE"),
        (("shaw",), "there is no command 'shaw' (did you mean 'show'?): commands are list, show."),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(cli, arguments, sentence):
    said = cli("tasks", *arguments)
    assert said.code == 2
    assert len(said.errors) == 1
    assert sentence in said.errors[0]
    assert "Traceback" not in said.err
