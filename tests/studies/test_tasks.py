"""The study that lists tasks and shows their items."""

from __future__ import annotations

import csv
import json

import pytest

from otoscope.errors import RunError, TaskError
from otoscope.studies import tasks as study
from otoscope.tasks.registry import TASKS, make
from tests.tasks import tiny_corpora


@pytest.fixture
def digits(tmp_path):
    return tiny_corpora.fsdd(tmp_path / "fsdd")


def test_the_list_has_every_task_and_what_works_here(monkeypatch):
    monkeypatch.setattr(study, "sources_here", lambda: {"local", "synthetic"})
    results, rows = study.list_tasks()
    assert results["metrics"] == {"tasks": len(TASKS)}
    assert [row["name"] for row in rows] == list(TASKS)
    of = {row["name"]: row for row in rows}
    assert of["commands"]["sources"] == "local (--data), synthetic"
    assert of["minimal-pairs"]["sources"] == "synthetic"
    assert of["voices"]["asked_of"] == "audio-llm"


def test_sources_need_their_program_or_package(monkeypatch):
    monkeypatch.setattr(study.flite, "available", lambda: False)
    monkeypatch.setattr(study, "find_spec", lambda name: None)
    assert study.sources_here() == {"local"}
    monkeypatch.setattr(study, "find_spec", lambda name: name == "datasets" or None)
    assert study.sources_here() == {"local", "hub"}


def test_a_shown_task_is_the_one_that_a_benchmark_makes(digits, tmp_path):
    results, task = study.show_task("digits", n=2, data=digits, out=tmp_path / "run")
    assert task.digest() == make("digits", n=2, data=digits).digest()
    assert results["metrics"] == {"n": 2, "n_units": 2, "n_answers": 2, "seconds_of_sound": 2.0, "version": 1}
    with (tmp_path / "run" / "tables" / "items.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["digest"] for row in rows] == [item.digest() for item in task]
    assert [(row["answer"], row["foil"]) for row in rows] == [(item.answer, item.foil) for item in task]
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count("<audio") == 4
    for item in task:
        assert f"{item.answer} → {item.foil}" in page
    assert "CC BY-SA 4.0" in page
    assert sorted(p.name for p in (tmp_path / "run" / "figures").glob("*.svg"))[0] == "item-clean-1.svg"


def test_two_runs_write_the_same_results(digits, tmp_path):
    for name in ("a", "b"):
        study.show_task("digits", n=1, data=digits, out=tmp_path / name)
    one, other = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("a", "b"))
    assert one["metrics"] == other["metrics"]
    assert (tmp_path / "a/tables/items.csv").read_bytes() == (tmp_path / "b/tables/items.csv").read_bytes()


def test_a_run_of_other_items_is_not_overwritten(digits, tmp_path):
    study.show_task("digits", n=1, data=digits, out=tmp_path / "run")
    with pytest.raises(RunError):
        study.show_task("digits", n=1, seed=1, data=digits, out=tmp_path / "run")


def test_settings_are_read_as_a_person_writes_them():
    assert study.options_of("commands", ["words=yes,no", "engine=flite"], None) == {
        "words": "yes,no",
        "engine": "flite",
    }
    assert study.options_of("minimal-pairs", None, "place") == {"feature": "place"}
    with pytest.raises(
        TaskError, match="'words' is no setting of 'commands': expected NAME=VALUE with one of words, engine"
    ):
        study.options_of("commands", ["words"], None)
