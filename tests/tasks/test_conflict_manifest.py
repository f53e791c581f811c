"""Manifests: what is written is what is asked, and a bad line is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from otoscope.audio.files import write
from otoscope.errors import TaskError
from otoscope.tasks.conflict import ConflictTask
from tests.tasks.conflict_clips import RATE, clip

LINE = {
    "id": "one", "audio": "sound/no.wav", "counterfactual_audio": "sound/up.wav", "question": "What word was said?",
    "labels": ["no", "up", "go"], "audio_label": "no", "text_label": "up", "framing": "caption", "topic": "the word",
    "speaker": "a", "licence": "CC0",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with three recordings of different length and rate."""
    (tmp_path / "sound").mkdir()
    write(tmp_path / "sound/no.wav", clip("no", seconds=0.2))
    write(tmp_path / "sound/up.wav", clip("up", seconds=0.3))
    write(tmp_path / "sound/go.wav", clip("go", seconds=0.2).replace(rate=8000))
    (tmp_path / "sound/text.wav").write_text("not sound")
    return tmp_path


def manifest(folder: Path, *rows: dict | str) -> Path:
    path = folder / "items.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n", "utf-8")
    return path


def without(*keys: str, **more) -> dict:
    return {**{key: value for key, value in LINE.items() if key not in keys}, **more}


def test_a_manifest_becomes_a_task(folder):
    own = {"agreeing": "She said no.", "conflicting": "She said up.", "neutral": None}
    rows = [
        LINE,
        "",
        without("id", "framing", "topic", "counterfactual_audio", "speaker", context=own, licence="CC BY 4.0"),
        without(id="three", audio="sound/go.wav", audio_label="go", framing="Psst, {label}!", speaker=None),
    ]
    made = ConflictTask.from_manifest(manifest(folder, *rows))
    assert (made.name, made.licence, len(made)) == ("items", "CC0, CC BY 4.0", 3)
    one, two, three = made
    assert [item.id for item in made] == ["one", "line-3", "three"]
    assert (one.sound_label, one.text_label, one.labels, one.speaker) == ("no", "up", ("no", "up", "go"), "a")
    assert one.contexts == {
        "neutral": "", "agreeing": 'The caption says the word is "no".', "conflicting": 'The caption says the word is "up".',
    }  # fmt: skip
    assert [item.framing for item in made] == ["caption", "own", "own"]
    assert two.contexts == {"neutral": "", "agreeing": "She said no.", "conflicting": "She said up."}
    assert tuple(two.clips) == ("clean", "silent", "noise")
    assert (two.speaker, three.speaker) == (None, None)
    assert three.contexts["conflicting"] == "Psst, up!"
    assert one.clips["clean"].samples[:3200] == pytest.approx(clip("no", seconds=0.2).samples)
    assert {(c.rate, len(c)) for c in one.clips.values()} == {(RATE, 4800)}
    assert {(c.rate, len(c)) for c in three.clips.values()} == {(RATE, 6400)}
    assert {
        c.rate for item in ConflictTask.from_manifest(folder / "items.jsonl", rate=8000) for c in item.clips.values()
    } == {8000}
    assert made.digest() == ConflictTask.from_manifest(folder / "items.jsonl").digest()


def test_a_draw_keeps_the_order_and_reads_nothing_else(folder):
    rows = [without(id=str(i)) for i in range(9)]
    path = manifest(folder, *rows)
    ids = [[item.id for item in ConflictTask.from_manifest(path, n=3, seed=seed)] for seed in (1, 1, 5)]
    assert ids[0] == ids[1] == sorted(ids[0])
    assert ids[0] != ids[2]
    left_out = next(i for i in range(9) if str(i) not in ids[0])
    rows[left_out]["audio"] = "sound/text.wav"
    path = manifest(folder, *rows)
    assert [item.id for item in ConflictTask.from_manifest(path, n=3, seed=1)] == ids[0]
    with pytest.raises(TaskError, match=rf"Line {left_out + 1} of .*text\.wav is text, not sound"):
        ConflictTask.from_manifest(path)


def test_a_file_with_a_byte_order_mark_and_odd_letters_is_read(folder):
    path = manifest(folder, without(labels=["ñ", "up"], audio_label="ñ"))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert ConflictTask.from_manifest(path, name="mine").items[0].labels == ("ñ", "up")
    # a line separator inside a text ends no line
    assert (
        len(ConflictTask.from_manifest(manifest(folder, json.dumps(without(question="a\u2028b"), ensure_ascii=False))))
        == 1
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "it is not JSON"),
        ("[1]", "it is not a JSON object"),
        (without("question"), "it has no 'question'"),
        (without("audio"), "it has no 'audio'"),
        (without(audio_label=None), "it has no 'audio_label'"),
        (without("labels"), "no list of texts under 'labels'"),
        (without(labels="no"), "no list of texts under 'labels'"),
        (without(labels=["no", 3]), "no list of texts under 'labels'"),
        (without(question=" "), "its 'question' is \" \"; give a text"),
        (without(speaker=3), "its 'speaker' is 3; give a text"),
        (without(lables=["no"]), "it has the key 'lables', which means nothing here; the keys are audio, question"),
        (without("framing"), "needs one of 'context' and 'framing', and not both"),
        (without(context={"agreeing": "a", "conflicting": "b"}), "needs one of 'context' and 'framing', and not both"),
        (without(framing="rumour"), "'rumour' is no framing: expected one of caption"),
        (without("framing", context="up"), "'context' must be an object"),
        (without("framing", context={"agreeing": "no"}), "'context' must be an object"),
        (without("framing", context={"agreeing": "no", "conflicting": 1}), "'context' must be an object"),
        (without("framing", context={"agreeing": "a", "conflicting": "b", "hint": "c"}), "'context' must be an object"),
        (without("framing", context={"agreeing": "a", "conflicting": ""}), "has no conflicting context"),
        (without(audio="gone.wav"), "its 'audio' names 'gone.wav', which is not there"),
        (without(counterfactual_audio="sound"), "its 'counterfactual_audio' names 'sound', which is not there"),
        (without(audio="sound/text.wav"), "is text, not sound"),
        (without(text_label="down"), "text label 'down', which is not among its labels"),
        (without(text_label="no"), "says 'no' in sound and in text"),
        (without(labels=["no", "up", "NO"]), "has the label 'NO' twice"),
        (without(id="first"), "the id 'first' is that of line 1 as well"),
    ],
)
def test_a_bad_line_is_named_by_its_number_in_one_sentence(folder, row, message):
    with pytest.raises(TaskError, match=r"^Line 3 of .*items\.jsonl: ") as raised:
        ConflictTask.from_manifest(manifest(folder, without(id="first"), "", row))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_number_of_bad_lines_is_told_and_whole_files_are_checked_first(folder):
    bad = without("question", id="two")
    with pytest.raises(TaskError, match=r"^Line 2 of .* \(1 more of 3 lines cannot be used either\)"):
        ConflictTask.from_manifest(manifest(folder, without(audio="sound/text.wav"), bad, "{"))
    with pytest.raises(TaskError, match="has no lines; give one JSON object per item"):
        ConflictTask.from_manifest(manifest(folder, "", " "))
    with pytest.raises(TaskError, match=r"There is no manifest .*gone\.jsonl"):
        ConflictTask.from_manifest(folder / "gone.jsonl")
    (folder / "items.jsonl").write_bytes(b"\xff\xfe{}")
    with pytest.raises(TaskError, match="cannot be read as UTF-8 text"):
        ConflictTask.from_manifest(folder / "items.jsonl")
    write(folder / "sound/silent.wav", clip("no").replace(samples=np.zeros(100, np.float32)))
    with pytest.raises(TaskError, match=r"Line 1 of .*clip 'silent', is silent, so it says no label"):
        ConflictTask.from_manifest(manifest(folder, without(audio="sound/silent.wav")))
