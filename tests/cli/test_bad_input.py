"""A row per kind of bad input of DESIGN.md: what can be handled is, with a notice; the rest is one sentence and exit code 2."""

from __future__ import annotations

import errno
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from otoscope.runs import files


def _wav(path: Path, samples: np.ndarray, rate: int = 16000) -> Path:
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return path


def _bytes(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _truncated(folder: Path) -> Path:
    path = _wav(folder / "cut.wav", np.full(16000, 0.1, np.float32))
    data = path.read_bytes()
    return _bytes(path, data[: len(data) // 2])


def _huge(folder: Path) -> Path:
    """Three hours as the header says, and as the (sparse) file is long."""
    size, rate = 3 * 3600 * 16000 * 2, 16000
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16, b"data", size
    )
    path = _bytes(folder / "huge.wav", head)
    with path.open("r+b") as raw:
        raw.truncate(len(head) + size)
    return path


def _manifest(folder: Path) -> Path:
    (folder / "set").mkdir()
    _wav(folder / "set" / "here.wav", np.full(800, 0.1, np.float32))
    (folder / "set" / "manifest.tsv").write_text("path\ttext\nhere.wav\thi\ngone.wav\tbye\n")
    return folder / "set"


def _not_finite(folder: Path) -> Path:
    samples = np.full(1600, 0.1, np.float32)
    samples[800] = np.nan
    return _wav(folder / "nan.wav", samples)


SOUNDS = {
    "missing file": (lambda d: d / "no.wav", "There is no file {path}; check the path."),
    "empty file": (lambda d: _bytes(d / "e.wav", b""), "The file {path} is empty (0 bytes); copy or record it again."),
    "no samples": (lambda d: _wav(d / "z.wav", np.zeros(0, np.float32)), "{path} holds zero samples; give a recording"),
    "corrupt file": (lambda d: _bytes(d / "c.flac", bytes(range(256)) * 20), "{path} is damaged or not sound"),
    "truncated file": (_truncated, "The file {path} is cut short: its header promises 1.00 s and it holds 0.50 s"),
    "huge file": (_huge, "The file {path} holds 3.0 h of sound"),
    "NaN samples": (_not_finite, "NaN or infinite samples in clip '{path}': 1, the first at 0.050 s"),
    "text named .wav": (lambda d: _bytes(d / "t.wav", b"hello\n" * 9), "The file {path} is text, not sound; give a"),
    "manifest row without its file": (_manifest, "Row 3 of {path}/manifest.tsv names 'gone.wav', which is not there"),
    "folder without sound": (lambda d: d, "{path} holds no sound: expected .flac, .mp3, .ogg, .wav files"),
}


@pytest.mark.parametrize(("make", "expected"), SOUNDS.values(), ids=list(SOUNDS))
def test_a_sound_that_cannot_be_used(cli, tmp_path, model, make, expected):
    path = make(tmp_path)
    said = cli("transcribe", path, "--model", model)
    _is_refused(said, expected.format(path=path))


@pytest.mark.parametrize("command", ["lens", "patch", "corrupt"])
def test_the_other_commands_refuse_it_likewise(cli, tmp_path, model, sound, command):
    bad, good = _bytes(tmp_path / "t.wav", b"hello\n" * 9), sound("good.wav")
    arguments = {
        "lens": [bad, "--model", model],
        "patch": ["--clean", good, "--corrupt", bad, "--model", model],
        "corrupt": [bad, tmp_path / "to.wav", "--with", "silence"],
    }[command]
    _is_refused(cli(command, *arguments), f"The file {bad} is text, not sound")


def test_a_silent_file_is_transcribed_with_a_notice(cli, tmp_path, model):
    path = _wav(tmp_path / "s.wav", np.zeros(8000, np.float32))
    said = cli("transcribe", path, "--model", model)
    assert said.code == 0
    assert "note: s: silent: no sample is louder than one step of 16 bits" in said.err


def test_two_silent_files_hold_no_difference(cli, tmp_path, model):
    first, second = (_wav(tmp_path / name, np.zeros(8000, np.float32)) for name in ("a.wav", "b.wav"))
    said = cli("patch", "--clean", first, "--corrupt", second, "--model", model)
    _is_refused(said, f"{first} and {second} hold the same samples, so there is nothing to localise")


def test_stereo_is_mixed_down_with_a_notice(cli, tmp_path, model):
    both = np.random.default_rng(0).uniform(-0.2, 0.2, (8000, 2)).astype(np.float32)
    path = _wav(tmp_path / "s.wav", both)
    for command in ("transcribe", "lens"):
        said = cli(command, path, "--model", model)
        assert said.code == 0
        assert "2 channels mixed down to one" in said.err


def test_another_rate_is_resampled_with_a_notice(cli, sound, model):
    path = sound("s.wav", rate=8000)
    for command in ("transcribe", "lens"):
        said = cli(command, path, "--model", model)
        assert said.code == 0
        assert "resampled from 8000 to 16000 Hz, so it holds nothing above 4000 Hz" in said.err


def test_an_atlas_needs_both_kinds_of_recordings(cli, tmp_path, model):
    _is_refused(cli("atlas", "--model", model, "--data", tmp_path), f"the folder '{tmp_path}' holds no LibriSpeech")


def test_clips_of_unequal_length(cli, sound, model):
    first, second = sound("a.wav", 0, 0.5), sound("b.wav", 1, 0.6)
    said = cli("patch", "--clean", first, "--corrupt", second, "--model", model)
    _is_refused(said, "the clean clip has 8000 samples (0.500 s) and the corrupt one 9600 (0.600 s)")


def test_a_sound_longer_than_the_model_hears(cli, sound, model):
    _is_refused(cli("lens", sound(seconds=1.5), "--model", model), "lasts 1.5 s and")


def test_a_corruption_that_is_not_there_or_not_so(cli, tmp_path, sound):
    source, target = sound(), tmp_path / "to.wav"
    _is_refused(cli("corrupt", source, target, "--with", "white_nois"), "white_nois")
    _is_refused(cli("corrupt", source, target), "corrupt needs a recording, a target and --with NAME")
    said = cli("corrupt", source, target, "--with", "white_noise", "--set", "snr_db=loud")
    _is_refused(said, "snr_db=loud does not fit white_noise: expected a number.")
    said = cli("corrupt", source, target, "--with", "white_noise", "--span", 0.4, 0.9)
    _is_refused(said, "The span 0.4-0.9 s is not inside clip 'a', which lasts 0.500 s")
    assert not target.exists()


SITES = {
    "unknown stack": ("encodr.0.resid_post", "has no stack 'encodr': it has frontend, encoder, decoder."),
    "unknown site": ("encoder.0.resid_pst", "has no point 'resid_pst': it has"),
    "unknown layer": ("encoder.99.resid_post", "has no layer 99: its layers are 0 to 1."),
    "unknown layer, all of it": ("encoder.99", "names no site of"),
    "unknown head": ("encoder.0.z.99", "has no head 99: its heads are 0 to 1."),
}


@pytest.mark.parametrize(("pattern", "expected"), SITES.values(), ids=list(SITES))
def test_a_site_that_is_not_there(cli, model, pattern, expected):
    _is_refused(cli("sites", model, pattern), expected)


def test_an_unknown_model_and_no_network(cli, sound, model, monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setenv("OTOSCOPE_CACHE", str(tmp_path / "cache"))
    path = sound()
    _is_refused(cli("transcribe", path, "--model", "./no-model"), "'no-model' does not exist: expected a folder")
    said = cli("transcribe", path, "--model", "whisper-tny.en", "--offline")
    _is_refused(said, "'whisper-tny.en' is not on this machine and offline was asked for")
    assert "did you mean" in said.err
    _is_refused(cli("transcribe", path, "--model", "whisper-base", "--offline"), "run 'otoscope fetch whisper-base'")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    said = cli("transcribe", path, "--model", "nobody/nothing")
    _is_refused(said, "'nobody/nothing' is not on this machine and the Hugging Face hub could not be reached")
    _is_refused(cli("transcribe", path, "--model", model, "--dtype", "float7"), "'float7' is not a dtype")
    _is_refused(
        cli("transcribe", path, "--model", model, "--device", "tpu9"), "the device 'tpu9' is not available here"
    )
    _is_refused(cli("fetch", "whisper-huge"), "there is no embedded model 'whisper-huge'")


def test_a_truncated_checkpoint(cli, sound, model, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    weights = broken / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1000])
    said = cli("transcribe", sound(), "--model", broken)
    _is_refused(said, f"'{weights}' has {len(data) - 1000} bytes where {len(data)} were expected")


def test_a_full_disk_keeps_what_is_done(cli, sound, model, tmp_path, monkeypatch):
    out = tmp_path / "run"
    paths = [sound(f"{seed}.wav", seed) for seed in range(3)]
    command = ("transcribe", *paths, "--model", model, "--batch-size", 1, "--out", out)
    whole = files.write_bytes
    written = []

    def fills_up(path: Path, data: bytes) -> None:
        if path.parent.name == "steps":
            written.append(path)
            if len(written) > 2:
                raise files.write_error(path, OSError(errno.ENOSPC, "No space left on device"))
        whole(path, data)

    with monkeypatch.context() as patched:
        patched.setattr("otoscope.runs.steps.write_bytes", fills_up)
        said = cli(*command)
    _is_refused(
        said, "the disk is full: free some space and run the same command again, what was computed so far is kept"
    )
    assert len(list((out / "steps").iterdir())) == 2
    assert cli(*command).code == 0
    assert len(list((out / "steps").iterdir())) == 3


def test_a_full_disk_behind_stdout(model, tmp_path):
    import os
    import subprocess
    import sys

    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "otoscope.cli.main", "corrupt", "--list"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 2
    assert (
        done.stderr
        == "error: the output cannot be used (No space left on device): free space, or choose another place.\n"
    )


def test_a_run_directory_that_cannot_be_used(cli, sound, model, tmp_path):
    path, out = sound(), tmp_path / "mine"
    out.mkdir()
    (out / "diary.txt").write_text("dear")
    _is_refused(cli("models", "--out", out), "holds files that are not a run (such as diary.txt)")
    other = tmp_path / "run"
    assert cli("transcribe", path, "--model", model, "--out", other).code == 0
    said = cli("lens", path, "--model", model, "--out", other)
    _is_refused(said, "holds another run (command 'transcribe' there, 'lens' here): choose another --out")
    said = cli("transcribe", path, "--model", model, "--out", other, "--dtype", "float64")
    _is_refused(said, "holds another run (dtype is 'torch.float32' there, 'torch.float64' here)")


def test_answers_that_cannot_be_compared(cli, model, pair):
    said = cli("patch", *pair, "--model", model, "--answer", "the")
    _is_refused(said, "--answer and --foil go together")
    said = cli("patch", *pair, "--model", model, "--answer", "the", "--foil", "the")
    _is_refused(said, "'the' and 'the' begin with the same token")


def _is_refused(said, expected: str) -> None:
    """Exit code 2, nothing on stdout, and exactly one sentence, which holds ``expected``."""
    assert said.code == 2, said
    assert said.out == ""
    assert "Traceback" not in said.err
    assert len(said.errors) == 1, said.err
    assert expected in said.errors[0]
    assert said.err.endswith(said.errors[0] + "\n")  # the error is the last thing to be read
