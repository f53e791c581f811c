"""Parts share no speaker, no source and no whole kind; made noise is what it says."""

from __future__ import annotations

import numpy as np
import pytest

from otoscope.audio.clip import Clip
from otoscope.tasks.no_speech import PARTS, divided_sounds, divided_speech, harder_speech, kind_of, noises


def clip(seed: int, *, speaker: str | None = None, seconds: float = 2.0, name: str = "", **labels: str) -> Clip:
    samples = 0.1 * np.random.default_rng(seed).standard_normal(round(16000 * seconds)).astype(np.float32)
    return Clip(samples, 16000, text="words", speaker=speaker, labels=labels, name=name or f"clip-{seed}")


def test_speakers_and_sources_are_in_one_part_and_nothing_is_lost():
    speech = divided_speech([clip(i, speaker=str(i % 10)) for i in range(60)])
    heard = [{s.clip.speaker for s in speech[part]} for part in PARTS]
    assert not heard[0] & heard[1] | heard[0] & heard[2] | heard[1] & heard[2]
    assert sum(len(speech[part]) for part in PARTS) == 60
    assert all(speech[part] for part in PARTS)
    sounds = divided_sounds([clip(i, label="ab"[i % 2], freesound_id=str(i // 6)) for i in range(60)])
    sources = [{s.clip.labels["freesound_id"] for s in sounds[part] if s.kind == "a"} for part in PARTS]
    assert not sources[0] & sources[2]
    assert sum(len(sounds[part]) for part in PARTS) == 60


def test_whole_kinds_are_kept_for_the_report():
    parts = divided_sounds([clip(i, label=str(i % 10)) for i in range(100)])
    kinds = {part: {s.kind for s in parts[part]} for part in PARTS}
    assert kinds["search"] == kinds["choose"]
    assert len(kinds["report"] - kinds["search"]) == 3
    assert len(kinds["report"]) == 10
    again = divided_sounds([clip(i, label=str(i % 10)) for i in range(100)])
    assert [s.clip.name for s in again["report"]] == [s.clip.name for s in parts["report"]]
    other = divided_sounds([clip(i, label=str(i % 10)) for i in range(100)], seed=1)
    assert [s.clip.name for s in other["report"]] != [s.clip.name for s in parts["report"]]


def test_noise_has_its_colour_and_level_and_the_report_hears_other_colours():
    from scipy.stats import linregress

    kinds = {part: {s.kind for s in noises(part)} for part in PARTS}
    assert kinds["search"] == kinds["choose"] < kinds["report"]
    slopes = {"white": 0, "pink": -1, "brown": -2, "blue": 1, "violet": 2}
    for sound in noises("report"):
        name = sound.kind.removesuffix(" noise")
        if name in slopes:
            power = np.abs(np.fft.rfft(sound.clip.samples.astype(float)))[50:5000] ** 2
            assert linregress(np.log(np.arange(50, 5000)), np.log(power)).slope == pytest.approx(slopes[name], abs=0.1)
    levels = {round(20 * np.log10(s.clip.samples.std())) for s in noises("report") if "noise" in s.kind}
    assert levels == {-60, -45, -30, -15}
    silent = [s for s in noises("search") if s.kind == "silence"]
    assert all((s.clip.samples == 0).all() for s in silent)
    white = [next(s for s in noises(part) if s.kind == "white noise") for part in PARTS]
    assert not np.array_equal(white[0].clip.samples, white[2].clip.samples)


def test_hard_speech_keeps_the_words_under_the_noise_and_cuts_where_it_is_loud():
    quiet_then_loud = np.concatenate([np.full(16000, 1e-3), 0.3 * np.sin(np.arange(16000))]).astype(np.float32)
    sentence = divided_speech([Clip(quiet_then_loud, 16000, text="a b", name="s")])
    speech = [s for part in PARTS for s in sentence[part]]
    made = harder_speech(speech, noises("search"), n=3, snr_db=5.0)
    assert [s.kind for s in made] == ["speech in noise", "short speech"]
    mixed, piece = made
    assert mixed.clip.text == "a b"
    added = mixed.clip.samples - quiet_then_loud
    assert 10 * np.log10(np.mean(quiet_then_loud**2) / np.mean(added**2)) == pytest.approx(5.0, abs=0.1)
    assert piece.clip.text is None
    assert float(piece.clip.name.split("from ")[1].split()[0]) >= 0.5
    assert all(s.said for s in made)


def test_a_kind_is_a_label_or_a_folder():
    assert kind_of(clip(0, label="rain")) == "rain"
    assert kind_of(clip(0, name="sounds/rain/1.wav")) == "rain"
    assert kind_of(clip(0, name="1.wav")) == "recording"
