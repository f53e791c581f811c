"""What is particular to the tasks of minimal pairs, sentences, voices and made sounds."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from otoscope.audio.clip import Clip
from otoscope.audio.files import write
from otoscope.audio.synth import flite, say
from otoscope.errors import TaskError
from otoscope.tasks.made_sounds import MADE, made_sound
from otoscope.tasks.minimal_pairs import FRAME
from otoscope.tasks.phonology import FEATURES
from otoscope.tasks.registry import make
from otoscope.tasks.short_sentences import SENTENCES
from otoscope.tasks.speakers import VOICES, voices
from otoscope.tasks.voices import TEXTS
from tests.tasks import tiny_corpora

SPOKEN = pytest.mark.skipif(
    not (flite.available() or find_spec("espeakng_loader")), reason='needs flite or pip install "otoscope[speech]"'
)


@SPOKEN
def test_minimal_pairs_share_their_samples_until_the_phone_that_differs():
    for item in make("minimal-pairs", n=4):
        difference = item.pair.difference()
        assert difference is not None
        assert difference[0] == item.pair.span[0]
        word = next(w for w in item.pair.clean.words if w.text == item.answer)
        assert item.pair.span[0] == pytest.approx(word.start, abs=0.1) or item.labels["feature"] == "height"
        assert item.pair.span[1] >= word.end
        assert (item.pair.clean_text, item.pair.corrupt_text) == (FRAME.format(item.answer), FRAME.format(item.foil))


@SPOKEN
def test_features_and_voices_take_turns_and_can_be_chosen():
    task = make("minimal-pairs", n=8)
    assert [item.labels["feature"] for item in task] == [*FEATURES, *FEATURES]
    assert len({item.unit for item in task}) >= 3
    for feature in FEATURES:
        assert {i.labels["feature"] for i in make("minimal-pairs", n=2, feature=feature)} == {feature}


@SPOKEN
def test_either_word_of_a_pair_is_the_answer_and_the_question_does_not_tell_which():
    task = make("minimal-pairs", n=8, feature="voicing")
    assert {item.labels["values"] for item in task} == {"voiced -> voiceless", "voiceless -> voiced"}
    for item in task:
        words = item.question.removesuffix("?").split(", ")[1].split(" or ")
        assert words == sorted((item.answer, item.foil))


@SPOKEN
def test_another_frame_is_spoken():
    item = make("minimal-pairs", n=1, frame="the word {} is short").items[0]
    assert item.pair.clean.text == f"the word {item.answer} is short"


@pytest.mark.skipif(not find_spec("espeakng_loader"), reason='needs pip install "otoscope[speech]"')
def test_the_engine_can_be_chosen():
    for name in ("commands", "minimal-pairs", "sentences", "voices"):
        task = make(name, n=1, engine="espeak")
        assert task.items[0].unit.startswith("espeak:")
        assert task.card.source == "speech synthesis (espeak)"


def test_voices_have_a_sex_and_no_name_twice():
    for engine, known in VOICES.items():
        assert {voice.sex for voice in known} == {"male", "female"}
        assert len({voice.unit for voice in known}) == len(known)
        assert all(voice.engine == engine for voice in known)


def test_without_flite_espeak_speaks(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda program: None)
    assert {voice.engine for voice in voices()} == {"espeak"}


def test_sentences_differ_in_one_inner_word():
    for frame, (one, other) in SENTENCES.items():
        words = frame.split()
        assert words.count("{}") == 1
        assert 0 < words.index("{}") < len(words) - 1
        assert one != other
        assert one not in words
        assert other not in words
    assert len({word for pair in SENTENCES.values() for word in pair}) == 2 * len(SENTENCES)


@SPOKEN
def test_recorded_sentences_differ_in_the_span_of_one_word(tmp_path):
    pytest.importorskip("pocketsphinx", reason='needs pip install "otoscope[speech]"')
    engine = "flite" if flite.available() else "espeak"
    texts = (
        "the farmer keeps his chickens in the barn", "she put the letter on the kitchen table",
        "they crossed the mountain before the storm",
    )  # fmt: skip
    rows = []
    for speaker, voice in zip("ab", voices(engine)):
        for number, text in enumerate(texts):
            name = f"{speaker}{number}.wav"
            write(tmp_path / name, say(text, voice.name, voice.engine))
            rows.append(f"{name}\t{speaker}\t{text.upper()}")
    (tmp_path / "manifest.tsv").write_text("path\tspeaker\ttext\n" + "\n".join(rows) + "\n")
    task = make("sentences", n=4, data=tmp_path)
    assert {item.unit for item in task.items[:2]} == {"a", "b"}
    for item in task:
        said = item.pair.clean_text.split()
        assert item.answer in said
        assert item.foil not in said
        assert item.pair.corrupt_text.lower().split() == [item.foil if w == item.answer else w for w in said]
        difference = item.pair.difference()
        assert difference is not None
        assert item.pair.span[0] <= difference[0] < difference[1] <= item.pair.span[1]
        assert item.pair.clean.speaker == item.unit
        gapped = " ".join("..." if w == item.answer else w for w in said)
        assert item.question == f"Which word was said in the gap: {gapped}?"
    assert [i.digest() for i in make("sentences", n=2, data=tmp_path)] == [i.digest() for i in task.items[:2]]


def test_sentences_need_texts(tmp_path):
    tiny_corpora.noise(tmp_path / "a.wav")
    tiny_corpora.manifest(tmp_path, "path speaker", ["a.wav s"])
    with pytest.raises(TaskError, match="none of the recordings has a text: give LibriSpeech with its transcripts"):
        make("sentences", data=tmp_path)


def test_noise_that_is_no_speech_gives_no_sentence_or_a_reason(tmp_path):
    pytest.importorskip("pocketsphinx", reason='needs pip install "otoscope[speech]"')
    folder = tiny_corpora.librispeech(tmp_path, {"84": "F"})
    with pytest.raises(TaskError, match=r"no sentence of at most 0\.5 s has a word"):
        make("sentences", data=folder, seconds=0.5)


@SPOKEN
def test_both_voices_say_one_text_at_one_level():
    task = make("voices", n=4)
    assert [item.answer for item in task] == ["male", "female", "male", "female"]
    for item in task:
        assert item.pair.clean.text == item.pair.corrupt.text
        assert item.pair.clean.text in TEXTS
        assert item.pair.clean.rms == pytest.approx(item.pair.corrupt.rms, rel=1e-3)
        assert item.labels["speaker"] != item.labels["other_speaker"]


def test_all_readers_speak_before_one_speaks_twice(tmp_path):
    sexes = {"1": "F", "2": "F", "3": "F", "4": "M", "5": "M", "6": "M"}
    task = make("voices", n=12, data=tiny_corpora.librispeech(Path(tmp_path), sexes))
    assert {item.unit for item in task.items[:6]} == set(sexes)
    assert {item.unit for item in task.items[6:]} == set(sexes)
    assert len({item.pair.name for item in task}) == 12
    for item in task:
        of = {"male": "456", "female": "123"}
        assert item.labels["speaker"] in of[item.answer]
        assert item.labels["other_speaker"] in of[item.foil]


@pytest.mark.parametrize("label", list(MADE))
def test_made_sounds_are_seeded_level_and_alike_within_a_class(label):
    one, again, other = (made_sound(label, 2.0, seed) for seed in (1, 1, 2))
    assert one.digest() == again.digest() != other.digest()
    assert len(one) == 32000
    assert one.rms == pytest.approx(0.02, rel=1e-3)
    # in spectrum and in how it comes and goes, a sound is nearer to another one of its class than to any other class
    own = _distance(one, other)
    assert all(own < _distance(one, made_sound(name, 2.0, 2)) for name in MADE if name != label)


def _distance(one: Clip, other: Clip) -> float:
    """Euclidean distance of log band energies, of their spread in time, and of how steady the level is."""

    def features(clip: Clip) -> np.ndarray:
        frames = clip.samples[: len(clip) // 256 * 256].reshape(-1, 256)
        power = np.square(np.abs(np.fft.rfft(frames * np.hanning(256)))).reshape(len(frames), -1)[:, :128]
        bands = np.log10(power.reshape(len(frames), 16, 8).sum(-1) + 1e-8)
        return np.concatenate([bands.mean(0), 2 * bands.std(0)])

    return float(np.linalg.norm(features(one) - features(other)))
