"""The study of a fix on a tiny Whisper: parts, resume, export, claims; and the whole of it on recordings."""

from __future__ import annotations

import json

import numpy as np
import pytest

import otoscope
from otoscope.audio.clip import Clip
from otoscope.audio.files import write
from otoscope.errors import TaskError
from otoscope.methods.invention import Written, has_words
from otoscope.runs import Run
from otoscope.stats import Interval
from otoscope.studies import fix
from otoscope.studies.fix import FixConfig, Fixed, claims, material, metrics, study
from otoscope.studies.fix_run import find_fix, lines, tables
from otoscope.studies.fix_trial import Tried, tried
from otoscope.studies.outcome import compute_now
from otoscope.tasks.no_speech import PARTS, Sound
from tests.methods.tiny_sentences import clip, model

CONFIG = FixConfig(hard=2)


@pytest.fixture(autouse=True)
def few_noises(monkeypatch):
    """A few sounds of each part, so that a tiny study takes seconds."""
    whole = fix.noises
    monkeypatch.setattr(fix, "noises", lambda part, seed, lengths: whole(part, seed, lengths)[::6])


@pytest.fixture(scope="module")
def whisper():
    return model()


@pytest.fixture(scope="module")
def speech():
    rng = np.random.default_rng(5)
    made = []
    for i in range(9):
        tone = np.sin(2 * np.pi * (200 + 90 * i) * np.arange(12000) / 16000) * rng.random()
        made.append(Clip((0.3 * tone).astype(np.float32), 16000, text="a word", speaker=str(i % 5), name=f"s{i}"))
    return made


@pytest.fixture(scope="module")
def sounds():
    return [clip(i + 40) for i in range(9)]


def test_the_whole_study_resumes_and_its_fix_does_what_is_reported(whisper, speech, sounds, tmp_path):
    parts = material(sounds, speech, CONFIG, 1.0)
    asked: list[str] = []

    def made(folder: str) -> Fixed:
        with Run(tmp_path / folder, "fix", {"a": 1}) as run:

            def step(key, compute):
                return run.step(key, lambda: (asked.append(key), compute())[1])

            found = study(whisper, parts, CONFIG, step)
            run.finish(metrics(found), claims=claims(found))
        return found

    first = made("one")
    n = len(asked)
    again = made("one")
    assert len(asked) == n  # nothing is computed twice
    assert again.chosen == first.chosen or str(again.chosen) == str(first.chosen)
    made("two")
    files = [(tmp_path / name / "results.json").read_text().replace(name, "") for name in ("one", "two")]
    assert json.loads(files[0])["metrics"] == json.loads(files[1])["metrics"]
    assert first.chosen[0].label == "none"
    assert {t.family for t in first.chosen} == {"none", "heads", "direction", "neuron"}
    assert sum(t.control for t in first.chosen) == 3
    assert set(tables(first)) == {"frontier", "report", "kinds", "heads", "signals"}
    assert any("as it is" in line or "none" in line for line in lines(first, claims(first)))
    assert sum(n for n, _, _ in first.by_kind.values()) == first.reported[0].invented.n


def test_parts_share_no_sound_and_speech_is_also_hard(speech, sounds):
    parts = material(sounds, speech, CONFIG, 1.0)
    digests = [{s.digest() for s in parts[part] if s.kind != "silence"} for part in PARTS]
    assert not digests[0] & digests[1]
    assert not digests[0] & digests[2]
    assert not digests[1] & digests[2]
    assert {s.kind for s in parts["report"] if s.said} == {"speech", "speech in noise", "short speech"}
    with pytest.raises(TaskError, match="too few"):
        material(sounds, speech[:3], CONFIG, 1.0)
    with pytest.raises(TaskError, match="too few"):
        material(sounds, speech, CONFIG, 0.1)


def sound(kind: str, text: str | None = None, speaker: str = "a") -> Sound:
    return Sound(Clip(np.zeros(1600, np.float32), 16000, text=text, speaker=speaker), kind, "speech" in kind)


def test_a_trial_counts_words_errors_and_silence():
    parts = [
        sound("rain"), sound("rain"), sound("speech", "the cat sat here"), sound("speech", "red sun", "b"),
        sound("short speech"), sound("short speech"), sound("speech in noise", "big dog"),
    ]  # fmt: skip
    nan = float("nan")
    plain = [Written(t, nan, nan) for t in ("Thank you.", ", .", "the cat sat here", "red sun", "yes", "no", "big")]
    after = [Written(t, nan, nan) for t in ("", ".", "the cat sat", "red sun", "", "no", "big dog")]
    before, now = tried(None, plain, plain, parts), tried(None, after, plain, parts)
    assert before.invented.value == 0.5
    assert now.invented.value == 0
    assert now.wer.value == pytest.approx(1 / 6)
    assert now.wer_rise.value == pytest.approx(1 / 6)
    assert before.noisy_wer.value == 0.5
    assert now.noisy_wer.value == 0
    assert now.silenced.value == 0.5
    assert now.invented.n == 2
    ruled = [Written("Thank you.", 0.9, -2.0), Written("Hi.", 0.9, -0.5), *plain[2:]]
    assert np.isnan(before.after_rule.value)
    judged = [Written(w.text, 0.0, 0.0) if np.isnan(w.log_prob) else w for w in ruled]
    assert tried(None, judged, judged, parts).after_rule.value == 0.5


def some(label: str, invented: float, rise: float, control: bool = False, noisy: float = 0.1) -> Tried:
    def at(value: float) -> Interval:
        return Interval(value, value, value, 10)

    return Tried(
        label, label.split()[0], 1.0, control, at(invented), at(invented), at(0.05 + rise), at(rise), at(noisy), at(0.0)
    )


def test_the_choice_holds_wer_and_never_takes_a_control():
    from otoscope.methods.invention_edits import Candidate

    names = ["heads 1", "neuron 1", "neuron 2", "neuron 3"]
    made = [
        Candidate("heads", 1, ()),
        Candidate("neuron", 1, ()),
        Candidate("neuron", 2, ()),
        Candidate("neuron", 1, (), {}, True),
    ]
    plain = some("none", 0.9, 0.0)

    def picked(*trials: Tried):
        return fix._pick(made, [plain, *trials])

    good = [
        some(names[0], 0.5, 0.0),
        some(names[1], 0.2, 0.001),
        some(names[2], 0.0, 0.02),
        some(names[3], 0.0, 0.0, True),
    ]
    assert picked(*good) is made[1]
    noisy = [good[0], some(names[1], 0.2, 0.001, noisy=0.2), *good[2:]]
    assert picked(*noisy) is made[0]
    harmful = [some(name, 0.1, 0.1) for name in names]
    assert picked(*harmful) is None
    useless = [some(name, 0.9, 0.0) for name in names]
    assert picked(*useless) is None


def test_files_in_a_fix_out(whisper, speech, sounds, tmp_path):
    for name, clips in (("speech", speech), ("sounds", sounds)):
        (tmp_path / name).mkdir()
        for c in clips:
            write(tmp_path / name / f"{c.name}.wav", c)
    rows = "".join(f"{c.name}.wav\ta word\t{c.speaker}\n" for c in speech)
    (tmp_path / "speech" / "manifest.tsv").write_text("path\ttext\tspeaker\n" + rows)
    done = find_fix(
        whisper, [tmp_path / "speech"], [tmp_path / "sounds"], config=FixConfig(hard=1, families=("neuron",)), out=tmp_path / "run"
    )  # fmt: skip
    assert done.report
    assert done.report.exists()
    page = done.report.read_text()
    assert "Frontier" in page
    assert "hallucination.before" in done.results["metrics"]
    if done.found.fix is not None:
        with otoscope.apply(whisper, tmp_path / "run"):
            pass
    assert (tmp_path / "run" / "fix.json").exists() == (done.found.fix is not None)
    with pytest.raises(TaskError, match="no intervention 'magic'"):
        find_fix(whisper, [tmp_path / "speech"], config=FixConfig(families=("magic",)))


def test_without_sounds_of_ones_own_noise_is_heard(whisper, speech):
    parts = material([], speech, CONFIG, 1.0)
    found = study(whisper, parts, FixConfig(hard=0, families=("neuron",)), compute_now)
    assert found.effects == {}
    assert found.reported[0].invented.n > 0
    assert all(0 <= value <= 1 for value in found.auc.values() if not np.isnan(value))
    assert has_words("a")
