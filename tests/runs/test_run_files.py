"""Files are whole or absent; JSON is strict; CSV is plain."""

import errno
import json
import os

import numpy as np
import pytest

from otoscope.errors import RunError
from otoscope.runs import csv_text
from otoscope.runs.files import plain, read_json, write_bytes, write_json


def test_a_full_disk_keeps_the_old_file_and_leaves_no_rest(tmp_path, monkeypatch):
    write_bytes(tmp_path / "x", b"old")

    def full(_handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="disk is full") as caught:
        write_bytes(tmp_path / "x", b"new")
    assert str(tmp_path / "x") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_bytes() == b"old"


def test_nan_becomes_null_and_numpy_becomes_plain(tmp_path):
    write_json(tmp_path / "x.json", {"a": np.float32("nan"), "b": np.arange(2), "c": (np.int64(3), float("inf"))})
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"a": None, "b": [0, 1], "c": [3, None]}


def test_what_json_cannot_hold_is_named():
    with pytest.raises(TypeError, match="a set cannot"):
        plain({"a": {1}})


@pytest.mark.parametrize("content", [None, "{", "\xff"])
def test_unreadable_json_is_one_sentence(tmp_path, content):
    if content is not None:
        (tmp_path / "x.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(RunError, match="cannot read"):
        read_json(tmp_path / "x.json")


def test_csv():
    text = csv_text({"token": ["a,b", 'c"'], "value": np.array([0.1, np.nan]), "n": [1, None]})
    assert text == 'token,value,n\n"a,b",0.1,1\n"c""",,\n'
    with pytest.raises(ValueError, match="one length"):
        csv_text({"a": [1], "b": [1, 2]})
