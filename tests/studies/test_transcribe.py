"""Transcribing many recordings: scores, steps, identity, report."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

import otoscope
from otoscope.audio.clip import Clip
from otoscope.audio.files import write
from otoscope.errors import AudioError, RunError
from otoscope.models.transcribe import Transcript
from otoscope.studies import transcribe as study
from otoscope.studies.transcribe import gather, transcribe_study
from tests.cli.folder import save_tiny_whisper


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return otoscope.load(str(save_tiny_whisper(tmp_path_factory.mktemp("model"))), offline=True)


@pytest.fixture
def folder(tmp_path):
    """Four recordings of two speakers, of unequal lengths, with a manifest; one has no text."""
    rows = []
    for seed, (text, speaker) in enumerate([("red blue", "a"), ("green pink", "a"), ("black white", "b"), ("", "b")]):
        samples = 0.1 * np.random.default_rng(seed).standard_normal(9000 - 2000 * seed)
        write(tmp_path / f"{seed}.wav", Clip(samples.astype(np.float32), 16000))
        rows.append(f"{seed}.wav\t{text}\t{speaker}\n")
    (tmp_path / "manifest.tsv").write_text("path\ttext\tspeaker\n" + "".join(rows))
    return tmp_path


def test_the_score_is_errors_over_words_of_all_that_have_a_reference(model, folder, monkeypatch):
    heard = {"0": "red blue", "1": "green bank", "2": "black", "3": "whatever"}
    monkeypatch.setattr(
        study, "transcribe", lambda _, clips, *__: [Transcript(heard[c.name], (), c.duration, 0.5) for c in clips]
    )
    results, items = transcribe_study([folder], model)
    assert [item["path"] for item in items] == ["0", "1", "2", "3"]
    assert [item["text"] for item in items] == list(heard.values())
    assert [item["wer"] for item in items] == [0.0, 0.5, 0.5, None]
    m = results["metrics"]
    assert (m["wer"], m["words"], m["substitutions"], m["deletions"], m["insertions"]) == (2 / 6, 6, 1, 1, 0)
    assert m["recordings"] == 4
    assert m["real_time_factor"] == pytest.approx(4 * 0.5 / m["seconds_of_sound"])
    low, high = results["intervals"]["wer"]
    assert low <= 2 / 6 <= high


def test_batches_hold_like_lengths_and_change_nothing(model, folder):
    done = []
    _, one = transcribe_study([folder], model, batch_size=1, progress=lambda *at: done.append(at))
    _, three = transcribe_study([folder], model, batch_size=3)
    assert [item["text"] for item in one] == [item["text"] for item in three]
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_finished_run_is_not_computed_again(model, folder, tmp_path, monkeypatch):
    out = tmp_path / "run"
    results, items = transcribe_study([folder], model, batch_size=2, out=out)
    monkeypatch.setattr(study, "transcribe", lambda *_: pytest.fail("computed again"))
    again, same = transcribe_study([folder], model, batch_size=2, out=out)
    assert (again, same) == (results, items)


def test_the_run_knows_dtype_revision_and_language(model, folder, tmp_path):
    out = tmp_path / "run"
    transcribe_study([folder], model, out=out)
    config = json.loads((out / "run.json").read_text())["config"]
    assert config["dtype"] == "torch.float32"
    assert "revision" in config
    with pytest.raises(RunError, match="language is None there, 'en' here"):
        transcribe_study([folder], model, language="en", out=out)


def test_the_report_plays_what_was_worst_and_lists_all(model, folder, tmp_path):
    out = tmp_path / "run"
    _, items = transcribe_study([folder], model, out=out)
    page = (out / "report.html").read_text()
    assert page.count("<audio") == 4
    worst = max((item for item in items if item["wer"] is not None), key=lambda item: item["wer"])["path"]
    assert page.index(f'id="sound-clip-{int(worst) + 1}"') == min(
        page.index(f'id="sound-clip-{i}"') for i in range(1, 5)
    )
    assert "green pink" in page
    with (out / "tables" / "transcripts.csv").open(newline="", encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    assert [row["text"] for row in rows] == [item["text"] for item in items]
    assert [row["wer"] == "" for row in rows] == [False, False, False, True]


def test_at_most_twenty_players(model, tmp_path, monkeypatch):
    monkeypatch.setattr(
        study, "transcribe", lambda _, clips, *__: [Transcript("x", (), c.duration, 0.5) for c in clips]
    )
    paths = [write(tmp_path / f"{i}.wav", Clip(np.full(400 + i, 0.1, np.float32), 16000)) for i in range(22)]
    transcribe_study(paths, model, out=tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count("<audio") == 20
    assert "20 of 22 recordings have a player here" in page


def test_gather_takes_files_folders_and_manifests(folder, tmp_path):
    inner = tmp_path / "more" / "deep"
    inner.mkdir(parents=True)
    write(inner / "z.flac", Clip(np.full(400, 0.1, np.float32), 16000))
    (inner / "notes.txt").write_text("not a sound")
    clips = gather([folder, folder / "2.wav", tmp_path / "more"])
    assert [clip.name for clip in clips] == ["0", "1", "2", "3", "2", "z"]
    assert [clip.text for clip in clips] == ["red blue", "green pink", "black white", None, None, None]
    (tmp_path / "empty").mkdir()
    with pytest.raises(AudioError, match="holds no sound"):
        gather([tmp_path / "empty"])
