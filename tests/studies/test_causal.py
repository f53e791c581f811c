"""The causal benchmark on a tiny model: it recovers what was planted, resumes, repeats itself, and lets others in."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files

import jsonschema
import numpy as np
import pytest

from otoscope.errors import TaskError
from otoscope.methods.localise import registry
from otoscope.methods.localise.registry import method
from otoscope.runs import Run
from otoscope.runs.files import plain
from otoscope.studies import causal, causal_cells, causal_run
from otoscope.studies.causal_cells import entrants
from otoscope.studies.causal_protocol import Faithful, Faults, Healthy, read_protocol
from otoscope.studies.causal_scores import chance_test
from otoscope.studies.outcome import compute_now
from otoscope.tasks.pair import Pair
from otoscope.tasks.task import Card, Task, TaskItem
from tests.methods.localise.workbench import posed
from tests.tiny import build, sound

CARD = Card("two noises", "noise", "made", "none", "at random", "everything")
METHODS = ("exact", "random", "activation-difference")


@pytest.fixture(scope="module")
def model():
    return build("whisper")


@pytest.fixture(scope="module")
def task():
    items = [TaskItem(Pair(sound(i), sound(i + 50), (0.0, 0.25), "other"), "yes", "no", unit=str(i)) for i in range(12)]
    return Task("noises", 1, 0, tuple(items), CARD)


@pytest.fixture(autouse=True)
def posed_at_once(monkeypatch):
    """A random model transcribes nothing: its items are those whose answer it prefers itself."""
    monkeypatch.setattr(
        causal_cells, "pose_all", lambda model, task, n: [posed(model, i + 1) for i in range(min(n, 12))]
    )


@pytest.fixture
def protocol():
    asked = replace(
        read_protocol(), methods=METHODS, faults=Faults(12, 0, 2, 1, 2), healthy=Healthy(4, 4),
        faithfulness=Faithful(1, (0.1, 0.5, 1.0)),
    )  # fmt: skip
    return asked


def test_exact_repair_finds_what_was_planted_and_chance_does_not(model, task, protocol):
    found = causal.study(model, [task], protocol, compute_now)
    exact, guess = found.standing("exact-repair"), found.standing("random")
    assert exact.numbers["top1"].value == 1
    assert exact.numbers["auc"].value > 0.98  # of two swapped heads, one alone may repair little
    assert exact.numbers["top1"].n == 12
    assert exact.single.value == 1
    assert 0 < exact.single.n <= 12
    assert guess.numbers["top1"].value < 0.5
    assert found.random_p > 0.01
    assert exact.forwards > found.standing("activation-difference-repair").forwards
    claim = causal.claims(found)[0]
    assert claim.value == 1
    assert claim.controls["random guessing is at chance (p)"].holds
    # the healthy copy of the model stays healthy
    assert found.model.weights_hash() == build("whisper").weights_hash()


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(model, task, protocol, tmp_path):
    def made(seed: int, folder: str) -> tuple[str, str]:
        asked = replace(protocol, seed=seed)
        with Run(tmp_path / folder, "bench causal", asked.describe(), seeds={"seed": seed}) as run:
            found = causal.study(model, [task], asked, run.step)
            run.finish(causal.metrics(found), claims=causal.claims(found))
        return json.dumps(plain(causal.leaderboard(found))), (tmp_path / folder / "results.json").read_text()

    first = made(0, "a")
    assert first == made(0, "b")
    schema = json.loads((files("otoscope.studies") / "causal_leaderboard.schema.json").read_text("utf-8"))
    jsonschema.validate(json.loads(first[0]), schema)
    assert first != made(1, "c")


def test_a_killed_run_computes_no_finished_cell_again(model, task, protocol, tmp_path):
    asked: list[str] = []

    @method("counting", arms=("repair",))
    def counting(case):
        asked.append(case.name)
        if len(asked) == 5:
            raise KeyboardInterrupt
        return np.zeros(len(case.places))

    try:
        those = replace(protocol, methods=("counting",))
        with pytest.raises(KeyboardInterrupt), Run(tmp_path / "run", "bench causal", those.describe()) as run:
            causal.study(model, [task], those, run.step)
        with Run(tmp_path / "run", "bench causal", those.describe()) as run:
            found = causal.study(model, [task], those, run.step)
        faults = [p.fault.name for p in found.tasks[0].faults]
        assert [name for name in asked if name != "healthy"][:4] == faults[:4]
        for name in faults:
            # the cell that was stopped is computed again, and the first fault of each stack once more for its cost
            assert asked.count(name) <= 1 + (name == faults[4]) + 1
        assert sum(asked.count(name) for name in faults[:4]) <= 4 + 2
    finally:
        registry._METHODS.pop("counting", None)


def test_a_method_from_outside_is_on_the_leaderboard(model, task, protocol, tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "import numpy as np\n"
        "from otoscope.methods.localise.registry import method\n\n"
        '@method("mine", arms=("repair",), summary="the first place that differs")\n'
        "def mine(case):\n"
        "    rows = []\n"
        "    for i in range(case.n_items):\n"
        "        base, donor = case.base_values(i), case.donor_values(i)\n"
        "        differs = [(p.of(donor[p.site]) != p.of(base[p.site])).any() for p in case.places]\n"
        "        rows.append([float(d) / (1 + j) for j, d in enumerate(differs)])\n"
        "    return np.array(rows)\n"
    )
    try:
        causal_run.load_plugin(plugin)
        found = causal.study(model, [task], replace(protocol, methods=("mine", "random")), compute_now)
        assert {line.entrant.label for line in found.standings} == {"mine", "random"}
        assert found.standing("mine").numbers["top1"].value > 0.9
        assert any("mine" in line for line in causal_run.lines(found))
    finally:
        registry._METHODS.pop("mine", None)


def test_bad_input_is_one_sentence(model, task, protocol, tmp_path):
    with pytest.raises(TaskError, match="no method 'exakt'"):
        causal.study(model, [task], replace(protocol, methods=("exakt",)), compute_now)
    with pytest.raises(TaskError, match="no Python file"):
        causal_run.load_plugin(tmp_path / "none.py")
    (tmp_path / "bad.py").write_text("1 / 0")
    with pytest.raises(TaskError, match="ZeroDivisionError"):
        causal_run.load_plugin(tmp_path / "bad.py")
    (tmp_path / "p.yaml").write_text("version: 1\n")
    with pytest.raises(TaskError, match="missing or unknown field 'seed'"):
        read_protocol(tmp_path / "p.yaml")
    (tmp_path / "q.yaml").write_text("a: [")
    with pytest.raises(TaskError, match="cannot be read"):
        read_protocol(tmp_path / "q.yaml")
    with pytest.raises(TaskError, match="at least 1"):
        read_protocol().limited(None, None, 0, None)


def test_what_to_patch_with_is_printed_with_its_source(model, task, protocol, tmp_path, monkeypatch):
    claims = [
        {"id": "within", "verdict": "inconclusive", "value": 0.5, "interval": [0.4, 0.6]},
        {"id": "recommendation", "statement": "Patch so."},
    ]
    (tmp_path / "results.json").write_text(json.dumps({"command": "bench distance", "claims": claims}))
    monkeypatch.setattr(causal_run, "load", lambda *_, **__: model)
    monkeypatch.setattr(causal_run, "tasks_for", lambda *_: [task])
    few = replace(protocol, methods=("exact",), faults=Faults(4, 0, 1, 1, 1), healthy=Healthy(2, 2))
    done = causal_run.bench_causal("tiny", few, distance=tmp_path, out=tmp_path / "run")
    said = done.lines[-1]
    assert said.startswith("how clean and corrupt are best made: Patch so. ")
    assert said.endswith(f"Source: {tmp_path}.")
    assert "Patch so." in (tmp_path / "run" / "report.html").read_text()
    assert "otoscope bench distance" in causal_run.advised(None), "the package's own has its source, too"
    with pytest.raises(TaskError, match="holds no finished run"):
        causal_run.advised(tmp_path / "none")


def test_the_quick_protocol_is_the_same_with_smaller_numbers():
    whole, quick = read_protocol(), read_protocol(quick=True)
    assert quick.thresholds == whole.thresholds
    assert quick.faults.model < whole.faults.model
    assert whole.faults.model >= 300


def test_chance_is_told_from_skill():
    # binomial, by scipy
    from scipy.stats import binom

    chances = [0.1] * 40
    for hits in (0, 4, 12):
        law = binom(40, 0.1)
        expected = min(1.0, 2 * min(law.cdf(hits), law.sf(hits - 1)))
        assert chance_test(hits, chances) == pytest.approx(expected)
    assert chance_test(12, chances) < 0.001


def test_no_item_is_in_two_healthy_cases_and_the_level_is_that_of_the_items(model, task, protocol):
    found = causal.study(model, [task], protocol, compute_now)
    kept = found.tasks[0].healthy["exact-repair"]
    assert len(kept.calibration) == 4
    assert [len(case) for case in kept.cases()] == [kept.size] * (4 // kept.size)
    line = found.standing("activation-difference-repair")
    assert line.no_fault_ok.n == 2  # four items, two per case
    assert line.no_fault_level == pytest.approx(4 / 6)  # the largest of four items, against two new ones
    assert line.no_fault_ok.high - line.no_fault_ok.low > 0.5  # two cases prove little, whatever their share


def test_a_method_that_pools_the_items_is_asked_about_every_case(model, task, protocol):
    asked: list[int] = []

    @method("pooling", arms=("repair",))
    def pooling(case):
        asked.append(case.n_items)
        return np.zeros(len(case.places))

    try:
        found = causal.study(model, [task], replace(protocol, methods=("pooling",)), compute_now)
        kept = found.tasks[0].healthy["pooling"]
        assert kept.size == 1
        assert len(kept.cases()) == 2
        assert asked.count(4) == 2  # once about each pool, then about its two cases
        assert found.standing("pooling").no_fault_ok.n == 2
    finally:
        registry._METHODS.pop("pooling", None)


def test_entrants_are_named_by_their_arms():
    labels = [one.label for one in entrants([registry.get(name) for name in METHODS])]
    assert labels == [
        "exact-repair",
        "exact-pairs",
        "random",
        "activation-difference-repair",
        "activation-difference-pairs",
    ]
