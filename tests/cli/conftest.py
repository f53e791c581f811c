"""The command line as a person meets it, on a tiny Whisper in a folder, offline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from otoscope.audio.clip import Clip
from otoscope.audio.files import write
from otoscope.cli.main import run
from tests.cli.folder import save_tiny_whisper


class Said(NamedTuple):
    """Exit code, stdout and stderr of a command."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("error: ")]


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """Folder of a random Whisper that hears one second and writes different nonsense for different sounds."""
    return save_tiny_whisper(tmp_path_factory.mktemp("model"))


@pytest.fixture
def cli(capsys) -> Callable[..., Said]:
    """Runs a command in this process."""

    def call(*arguments: object) -> Said:
        code = run([str(argument) for argument in arguments])
        return Said(code, *capsys.readouterr())

    return call


@pytest.fixture
def sound(tmp_path) -> Callable[..., Path]:
    """Writes seeded noise to a file in the test's own folder."""

    def make(name: str = "a.wav", seed: int = 0, seconds: float = 0.5, rate: int = 16000, loud: float = 0.1) -> Path:
        samples = np.random.default_rng(seed).standard_normal(round(seconds * rate)).astype(np.float32)
        return write(tmp_path / name, Clip(np.clip(loud * samples, -1, 1), rate))

    return make


@pytest.fixture
def pair(sound) -> tuple[str, ...]:
    """Options of ``patch`` for two sounds that the tiny model hears differently."""
    return ("--clean", str(sound("clean.wav", 0)), "--corrupt", str(sound("corrupt.wav", 1)))
