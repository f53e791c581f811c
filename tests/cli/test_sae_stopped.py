"""Ctrl-C, SIGKILL and damaged shards: `otoscope sae harvest` and `train` go on to the same bytes, or say one sentence."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from otoscope.sae import harvest as harvests
from tests.sae.corpus import write_corpus

SITE = "encoder.0.resid_post"
SHARD = 6_000

#: runs the command line and sends this process a signal when its n-th shard or checkpoint is on disk
_DRIVER = """
import os, sys
from otoscope.cli.main import run
from otoscope.sae import checkpoint, harvest, shards
harvest._LARGEST_SHARD = int(sys.argv[3])
number, after, done = int(sys.argv[1]), int(sys.argv[2]), []
def signalled(write):
    def written(*arguments):
        write(*arguments)
        done.append(arguments)
        if len(done) == after:
            os.kill(os.getpid(), number)
    return written
shards.finish, checkpoint.write = signalled(shards.finish), signalled(checkpoint.write)
sys.exit(run(sys.argv[4:]))
"""


def _signalled(number: int, after: int, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", _DRIVER, str(int(number)), str(after), str(SHARD), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def _files(folder: Path) -> dict[str, bytes]:
    """All of a run but how it came to be."""
    found = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".") and p.name != "run.json")
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("sounds") / "corpus", n=6)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(harvests, "_LARGEST_SHARD", SHARD)


@pytest.fixture
def store(cli, model, corpus, tmp_path) -> Path:
    assert cli("sae", "harvest", corpus, "--model", model, "--site", SITE, "--out", tmp_path / "store").code == 0
    return tmp_path / "store"


def _train(store: Path, out: Path) -> tuple[object, ...]:
    settings = ("warmup=2", "log_every=3", "normalise_batches=2", "checkpoint_every=4")
    return ("sae", "train", store, "--k", "3", "--width", "2x", "--steps", "14", "--batch-size", "32",
            *(word for s in settings for word in ("--set", s)), "--out", out)  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("what", ["harvest", "train"])
def test_a_stopped_run_goes_on_to_the_same_bytes(cli, model, corpus, store, tmp_path, number, what):
    def command(out: Path) -> tuple[object, ...]:
        if what == "train":
            return _train(store, out)
        return ("sae", "harvest", corpus, "--model", model, "--site", SITE, "--out", out)

    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert cli(*command(whole)).code == 0
    done = _signalled(number, 2, *command(stopped))
    if number == signal.SIGKILL:
        assert done.returncode == -signal.SIGKILL
    else:
        assert done.returncode == 130
        assert done.stderr.splitlines()[-1] == (
            f"error: interrupted; what was finished is kept in {stopped}, and the same command goes on from there."
        )
        assert json.loads((stopped / "run.json").read_text())["status"] == "interrupted"
    assert not (stopped / "results.json").exists()
    again = cli(*command(stopped))
    assert again.code == 0, again.err
    assert _files(stopped) == _files(whole)


def test_training_names_a_truncated_shard_and_how_to_mend_it(cli, model, corpus, store, tmp_path):
    path = store / "shards" / f"00001.{SITE}.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    said = cli(*_train(store, tmp_path / "sae"))
    assert said.code == 2
    assert len(said.errors) == 1
    assert f"{path} has {len(data) // 2} bytes where its index says {len(data)}: delete" in said.errors[0]
    again = cli("sae", "harvest", corpus, "--model", model, "--site", SITE, "--out", store)
    assert again.code == 0, again.err
    assert path.read_bytes() == data
    assert cli(*_train(store, tmp_path / "sae")).code == 0
