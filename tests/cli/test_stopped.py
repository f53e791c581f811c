"""Ctrl-C, SIGKILL and a closed pipe, on processes of their own: what was finished is kept and used again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

#: runs the command line and sends this process a signal when its n-th step is on disk
_DRIVER = """
import os, sys
from otoscope.runs import steps
from otoscope.cli.main import run
number, after, keep = int(sys.argv[1]), int(sys.argv[2]), steps.save
done = []
def save(stem, value):
    value = keep(stem, value)
    done.append(stem)
    if len(done) == after:
        os.kill(os.getpid(), number)
    return value
steps.save = save
sys.exit(run(sys.argv[3:]))
"""


def _signalled(number: int, after: int, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", _DRIVER, str(int(number)), str(after), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def _steps(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (out / "steps").iterdir()}


@pytest.fixture
def no_report(monkeypatch):
    """Figures take longer than the sweeps of a tiny model, and say nothing of resuming."""
    monkeypatch.setattr("otoscope.studies.patch_report.write_report", lambda *_: None)
    monkeypatch.setattr("otoscope.studies.transcribe_report.write_report", lambda *_: None)


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_sweep_goes_on_and_ends_with_the_same_numbers(cli, model, pair, tmp_path, number):
    command = ("patch", *pair, "--model", model, "--width", 0.25)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert cli(*command, "--out", whole).code == 0

    done = _signalled(number, 3, *command, "--out", stopped)
    if number == signal.SIGKILL:
        assert done.returncode == -signal.SIGKILL
    else:
        assert done.returncode == 130
        assert done.stderr.splitlines()[-1] == (
            f"error: interrupted; what was finished is kept in {stopped}, and the same command goes on from there."
        )
        assert "Traceback" not in done.stderr
        assert json.loads((stopped / "run.json").read_text())["status"] == "interrupted"
    assert not (stopped / "results.json").exists()
    kept = _steps(stopped)
    assert len(kept) == 3 < len(_steps(whole))

    assert cli(*command, "--out", stopped).code == 0
    assert {name: time for name, time in _steps(stopped).items() if name in kept} == kept
    assert _steps(stopped).keys() == _steps(whole).keys()
    assert (stopped / "results.json").read_bytes() == (whole / "results.json").read_bytes()


@pytest.mark.usefixtures("no_report")
def test_a_stopped_transcription_goes_on(cli, model, sound, tmp_path):
    paths = [sound(f"{seed}.wav", seed) for seed in range(4)]
    command = ("transcribe", *paths, "--model", model, "--batch-size", 1, "--out", tmp_path / "run", "--json")
    assert _signalled(signal.SIGKILL, 2, *command).returncode == -signal.SIGKILL
    kept = _steps(tmp_path / "run")
    assert len(kept) == 2
    resumed = json.loads(cli(*command).out)["items"]
    assert {name: time for name, time in _steps(tmp_path / "run").items() if name in kept} == kept
    fresh = json.loads(cli(*command[:-3], "--json").out)["items"]
    assert [item["text"] for item in resumed] == [item["text"] for item in fresh]
    assert len({item["text"] for item in fresh}) > 1


def test_a_reader_that_leaves_early_is_no_error():
    command = [sys.executable, "-m", "otoscope.cli.main", "corrupt", "--list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0
