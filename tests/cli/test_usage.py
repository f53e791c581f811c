"""A command line that cannot be read: one sentence that names the thing and the cure, exit code 2."""

from __future__ import annotations

import pytest

from otoscope.cli.main import COMMANDS, run
from otoscope.cli.usage import ABORT, USAGE, sentence

ROWS = {
    "unknown command": (["ptch"], "there is no command 'ptch' (did you mean 'patch'?): commands are demo, listen"),
    "unknown command, nothing near": (["zzzz"], "there is no command 'zzzz': commands are demo, listen"),
    "missing option": (["patch"], "otoscope patch needs --clean (the sound whose answer is to be explained)"),
    "missing argument": (["sites"], "otoscope sites needs MODEL (embedded name, Hugging Face id, or local folder)"),
    "unknown option": (["lens", "--modl", "m", "a.wav"], "lens has no option '--modl' (did you mean '--model'?)"),
    "unknown option before the command": (["--nope"], "otoscope has no option '--nope'"),
    "option without its value": (["patch", "--width"], "requires an argument"),
    "out of range": (
        ["patch", "--clean", "a", "--corrupt", "b", "--width", "0"],
        "--width of otoscope patch cannot be",
    ),
    "not a number": (["transcribe", "a.wav", "--batch-size", "many"], "--batch-size of otoscope transcribe cannot be"),
    "not a choice": (
        ["patch", "--clean", "a", "--corrupt", "b", "--mode", "x"],
        "'x' is not one of 'denoise', 'noise'",
    ),
    "too many arguments": (["models", "surplus"], "unexpected extra argument"),
}


@pytest.mark.parametrize(("arguments", "expected"), ROWS.values(), ids=list(ROWS))
def test_one_sentence_and_exit_code_2(cli, arguments, expected):
    said = cli(*arguments)
    assert said.code == 2
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert expected in said.err
    assert said.err.startswith("error: ")
    assert "--help" in said.err or "commands are" in said.err


def test_debug_adds_the_traceback_and_keeps_the_exit_code(cli):
    for arguments in (
        ["--debug", "patch"],
        ["models", "surplus", "--debug"],
        ["transcribe", "not-there.wav", "--debug"],
    ):
        said = cli(*arguments)
        assert said.code == 2
        assert said.err.startswith("Traceback (most recent call last)")
        assert len(said.errors) == 1


def test_alone_it_shows_what_there_is(cli):
    for arguments in ([], ["--debug"], ["--help"], ["-h"]):
        said = cli(*arguments)
        assert said.code == 0
        assert all(command in said.out for command in COMMANDS)
    assert cli("--version").out.startswith("otoscope 0.")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_shows_an_example(cli, command):
    said = cli(command, "--help")
    assert said.code == 0
    assert f"Example: otoscope {command}" in said.out
    assert "--json" in said.out
    assert "--out" in said.out


def test_errors_of_the_click_package_are_understood_too():
    """Older typers raise click's own classes, newer ones those of a copy: both must be caught."""
    click = pytest.importorskip("click")
    context = click.Context(click.Command("otoscope"), info_name="otoscope")
    option = click.Option(["--width", "-w"], help="How wide.")
    assert issubclass(click.MissingParameter, USAGE)
    assert issubclass(click.Abort, ABORT)
    missing = sentence(click.MissingParameter(ctx=context, param=option))
    assert missing == "otoscope needs --width (how wide): see `otoscope --help` for an example."
    refused = sentence(click.BadParameter("0 is too small.", ctx=context, param=option))
    assert refused == "--width of otoscope cannot be used (0 is too small): see `otoscope --help` for an example."


def test_ctrl_c_says_what_is_kept(cli, monkeypatch, tmp_path):
    import otoscope.models.sources

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(otoscope.models.sources, "available", stop)
    said = cli("models")
    assert said.code == 130
    assert said.errors == [
        "error: interrupted before anything was kept: with --out DIR, the same command goes on from where it was stopped."
    ]
    said = cli("models", "--out", tmp_path / "run")
    assert said.code == 130
    assert f"what was finished is kept in {tmp_path / 'run'}" in said.err


def test_a_bug_of_ours_is_exit_code_1_and_asks_for_a_report(cli, monkeypatch):
    import otoscope.models.sources

    monkeypatch.setattr(otoscope.models.sources, "available", lambda *_: 1 / 0)
    said = cli("models")
    assert said.code == 1
    assert said.errors == [
        "error: otoscope failed (ZeroDivisionError: division by zero); run it again with --debug and report what it prints."
    ]
    assert "Traceback" in cli("models", "--debug").err


def test_a_system_exit_keeps_its_code(monkeypatch):
    import otoscope.models.sources

    def leave(*_):
        raise SystemExit(3)

    monkeypatch.setattr(otoscope.models.sources, "available", leave)
    assert run(["models"]) == 3
