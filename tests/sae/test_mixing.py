"""Mixtures: weights are shares of time, noise comes as often and as loud as asked, and everything goes on exactly."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from otoscope.audio.clip import Clip
from otoscope.audio.files import write
from otoscope.errors import AudioError
from otoscope.sae.mixing import Mixture, Noise, Take, mixture
from otoscope.sae.recordings import Recording, find
from tests.sae.corpus import RATE, write_corpus


def _corpus(name: str, n: int, seconds: float, tmp_path) -> list[Recording]:
    return [Recording(tmp_path / f"{name}{i}.wav", f"{name}{i}", name, RATE, round(seconds * RATE)) for i in range(n)]


def test_without_weights_every_recording_comes_once_in_random_order(tmp_path):
    own = _corpus("a", 50, 1.0, tmp_path)
    made = mixture([own], seed=3)
    names = [t.recording.name for t in made.takes()]
    assert sorted(names) == sorted(r.name for r in own)
    assert names != [r.name for r in own]
    assert names == [t.recording.name for t in mixture([own], seed=3).takes()]
    assert names != [t.recording.name for t in mixture([own], seed=4).takes()]
    assert names != [t.recording.name for t in made.takes(epoch=1)]
    drawn = [t.recording.name for t in mixture([own], seed=3, limit=20).takes()]
    assert len(set(drawn)) == 20


def test_weights_are_shares_of_time(tmp_path):
    # recordings of a are four times as long, so an equal share of time asks for four times as many of b
    a, b = _corpus("a", 40, 4.0, tmp_path), _corpus("b", 160, 1.0, tmp_path)
    made = mixture([a, b], [1, 1], limit=4000, seed=1)
    assert made.probabilities == pytest.approx({"a": 0.2, "b": 0.8})
    takes = made.takes()
    of_a = sum(t.recording.corpus == "a" for t in takes)
    low, high = stats.binom.interval(0.9999, 4000, 0.2)
    assert low <= of_a <= high
    time_of_a = sum(t.recording.seconds for t in takes if t.recording.corpus == "a")
    assert time_of_a / sum(t.recording.seconds for t in takes) == pytest.approx(0.5, abs=0.03)
    # a wrong share would be seen: the bounds exclude drawing by recordings
    assert not low <= 4000 * 40 / 200 * 2 <= high


def test_a_mixture_ends_before_a_recording_comes_twice_and_repeats_only_with_a_limit(tmp_path):
    a, b = _corpus("a", 30, 1.0, tmp_path), _corpus("b", 500, 1.0, tmp_path)
    takes = mixture([a, b], [0.5, 0.5], seed=2).takes()
    names = [t.recording.name for t in takes]
    assert len(set(names)) == len(names)
    assert sum(n.startswith("a") for n in names) == 30
    again = [t.recording.name for t in mixture([a, b], [0.5, 0.5], seed=2, limit=200).takes()]
    counts = [again.count(r.name) for r in a]
    assert max(counts) - min(counts) <= 1  # every recording once before any comes again
    assert len(again) == 200


def test_noise_comes_as_often_and_as_loud_as_asked():
    rng = np.random.default_rng(0)
    clip = Clip(0.1 * rng.standard_normal(800).astype(np.float32), RATE)
    noise = Noise(0.3, (5.0, 15.0))
    got, ratios, kinds = 0, [], []
    for i in range(500):
        noisy, what = noise.added(clip, np.random.default_rng([7, i]))
        if what is None:
            assert noisy is clip
            continue
        got += 1
        kinds.append(what.split(" at ")[0])
        added = noisy.samples.astype(float) - clip.samples
        ratios.append(10 * np.log10(np.mean(np.square(clip.samples, dtype=float)) / np.mean(added**2)))
        assert f"{ratios[-1]:.2f} dB" in what
    low, high = stats.binom.interval(0.9999, 500, 0.3)
    assert low <= got <= high
    assert stats.kstest((np.array(ratios) - 5) / 10, "uniform").pvalue > 1e-4
    low, high = stats.binom.interval(0.9999, got, 0.5)
    assert low <= kinds.count("pink_noise") <= high


def test_recorded_noise_is_what_is_added(tmp_path):
    sounds = tuple(
        write(tmp_path / f"n{i}.wav", Clip(np.full(RATE, 0.1 * (i + 1), np.float32) * (-1) ** np.arange(RATE), RATE))
        for i in range(2)
    )
    clip = Clip(np.sin(np.arange(RATE) / 20).astype(np.float32) * 0.1, RATE)
    found = {Noise(1.0, (10, 10), sounds).added(clip, np.random.default_rng(i))[1] for i in range(20)}
    assert found == {"n0.wav at 10.00 dB", "n1.wav at 10.00 dB"}
    noisy, _ = Noise(1.0, (10, 10), sounds[:1]).added(clip, np.random.default_rng(0))
    added = noisy.samples.astype(float) - clip.samples
    assert np.allclose(added[1:], -added[:-1], atol=1e-6)  # alternates, as the noise does


def test_a_silent_recording_gets_no_noise_and_says_so():
    silent, what = Noise(1.0).added(Clip(np.zeros(800, np.float32), RATE), np.random.default_rng(0))
    assert what is None
    assert "silent" in silent.notices[-1]


def test_a_take_is_the_same_however_it_is_come_by(tmp_path):
    made = mixture([find(write_corpus(tmp_path / "c"))], noises=(Noise(0.5), Noise(0.5, (0, 3))), seed=5)
    whole = [t.sound(8000) for t in made.takes()]
    third = made.takes()[3].sound(8000)
    assert np.array_equal(third.clip.samples, whole[3].clip.samples)
    assert third.noise == whole[3].noise
    assert third.digest == made.takes()[3].recording.clip().digest()
    assert {s.noise is None for s in whole} == {True, False}


def test_two_rules_of_noise_are_drawn_independently():
    clip = Clip(np.sin(np.arange(400) / 5).astype(np.float32), RATE)
    counts = np.zeros((2, 2), int)
    for i in range(300):
        rng = np.random.default_rng([1, i])
        clip_1, first = Noise(0.5).added(clip, rng)
        _, second = Noise(0.5).added(clip_1, rng)
        counts[int(first is not None), int(second is not None)] += 1
    assert stats.chi2_contingency(counts)[1] > 1e-4


def test_the_fingerprint_tells_mixtures_apart(tmp_path):
    own = find(write_corpus(tmp_path / "c"))
    base = mixture([own]).fingerprint()
    assert base == mixture([list(own)]).fingerprint()
    others = [
        mixture([own], seed=1), mixture([own], limit=3), mixture([own], noises=(Noise(0.1),)), mixture([own[1:]]),
        mixture([own], align=True), mixture([own], [1.0]),
    ]  # fmt: skip
    assert len({m.fingerprint() for m in others} | {base}) == len(others) + 1


def test_what_cannot_be_mixed_is_refused(tmp_path):
    a, b = _corpus("a", 2, 1.0, tmp_path), _corpus("b", 2, 1.0, tmp_path)
    with pytest.raises(AudioError, match="There are no recordings"):
        mixture([[]])
    with pytest.raises(AudioError, match="1 weights for 2 corpora"):
        mixture([a, b], [1])
    with pytest.raises(AudioError, match="finite numbers"):
        mixture([a, b], [0, 0])
    with pytest.raises(AudioError, match="share one"):
        mixture([a, a], [1, 1])
    with pytest.raises(AudioError, match="fewer than the limit of 9"):
        mixture([a], limit=9).takes()
    with pytest.raises(AudioError, match="no weight"):
        Mixture((*a, *b), {"a": 1.0})
    with pytest.raises(AudioError, match="probability of noise is 2"):
        Noise(2)
    with pytest.raises(AudioError, match="lower end first"):
        Noise(0.1, (20, 0))


def test_alignment_is_asked_for_and_its_failure_noticed(tmp_path):
    pytest.importorskip("pocketsphinx")
    write(tmp_path / "hiss.wav", Clip(0.01 * np.random.default_rng(0).standard_normal(1600).astype(np.float32), RATE))
    (tmp_path / "hiss.txt").write_text("a sentence of many long words that cannot be in a tenth of a second")
    (found,) = find(tmp_path)
    assert not any("align" in n for n in Take(found, 0).sound(RATE).clip.notices)
    assert any(n.startswith("not aligned: ") for n in Take(found, 0, align=True).sound(RATE).clip.notices)
