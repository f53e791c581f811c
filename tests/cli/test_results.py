"""What a command gives back: one JSON object on stdout, and with --out the same in a run directory."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

KEYS = {"command", "version", "run", "metrics", "intervals", "claims"}


@pytest.fixture
def arguments(model, sound, pair, tmp_path, monkeypatch) -> Callable[[str], list[Any]]:
    """Arguments with which each command works on the tiny model."""
    from otoscope.models import embedded

    folder = tmp_path / "fetched"
    monkeypatch.setattr(embedded, "fetch", lambda name, force, progress: progress(f"{name}: downloading") or folder)

    def of(command: str) -> list[Any]:
        return [
            command,
            *{
                "models": [],
                "fetch": ["whisper-tiny.en"],
                "sites": [model, "encoder.*.resid_post"],
                "transcribe": [sound(), "--model", model],
                "corrupt": [sound(), tmp_path / "to.wav", "--with", "white_noise", "--set", "snr_db=0"],
                "patch": [*pair, "--model", model, "--width", 0.2],
                "lens": [sound(), "--model", model, "--reference", "the"],
            }[command],
        ]

    return of


@pytest.mark.parametrize("command", ["models", "fetch", "sites", "transcribe", "corrupt", "patch", "lens"])
def test_json_and_out_hold_the_same(cli, arguments, tmp_path, command):
    out = tmp_path / "run"
    plain = cli(*arguments(command), "--json")
    assert plain.code == 0, plain.err
    given = json.loads(plain.out)
    assert set(given) >= KEYS
    assert given["command"] == command
    assert given["run"] is None
    assert all(v is None or isinstance(v, int | float) for v in given["metrics"].values())
    assert all(
        set(given["intervals"]) <= set(given["metrics"]) and len(ends) == 2 for ends in given["intervals"].values()
    )

    kept = json.loads(cli(*arguments(command), "--json", "--out", out).out)
    assert kept["run"].startswith(f"{command}-")
    assert set(kept) == set(given)
    assert json.loads((out / "results.json").read_text()) == {key: kept[key] for key in KEYS}
    assert json.loads((out / "run.json").read_text())["status"] == "finished"
    if command in ("transcribe", "lens", "patch"):  # where there is sound, there is a page that plays it
        page = (out / "report.html").read_text()
        assert "<audio" in page
        assert "data:audio/flac;base64," in page
    timed = "real_time_factor"  # the one number that is never twice the same
    assert {k: v for k, v in kept["metrics"].items() if k != timed} == {
        k: v for k, v in given["metrics"].items() if k != timed
    }


@pytest.mark.parametrize("command", ["models", "fetch", "sites", "transcribe", "corrupt", "patch", "lens"])
def test_without_json_a_person_can_read_it(cli, arguments, command):
    said = cli(*arguments(command))
    assert said.code == 0, said.err
    assert said.out.strip()
    assert not said.out.startswith("{")


@pytest.mark.parametrize("command", ["transcribe", "lens"])
def test_where_the_report_is_stands_at_the_end(cli, arguments, tmp_path, command):
    said = cli(*arguments(command), "--out", tmp_path / "run")
    assert said.out.endswith(f"report: {tmp_path / 'run' / 'report.html'}\n")


def test_patch_says_what_it_will_cost_before_it_starts(cli, arguments):
    said = cli(*arguments("patch"))
    lines = said.err.splitlines()
    start = next(i for i, line in enumerate(lines) if "patching the encoder by time and layer" in line)
    assert "TFLOP" in lines[start + 1]
    assert "patches (" in lines[start + 1]


def test_models_name_family_and_type(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("OTOSCOPE_CACHE", str(tmp_path))
    rows = {row["name"]: row for row in json.loads(cli("models", "--json").out)["models"]}
    assert rows["smollm2-135m-instruct"]["family"] == "language"
    assert rows["smollm2-135m-instruct"]["model_type"] == "llama"
    assert rows["whisper-base"]["family"] == rows["whisper-base"]["model_type"] == "whisper"
    assert not rows["whisper-base"]["ready"]
    assert "otoscope fetch whisper-base" in rows["whisper-base"]["how"]


def test_a_stack_and_a_layer_are_a_prefix(cli, model):
    def listed(pattern: str) -> list[str]:
        return [row["site"] for row in json.loads(cli("sites", model, pattern, "--json").out)["sites"]]

    assert listed("encoder.1") == listed("encoder.1.*")
    assert listed("encoder.1, decoder.0") == listed("encoder.1.*") + listed("decoder.0.*")
    assert len(listed("encoder.*")) == 2 * len(listed("encoder.1"))
    assert listed("encoder.1.z.1") == ["encoder.1.z.1"]


def test_sites_hold_shape_rate_and_heads(cli, model):
    rows = {row["site"]: row for row in json.loads(cli("sites", model, "encoder.0", "--json").out)["sites"]}
    assert rows["encoder.0.z"] == {
        "site": "encoder.0.z",
        "shape": "[batch, frame, 2, 8]",
        "frame_rate": 50.0,
        "n_heads": 2,
    }
    assert rows["encoder.0.resid_post"]["n_heads"] == 0
    assert "[batch, frame, 2, 8]" in cli("sites", model, "encoder.0").out


def test_brackets_in_names_and_transcripts_are_shown_as_they_are(cli, sound, model):
    said = cli("transcribe", sound("[Music].wav", rate=8000), "--model", model)
    assert "[Music]  " in said.out
    assert "[Music]: resampled" in said.err


def test_lens_tables_have_names_for_programs(cli, sound, model):
    given = json.loads(cli("lens", sound(), "--model", model, "--json").out)
    assert set(given) == KEYS | {"encoder_lens", "words", "logit_lens"}
    columns = [key for table in ("encoder_lens", "words", "logit_lens") for row in given[table] for key in row]
    assert columns
    assert not [key for key in columns if not key.replace("_", "").isalnum() or key != key.lower()]


def test_the_list_of_corruptions(cli, tmp_path):
    given = json.loads(cli("corrupt", "--list", "--json", "--out", tmp_path / "run").out)
    assert given["metrics"]["corruptions"] == len(given["corruptions"]) > 5
    names = [row["name"] for row in given["corruptions"]]
    table = (tmp_path / "run" / "tables" / "corruptions.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in table[1:]] == names
    assert all(name in cli("corrupt", "--list").out for name in names)
