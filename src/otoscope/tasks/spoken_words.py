"""Words to listen to for the conflict task: spoken by voices that mini-qwen2-audio never heard, or recorded ones."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from otoscope.audio.clip import Clip
from otoscope.audio.files import read
from otoscope.errors import TaskError
from otoscope.models import mini_labels as labels
from otoscope.tasks.conflict import ConflictTask
from otoscope.tasks.recordings import loudest

#: espeak voices that no training item was spoken by, and that say the same samples at every call
VOICES = ("en-us+m7", "en-gb-x-gbclan+m2", "en-029+f4", "en-gb-x-gbcwmd+f1")
#: the wording of every framing that training never used
UNSEEN_WORDING = 2


def spoken_words(n: int = 64, seed: int = 0) -> ConflictTask:
    """``n`` items of commands and digits in synthetic voices; needs the speech extra and no data."""
    return ConflictTask.spoken(
        (*labels.COMMANDS, *labels.DIGITS), VOICES, n=n, seed=seed, wording=UNSEEN_WORDING, name="spoken-words",
    )  # fmt: skip


def recorded_words(
    data: Path, n: int = 64, seed: int = 0, corpora: Sequence[str] = ("speech_commands", "fsdd")
) -> ConflictTask:
    """``n`` items of commands and digits by people that mini-qwen2-audio never heard.

    Args:
        data: folder with the corpora, each with its ``manifest.tsv``.
        n: items.
        seed: of the draw.
        corpora: which of them.

    Raises:
        TaskError: a corpus is not there, or has too few recordings of unheard speakers.
    """
    clips = []
    for corpus in corpora:
        for row in rows(data, corpus):
            label = labels.label_of(corpus, row)
            if label and label in labels.OPTIONS["word"] and labels.is_heldout(corpus, row["speaker"]):
                clips.append(_word(data / corpus / row["path"], label, row["speaker"]))
    return ConflictTask.from_clips(
        clips, labels.QUESTIONS["word"][0], labels=labels.OPTIONS["word"], topic="the word", n=n, seconds=1.0, seed=seed,
        wording=UNSEEN_WORDING, name="recorded-words", licence="CC BY 4.0 (Speech Commands), CC BY-SA 4.0 (FSDD)",
    )  # fmt: skip


def rows(data: Path, corpus: str) -> list[dict[str, str]]:
    """The manifest of a corpus, one dictionary per recording.

    Raises:
        TaskError: there is none.
    """
    manifest = data / corpus / "manifest.tsv"
    try:
        with manifest.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file, delimiter="\t"))
    except OSError as error:
        raise TaskError(
            f"'{manifest}' cannot be read ({error.strerror}): give --data the folder that holds speech_commands, fsdd, esc10 "
            "and librispeech, each with its manifest.tsv."
        ) from error


def _word(path: Path, label: str, speaker: str) -> Clip:
    """A recording of at most one second: of a longer one, the loudest second."""
    clip = read(path, rate=16000)
    if clip.duration > 1.0:
        start = loudest(clip, 1.0)
        clip = clip.replace(samples=clip.samples[start : start + clip.rate])
    return clip.replace(labels={**clip.labels, "label": label}, speaker=speaker)
