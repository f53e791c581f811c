"""Corpora through ``datasets``: what is read of their columns, and what is said where they cannot be had."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from otoscope.errors import TaskError
from otoscope.tasks import hub
from otoscope.tasks.registry import make
from tests.tasks import tiny_corpora


class _Table(list):
    """As much of a table of ``datasets`` as is used: rows, columns and class labels."""

    def __init__(self, rows: list[dict[str, Any]], **classes: list[str]):
        super().__init__(rows)
        self.column_names = list(rows[0])
        self.features = {
            name: SimpleNamespace(names=classes[name]) if name in classes else object() for name in self.column_names
        }

    def select_columns(self, columns):
        kept = _Table([{c: row[c] for c in columns} for row in self])
        kept.features = {c: self.features[c] for c in columns}
        return kept

    def cast_column(self, column, kind):
        assert kind == "encoded"
        return self


def _sound(path: str, rate: int = 16000) -> dict[str, Any]:
    seed = sum(path.encode())
    data = io.BytesIO()
    soundfile.write(data, 0.1 * np.random.default_rng(seed).standard_normal(rate // 2), rate, format="WAV")
    return {"bytes": data.getvalue(), "path": path}


@pytest.fixture
def published(monkeypatch):
    """Puts a package ``datasets`` in place that has one table; returns the arguments it was called with."""
    asked: list[Any] = []

    def publish(table: _Table | Exception):
        def load_dataset(repository, **options):
            asked.append((repository, options))
            if isinstance(table, Exception):
                raise table
            return table

        fake = SimpleNamespace(load_dataset=load_dataset, Audio=lambda decode: "decoded" if decode else "encoded")
        monkeypatch.setitem(sys.modules, "datasets", fake)
        return asked

    return publish


def test_commands_come_with_their_labels_as_words(published):
    words = ["yes", "no", "_silence_"]
    rows = [
        {"file": f"{words[label]}/{who}_nohash_0.wav", "audio": _sound(f"{who}{label}.wav"), "label": label,
         "is_unknown": False, "speaker_id": who, "utterance_id": 0}
        for label in range(3) for who in tiny_corpora.HASHES
    ]  # fmt: skip
    asked = published(_Table(rows, label=words))
    task = make("commands", source="hub", n=8, words="yes,no")
    repository, options = asked[0]
    assert repository == "google/speech_commands"
    assert "test" in options["data_files"][options["split"]]
    assert {item.answer for item in task} == {"yes", "no"}
    assert all(item.labels["same_speaker"] == "yes" for item in task)
    assert {item.unit for item in task} == set(tiny_corpora.HASHES)


def test_digits_get_speaker_and_take_from_their_file(published):
    rows = [
        {"audio": _sound(f"{digit}_{who}_{take}.wav", 8000), "label": digit}
        for digit in range(10) for who in ("theo", "lucas") for take in (4, 5)
    ]  # fmt: skip
    published(_Table(rows))
    task = make("digits", source="hub", n=10)
    assert {item.unit for item in task} == {"theo", "lucas"}
    assert {item.labels["split"] for item in make("digits", source="hub", n=10, split="test")} == {"test"}
    rows[3]["label"] = 9
    published(_Table(rows))
    with pytest.raises(
        TaskError, match=r"row 3 of the dataset .* is labelled '9': expected the digit in its file's name"
    ):
        make("digits", source="hub")


def test_sounds_and_sentences_are_read(published):
    rows = [
        {"filename": f"1-{target}-A-{target}.wav", "fold": 1, "target": target, "category": category, "esc10": True,
         "src_file": target, "take": "A", "audio": _sound(f"{target}.wav")}
        for target, category in tiny_corpora.ESC50
    ]  # fmt: skip
    published(_Table(rows))
    assert len(make("sounds", source="hub", n=10, seconds=0.5).options) == 10
    rows = [
        {"file": "x", "audio": _sound(f"{reader}-{k}.flac"), "text": "A", "speaker_id": reader, "chapter_id": 1,
         "id": f"{reader}-1-{k}"}
        for reader in (174, 251, 1462, 1988) for k in range(2)
    ]  # fmt: skip
    published(_Table(rows))
    assert {item.unit for item in make("voices", source="hub", n=4, seconds=0.5)} == {"174", "251", "1462", "1988"}


def test_a_missing_package_is_said_with_the_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(TaskError, match="the source 'hub' needs the package datasets: run pip install datasets"):
        make("digits", source="hub")


def test_no_network_is_said_with_the_cure(published, monkeypatch):
    published(ConnectionError("Couldn't reach the Hub\nmany more lines"))
    with pytest.raises(TaskError) as error:
        make("digits", source="hub")
    assert "cannot be had from the hub: Couldn't reach the Hub; check the network, or download" in str(error.value)
    assert "\n" not in str(error.value)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(TaskError, match="HF_HUB_OFFLINE is set"):
        make("digits", source="hub")


def test_a_dataset_of_another_shape_is_refused(published):
    published(_Table([{"audio": _sound("a.wav"), "class": 1}]))
    with pytest.raises(TaskError, match="has no column 'label' \\(it has audio, class\\)"):
        make("digits", source="hub")


def test_a_sound_that_cannot_be_decoded_is_named(published):
    rows = [{"audio": {"bytes": b"nonsense", "path": f"{d}_theo_0.wav"}, "label": d} for d in range(10)]
    published(_Table(rows))
    with pytest.raises(TaskError, match=r"_theo_0\.wav' of the hub cannot be decoded"):
        make("digits", source="hub", n=1)


def test_every_corpus_names_the_sound_first():
    for corpus in (hub.SPEECH_COMMANDS, hub.FSDD, hub.ESC50, hub.LIBRISPEECH):
        assert corpus.columns[0] == "audio"
        assert corpus.files.endswith(".parquet")
