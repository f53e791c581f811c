"""Words for the conflict task: voices and speakers that training never had, balanced and repeatable."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from otoscope.audio.clip import Clip
from otoscope.errors import TaskError
from otoscope.models import mini_labels as labels
from otoscope.tasks.framings import FRAMINGS, render
from otoscope.tasks.spoken_words import UNSEEN_WORDING, loudest, recorded_words, rows, spoken_words


def unseen_contexts(item):
    return {render(f, item.text_label, wording=UNSEEN_WORDING, topic="the word") for f in FRAMINGS}


def test_spoken_words_are_balanced_repeatable_and_in_unseen_wordings():
    task = spoken_words(20, seed=1)
    assert len(task) == 20
    assert {item.sound_label for item in task} == {*labels.COMMANDS, *labels.DIGITS}
    assert all(item.contexts["conflicting"] in unseen_contexts(item) for item in task)
    assert all(item.clip("clean").duration == pytest.approx(1.0) for item in task)
    assert spoken_words(20, seed=1).digest() == task.digest()


def test_the_loudest_stretch_is_found():
    samples = np.full(16000, 0.01, np.float32)
    samples[9000:11000] = 0.5
    start = loudest(Clip(samples, 16000), 0.25)
    assert start <= 9000
    assert start + 4000 >= 11000


def test_recordings_of_trained_speakers_are_left_out(tmp_path):
    folder = tmp_path / "fsdd"
    folder.mkdir()
    lines = ["path\tdigit\tspeaker"]
    for speaker in ("theo", "jackson"):
        for digit in range(10):
            for take in range(2):
                name = f"{digit}_{speaker}_{take}.flac"
                rng = np.random.default_rng([digit, take])
                soundfile.write(folder / name, 0.1 * rng.standard_normal(4000), 8000)
                lines.append(f"{name}\t{digit}\t{speaker}")
    (folder / "manifest.tsv").write_text("\n".join(lines) + "\n")
    (tmp_path / "none").mkdir()
    clips = [row for row in rows(tmp_path, "fsdd") if labels.is_heldout("fsdd", row["speaker"])]
    assert {row["speaker"] for row in clips} == {"theo"}
    with pytest.raises(TaskError, match=r"manifest\.tsv' cannot be read"):
        rows(tmp_path, "speech_commands")


@pytest.mark.data
def test_real_recordings_of_unheard_people(shared_data):
    task = recorded_words(shared_data, 20)
    assert len(task) == 20
    assert all(labels.is_heldout("speech_commands", i.speaker) or i.speaker in ("theo", "george") for i in task)
