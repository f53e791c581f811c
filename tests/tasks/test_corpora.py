"""Readers of the public corpora: their layouts, their held-out parts, and rows that cannot be right."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from otoscope.errors import AudioError, TaskError
from otoscope.tasks.corpora import esc50, fsdd, librispeech, speech_commands
from otoscope.tasks.recordings import fitted, from_file
from tests.tasks import tiny_corpora

WORDS = ("yes", "no")


def test_speech_commands_are_read_by_word_and_speaker(tmp_path):
    folder = tiny_corpora.speech_commands(tmp_path, words=WORDS)
    found = speech_commands.recordings(folder, WORDS)
    assert {(r.label, r.unit) for r in found} == {(word, who) for word in WORDS for who in tiny_corpora.HASHES}
    assert {r.label for r in speech_commands.recordings(folder, ("yes", "happy"))} == {"yes"}
    clip = found[0].clip()
    assert (clip.rate, clip.speaker, clip.text) == (16000, found[0].unit, found[0].label)


def test_the_official_test_list_is_kept(tmp_path):
    folder = tiny_corpora.speech_commands(tmp_path, words=WORDS)
    held_out = [f"{word}/{tiny_corpora.HASHES[2]}_nohash_0.wav" for word in WORDS]
    (folder / "testing_list.txt").write_text("\n".join(held_out) + "\n")
    assert sorted(r.name for r in speech_commands.recordings(folder, WORDS)) == sorted(held_out)
    (folder / "testing_list.txt").write_text("up/0a2b400e_nohash_0.wav\n")
    with pytest.raises(TaskError, match=r"testing_list\.txt lists no recording of yes, no"):
        speech_commands.recordings(folder, WORDS)


def test_a_file_without_a_speaker_in_its_name_is_refused(tmp_path):
    folder = tiny_corpora.speech_commands(tmp_path, words=WORDS)
    tiny_corpora.noise(folder / "yes" / "mine.wav")
    with pytest.raises(TaskError, match=r"mine\.wav' is not named SPEAKER_nohash_TAKE\.wav"):
        speech_commands.recordings(folder, WORDS)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("yes/a.wav no s1", "line 2 of {tsv} is labelled 'no': expected 'yes', the folder of 'yes/a.wav'"),
        ("yes/a.wav  s1", "line 2 of {tsv} is labelled '': expected 'yes', the folder of 'yes/a.wav'"),
        ("yes/gone.wav yes s1", "line 2 of {tsv} names 'yes/gone.wav', which is not there"),
    ],
)
def test_a_mislabelled_command_is_refused(tmp_path, row, sentence):
    tiny_corpora.noise(tmp_path / "yes" / "a.wav")
    folder = tiny_corpora.manifest(tmp_path, "path label speaker", [row])
    with pytest.raises(TaskError) as error:
        speech_commands.recordings(folder, WORDS)
    assert sentence.format(tsv=folder / "manifest.tsv") in str(error.value)


def test_a_manifest_without_the_columns_is_refused(tmp_path):
    tiny_corpora.noise(tmp_path / "yes" / "a.wav")
    folder = tiny_corpora.manifest(tmp_path, "path word", ["yes/a.wav yes"])
    with pytest.raises(TaskError, match="has no column 'label': this task needs path, label, speaker"):
        speech_commands.recordings(folder, WORDS)


def test_digits_are_read_from_the_names_of_their_files(tmp_path):
    folder = tiny_corpora.fsdd(tmp_path, takes=6)
    found = fsdd.recordings(folder)
    assert len(found) == 10 * 2 * 6
    seven = next(r for r in found if r.name == "7_jackson_5")
    assert (seven.label, seven.unit, seven.labels) == ("seven", "jackson", {"split": "train"})
    assert len(fsdd.recordings(folder, "test")) == 10 * 2 * 5
    assert {r.name[-1] for r in fsdd.recordings(folder, "train")} == {"5"}
    clip = seven.clip()
    assert clip.rate == 16000
    assert "resampled from 8000" in clip.notices[0]


def test_a_clone_of_the_digits_keeps_them_one_level_down(tmp_path):
    tiny_corpora.fsdd(tmp_path / "free-spoken-digit-dataset" / "recordings")
    assert fsdd.is_there(tmp_path)
    assert len(fsdd.recordings(tmp_path)) == 40
    assert not fsdd.is_there(tmp_path / "free-spoken-digit-dataset" / "nothing")


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("7_jackson_0.wav 6 jackson", "is labelled '6': expected '7', the digit in the name of '7_jackson_0.wav'"),
        ("7_jackson_0.wav seven jackson", "is labelled 'seven': expected a digit from 0 to 9"),
    ],
)
def test_a_mislabelled_digit_is_refused(tmp_path, row, sentence):
    folder = tiny_corpora.manifest(tiny_corpora.fsdd(tmp_path), "path digit speaker", [row])
    with pytest.raises(TaskError) as error:
        fsdd.recordings(folder)
    assert sentence in str(error.value)
    assert "line 2 of" in str(error.value)


def test_a_file_that_is_no_digit_is_refused(tmp_path):
    tiny_corpora.noise(tiny_corpora.fsdd(tmp_path) / "hello.wav")
    with pytest.raises(TaskError, match=r"labelled 'hello': expected a name such as 7_jackson_3\.wav"):
        fsdd.recordings(tmp_path)


def test_sounds_are_read_from_the_table(tmp_path):
    found = esc50.recordings(tiny_corpora.esc50(tmp_path))
    of = {r.labels["fold"] + r.label: r for r in found}
    assert {r.label for r in found} == {
        "dog", "rooster", "rain", "waves", "fire", "baby", "sneeze", "clock", "helicopter", "chainsaw", "vacuum cleaner",
    }  # fmt: skip
    assert of["2waves"].unit == "200011"
    assert of["2waves"].clip().rate == 16000


def test_a_mislabelled_sound_is_refused(tmp_path):
    table = tiny_corpora.esc50(tmp_path) / "meta" / "esc50.csv"
    whole = table.read_text()
    table.write_text(whole.replace("100010-A-10.wav,1,10,rain", "100010-A-10.wav,1,11,sea_waves"))
    with pytest.raises(
        TaskError, match=r"line 4 of .*esc50\.csv is labelled '11 sea_waves': expected the class in the name"
    ):
        esc50.recordings(tmp_path)
    table.write_text(whole.replace("category", "class", 1))
    with pytest.raises(TaskError, match=r"esc50\.csv has no column 'category'"):
        esc50.recordings(tmp_path)
    table.write_text(whole)
    (tmp_path / "audio" / "1-100010-A-10.wav").unlink()
    with pytest.raises(
        TaskError, match=r"line 4 of .*names '1-100010-A-10\.wav', which is not in .*copy the whole corpus"
    ):
        esc50.recordings(tmp_path)


def test_sentences_and_the_sex_of_their_readers_are_read(tmp_path):
    found = librispeech.recordings(tiny_corpora.librispeech(tmp_path, {"900001": "F", "900002": "M"}))
    assert [(r.unit, r.label, r.labels) for r in found[::3]] == [
        ("900001", "female", {"sex": "female"}),
        ("900002", "male", {"sex": "male"}),
    ]
    assert found[0].text == "THE SMALL DOG FOUND WATER 0"
    assert found[0].clip().speaker == "900001"


def test_transcripts_that_do_not_fit_their_folder_are_refused(tmp_path):
    folder = tiny_corpora.librispeech(tmp_path, {"84": "F"}) / "dev-clean" / "84" / "7"
    transcript = folder / "84-7.trans.txt"
    whole = transcript.read_text()
    transcript.write_text(whole + "85-7-0000 ANOTHER READER\n")
    with pytest.raises(TaskError, match="has the line '85-7-0000 ANOTHER READER': expected SPEAKER-CHAPTER-NUMBER"):
        librispeech.recordings(tmp_path)
    transcript.write_text(whole + "84-7-0009 A SENTENCE WITHOUT SOUND\n")
    with pytest.raises(TaskError, match=r"'84-7-0009\.flac' is not beside it: copy the whole chapter"):
        librispeech.recordings(tmp_path)


def test_a_sex_that_is_none_is_refused(tmp_path):
    tiny_corpora.noise(tmp_path / "a.wav")
    folder = tiny_corpora.manifest(tmp_path, "path speaker sex", ["a.wav s1 x"])
    with pytest.raises(TaskError, match=r"line 2 of .*is labelled 'x': expected male or female"):
        librispeech.recordings(folder)


def test_silence_and_damage_are_found_when_a_recording_is_drawn(tmp_path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(1600), 16000)
    with pytest.raises(TaskError, match="the recording 'quiet' is silent"):
        from_file(tmp_path / "silent.wav", "quiet", "yes", "s").clip()
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(AudioError, match="is text, not sound"):
        from_file(tmp_path / "text.wav", "text", "yes", "s").clip()


def test_clips_are_cut_to_their_loudest_part_or_padded(tmp_path):
    samples = 0.001 * np.ones(32000)
    samples[20000:28000] = 0.5
    soundfile.write(tmp_path / "long.wav", samples, 16000, subtype="FLOAT")
    clip = from_file(tmp_path / "long.wav", "long", "yes", "s").clip()
    cut = fitted(clip, 1.0)
    assert len(cut) == 16000
    assert np.count_nonzero(cut.samples > 0.1) == 8000
    longer = fitted(clip, 3.0, lead=0.25)
    assert len(longer) == 48000
    assert not longer.samples[:4000].any()
    assert np.array_equal(longer.samples[4000:36000], clip.samples)
