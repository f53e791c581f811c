"""``otoscope explain`` as a person meets it, on the tiny Whisper in a folder."""

import json

import pytest


def test_an_error_is_explained_in_one_command(cli, model, sound, tmp_path):
    said = cli("explain", sound(), "--reference", "the cat", "--model", model, "--out", tmp_path / "run")
    assert said.code == 0, said.err
    assert "report:" in said.out
    assert (tmp_path / "run" / "report.html").is_file()


def test_json_has_the_keys_and_the_items(cli, model, sound):
    said = cli("explain", sound(), "--reference", "the cat", "--model", model, "--json", "--no-details")
    given = json.loads(said.out)
    assert given["command"] == "explain"
    assert given["metrics"]["errors"] == len(given["items"][0]["errors"])
    assert {"heard_wrong", "guessed", "mixed", "undetermined"} <= set(given["metrics"])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "name a sound file"),
        (["--planted"], "give that folder"),
        (["nothing.wav"], "nothing.wav"),
    ],
)
def test_bad_input_is_one_sentence(cli, model, arguments, expected):
    said = cli("explain", *arguments, "--model", model)
    assert said.code == 2
    assert len(said.errors) == 1
    assert expected in said.errors[0]
    assert "Traceback" not in said.err
