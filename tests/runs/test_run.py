"""A run resumes after a kill with the same numbers, refuses what would mix two runs, and survives a full disk."""

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import otoscope
from otoscope.errors import RunError
from otoscope.runs import Claim, Run, Threshold, config_hash
from otoscope.stats import bootstrap

CONFIG = {"model": "tiny", "layers": [0, 1]}

STUDY = """
import sys, time
import numpy as np
from otoscope.runs import Run
from otoscope.stats import bootstrap
with Run(sys.argv[1], "patch", {"pairs": 12}, seeds={"bootstrap": 3}) as run:
    values = []
    for i in range(12):
        def compute():
            time.sleep(float(sys.argv[2]))
            print(i, flush=True)
            return {"effect": np.random.default_rng(i).normal(size=5), "n": i}
        values.append(run.step(f"pair {i}", compute)["effect"].mean())
    run.table("effects", {"pair": list(range(12)), "effect": values})
    run.finish({"effect": bootstrap(values, seed=3)})
"""


def start(path: Path, pause: float) -> subprocess.Popen:
    source = str(Path(otoscope.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(STUDY), str(path), str(pause)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": source},
    )


def results(path: Path) -> dict:
    return json.loads((path / "results.json").read_text())


def test_sigkill_then_resume_ends_with_the_same_bytes(tmp_path):
    whole = start(tmp_path / "whole", 0)
    assert len(whole.communicate()[0].split()) == 12

    killed = start(tmp_path / "killed", 0.05)
    assert killed.stdout
    for _ in range(4):
        killed.stdout.readline()
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "killed" / "results.json").exists()
    assert json.loads((tmp_path / "killed" / "run.json").read_text())["status"] == "running"

    resumed = start(tmp_path / "killed", 0)
    computed = [int(line) for line in resumed.communicate()[0].split()]
    assert resumed.returncode == 0
    assert 0 < len(computed) <= 9  # at least three steps were kept
    for name in ("results.json", "tables/effects.csv"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert json.loads((tmp_path / "killed" / "run.json").read_text())["status"] == "finished"


def test_a_second_process_is_refused_and_a_dead_one_is_not_in_the_way(tmp_path):
    first = start(tmp_path / "run", 30)  # alive until it is killed below
    while not (tmp_path / "run" / "run.json").exists():
        assert first.poll() is None
        time.sleep(0.02)
    second = start(tmp_path / "run", 0)
    assert b"in use by another otoscope process" in second.communicate()[1]
    first.send_signal(signal.SIGKILL)
    first.communicate()
    third = start(tmp_path / "run", 0)
    third.communicate()
    assert third.returncode == 0


def test_same_seed_same_results_in_another_place_at_another_time(tmp_path):
    def study(path: Path) -> bytes:
        with Run(path, "patch", CONFIG, seeds={"bootstrap": 1}) as run:
            claim = Claim("c", "holds", Threshold(">=", 0), 1.0, (0.5, 1.5), 7)
            run.finish({"a": bootstrap(np.arange(9.0), seed=1), "b": float("nan"), "n": 9}, {"b": (0, 1)}, [claim])
        return (path / "results.json").read_bytes()

    one = study(tmp_path / "one")
    time.sleep(1.1)  # timestamps have whole seconds
    assert study(tmp_path / "two") == one
    data = json.loads(one)
    assert list(data) == ["command", "version", "run", "metrics", "intervals", "claims"]
    assert data["metrics"] == {"a": 4.0, "b": None, "n": 9}
    assert data["intervals"]["b"] == [0, 1]
    assert data["claims"][0]["verdict"] == "supported"


def test_run_json_says_how_it_came_to_be(tmp_path):
    with Run(tmp_path / "r", "lens", CONFIG, seeds={"donor": 4}, argv=["otoscope", "lens", "a b.wav"]) as run:
        run.record_weights("tiny", "ab" * 32)
    info = json.loads((tmp_path / "r" / "run.json").read_text())
    assert info["argv"] == "otoscope lens 'a b.wav'"
    assert info["config"] == CONFIG
    assert info["seeds"] == {"donor": 4}
    assert info["weights"] == {"tiny": "ab" * 32}
    assert {"otoscope", "python", "torch", "transformers"} <= set(info["versions"])
    assert info["status"] == "finished"
    assert info["started"] <= info["finished"]


def test_versions_load_no_torch():
    code = "import sys; from otoscope.runs import versions; versions(); sys.exit('torch' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": str(Path(otoscope.__file__).parents[1])}
    assert subprocess.run([sys.executable, "-c", code], env=env).returncode == 0


def test_steps_are_computed_once(tmp_path):
    calls = []
    with Run(tmp_path / "r", "x", CONFIG) as run:
        for _ in range(2):
            assert run.step("a/b: c", lambda: calls.append(1) or 5) == 5
        assert run.has_step("a/b: c")
        assert not run.has_step("a/b  c")
        assert run.step("a/b  c", lambda: 6) == 6  # the same readable name, another step
    with Run(tmp_path / "r", "x", CONFIG) as run:
        assert run.step("a/b: c", lambda: calls.append(1) or 7) == 5
        assert run.reused == 1
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("command", "config", "seeds", "said"),
    [
        ("patch", {**CONFIG, "model": "base"}, {"s": 1}, "model is 'tiny' there, 'base' here"),
        ("patch", {**CONFIG, "alpha": 2}, {"s": 1}, "alpha is None there, 2 here"),
        ("lens", CONFIG, {"s": 1}, "command 'patch' there, 'lens' here"),
        ("patch", CONFIG, {"s": 2}, "s is 1 there, 2 here"),
    ],
)
def test_another_config_is_refused_and_says_what_differs(tmp_path, command, config, seeds, said):
    with Run(tmp_path / "r", "patch", CONFIG, seeds={"s": 1}) as run:
        run.step("k", lambda: 1)
    with pytest.raises(RunError) as caught:
        Run(tmp_path / "r", command, config, seeds=seeds)
    assert said in str(caught.value)
    with Run(tmp_path / "r", command, config, seeds=seeds, fresh=True) as run:
        assert run.step("k", lambda: 2) == 2


def test_other_weights_are_refused_on_resume(tmp_path):
    with Run(tmp_path / "r", "x") as run:
        run.record_weights("tiny", "a" * 64)
    with Run(tmp_path / "r", "x") as run, pytest.raises(RunError, match="other weights of tiny"):
        run.record_weights("tiny", "b" * 64)


def test_foreign_folders_and_files_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for fresh in (False, True):
        with pytest.raises(RunError, match=r"not a run \(such as thesis.tex\)"):
            Run(tmp_path, "x", fresh=fresh)
    with pytest.raises(RunError, match="is a file"):
        Run(tmp_path / "thesis.tex", "x")
    with pytest.raises(RunError, match="cannot write"):
        Run(tmp_path / "thesis.tex" / "run", "x")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_what_a_kill_left_half_written_is_removed(tmp_path):
    (tmp_path / ".part-123").write_text("half")
    with Run(tmp_path, "x"):
        assert not (tmp_path / ".part-123").exists()


def test_full_disk_is_one_sentence_and_keeps_the_work(tmp_path, monkeypatch):
    def full(_handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    def study() -> None:
        with Run(tmp_path / "r", "x", CONFIG) as run:
            run.step("one", lambda: 1)
            with monkeypatch.context() as patch:
                patch.setattr(os, "fsync", full)
                run.step("two", lambda: 2)

    with pytest.raises(RunError, match="the disk is full"):
        study()
    with Run(tmp_path / "r", "x", CONFIG) as run:
        assert run.has_step("one")
        assert not run.has_step("two")
        assert run.step("one", lambda: pytest.fail("computed again")) == 1


def test_the_first_error_is_the_one_seen_on_a_full_disk(tmp_path, monkeypatch):
    def full(_handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    def study() -> None:
        with Run(tmp_path / "r", "x"):
            monkeypatch.setattr(os, "fsync", full)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        study()


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, "interrupted"), (ValueError, "failed")])
def test_ctrl_c_and_errors_keep_finished_steps(tmp_path, error, status):
    def study() -> None:
        with Run(tmp_path / "r", "x") as run:
            run.step("one", lambda: 1)

            def stop():
                raise error("no")

            run.step("two", stop)

    with pytest.raises(error):
        study()
    assert json.loads((tmp_path / "r" / "run.json").read_text())["status"] == status
    with Run(tmp_path / "r", "x") as run:
        assert run.has_step("one")
        assert not run.has_step("two")


def test_a_path_outside_the_run_is_refused(tmp_path):
    with Run(tmp_path / "r", "x") as run, pytest.raises(RunError, match="outside the run"):
        run.write("../elsewhere.txt", "x")
    assert not (tmp_path / "elsewhere.txt").exists()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_directory_is_one_sentence(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match="permission was denied"):
        Run(tmp_path / "r", "x")


def test_config_hash_ignores_order():
    assert (
        config_hash({"a": 1, "b": [1, 2]}) == config_hash({"b": (1, 2), "a": 1}) != config_hash({"a": 1, "b": [2, 1]})
    )
