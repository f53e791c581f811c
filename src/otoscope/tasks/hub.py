"""The public corpora through the package ``datasets``, which only this source needs: the parquet files of the hub.

Dataset scripts are not run (``datasets`` 4 has no more of them): where a corpus is published as a script, the hub's own
conversion to parquet is read. Sounds stay encoded until they are drawn. For Speech Commands, the test part alone is fetched.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import soundfile

from otoscope.audio.clip import Clip
from otoscope.errors import TaskError
from otoscope.models.mini_labels import DIGITS, SEX_OF
from otoscope.tasks.corpora import fsdd as fsdd_files
from otoscope.tasks.corpora.esc50 import answer_of
from otoscope.tasks.corpora.layout import mislabelled
from otoscope.tasks.recordings import Recording

_CONVERTED = "refs/convert/parquet"


@dataclass(frozen=True)
class HubCorpus:
    """Parquet files on the hub.

    Attributes:
        repository: ``owner/name`` of the dataset.
        files: pattern of the parquet files in it.
        columns: those that are read; the first one is the sound.
        revision: branch.
        builder: of ``datasets``; the repository itself, or ``parquet`` for files on this machine.
    """

    repository: str
    files: str
    columns: tuple[str, ...]
    revision: str | None = None

    def rows(self) -> Iterator[dict[str, Any]]:
        """One dictionary per recording: the sound as ``{"bytes", "path"}``, class labels as their names.

        Raises:
            TaskError: the package is missing, the corpus cannot be had, or lacks a column.
        """
        datasets = _package()
        try:
            table = datasets.load_dataset(
                self.repository, data_files={"drawn_from": self.files}, revision=self.revision, split="drawn_from",
                verification_mode="no_checks",
            )  # fmt: skip
        except Exception as error:  # datasets, huggingface_hub and their transports raise many kinds
            raise self._unreachable(error) from error
        for column in self.columns:
            if column not in table.column_names:
                raise TaskError(
                    f"the dataset '{self.repository}' has no column '{column}' (it has {', '.join(table.column_names)}): "
                    "download the corpus and give its folder with --source local --data DIR."
                )
        table = table.select_columns(list(self.columns)).cast_column(self.columns[0], datasets.Audio(decode=False))
        names = {c: f.names for c, f in table.features.items() if hasattr(f, "names")}
        for row in table:
            yield {
                key: names[key][value] if key in names and isinstance(value, int) else value
                for key, value in row.items()
            }

    def _unreachable(self, error: Exception) -> TaskError:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0") else ""
        return TaskError(
            f"the dataset '{self.repository}' cannot be had from the hub{offline}: {first[:160]}; check the network, or download "
            "the corpus and give its folder with --source local --data DIR."
        )


SPEECH_COMMANDS = HubCorpus(
    "google/speech_commands", "v0.02/test/*.parquet", ("audio", "file", "label", "speaker_id"), _CONVERTED
)
FSDD = HubCorpus("mteb/free-spoken-digit-dataset", "data/*.parquet", ("audio", "label"))
ESC50 = HubCorpus("ashraq/esc50", "data/*.parquet", ("audio", "filename", "category", "fold", "src_file"))
LIBRISPEECH = HubCorpus(
    "openslr/librispeech_asr", "clean/validation/*.parquet", ("audio", "id", "speaker_id", "text"), _CONVERTED
)


def speech_commands(words: Sequence[str], corpus: HubCorpus = SPEECH_COMMANDS) -> list[Recording]:
    """The recordings of those words in the corpus's test part."""
    return [
        Recording(row["file"], row["label"], str(row["speaker_id"]), _loader(row), row["label"])
        for row in corpus.rows()
        if row["label"] in words
    ]


def fsdd(split: str = "all", corpus: HubCorpus = FSDD) -> list[Recording]:
    """The spoken digits; speaker and take are read from the names of the files, where these are kept."""
    found = []
    for number, row in enumerate(corpus.rows()):
        label = str(row["label"])
        word = DIGITS[int(label)] if label.isdigit() and int(label) < len(DIGITS) else label
        match = fsdd_files.NAME.match(os.path.splitext(os.path.basename(row["audio"]["path"] or ""))[0])
        if word not in DIGITS or (match and DIGITS[int(match["digit"])] != word):
            raise mislabelled(
                f"row {number} of the dataset '{corpus.repository}'", label, "the digit in its file's name"
            )
        own = fsdd_files.split_of(int(match["take"])) if match else "train"
        if split in ("all", own):
            name, speaker = (match[0], match["speaker"]) if match else (f"row-{number:05d}", "")
            found.append(Recording(name, word, speaker, _loader(row), word, {"split": own}))
    return found


def esc50(corpus: HubCorpus = ESC50) -> list[Recording]:
    """The environmental sounds, labelled with what is answered; a sound's unit is its original recording."""
    return [
        Recording(
            row["filename"],
            answer_of(row["category"]),
            str(row["src_file"]),
            _loader(row),
            labels={"fold": str(row["fold"])},
        )
        for row in corpus.rows()
    ]


def librispeech(corpus: HubCorpus = LIBRISPEECH) -> list[Recording]:
    """The sentences of dev-clean; the sex of its readers is known."""
    found = []
    for row in corpus.rows():
        reader = str(row["speaker_id"])
        sex = SEX_OF.get(reader, "")
        found.append(Recording(row["id"], sex, reader, _loader(row), row["text"], {"sex": sex} if sex else {}))
    return found


def _package() -> Any:
    try:
        return import_module("datasets")
    except ImportError as error:
        raise TaskError(
            "the source 'hub' needs the package datasets: run pip install datasets, or give the corpus's folder with "
            "--source local --data DIR."
        ) from error


def _loader(row: dict[str, Any]) -> Any:
    return partial(_decoded, row["audio"])


def _decoded(sound: dict[str, Any]) -> Clip:
    source = io.BytesIO(sound["bytes"]) if sound.get("bytes") else sound["path"]
    try:
        samples, rate = soundfile.read(source, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError, TypeError) as error:
        raise TaskError(
            f"the recording '{sound.get('path')}' of the hub cannot be decoded ({error}): clear the cache of datasets."
        ) from error
    return Clip(samples.mean(axis=1), rate)
