"""Corruptions: what holds for every one of them, and the number each of them promises."""

import json

import numpy as np
import pytest
from scipy import signal

from otoscope.audio.clip import Clip, Span
from otoscope.audio.corruptions import CORRUPTIONS, FACTORS, apply, describe
from otoscope.audio.corruptions.codec import inverse_mdct, mdct
from otoscope.audio.corruptions.room import room_response
from otoscope.audio.stretch import stretched
from otoscope.errors import AudioError

RATE = 16000


def voice(seconds: float = 1.5, pitch: float = 120.0, seed: int = 0, rate: int = RATE) -> Clip:
    """Something like speech: harmonics under a syllable envelope, with a little noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    tone = sum(np.sin(2 * np.pi * pitch * k * time + k) / k for k in range(1, 20))
    wave = 0.1 * tone * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * time)) + 1e-3 * rng.standard_normal(len(time))
    third = seconds / 3
    words = tuple(Span(i * third, (i + 1) * third, word) for i, word in enumerate(("one", "two", "three")))
    return Clip(wave, rate, text="one two three", words=words, phones=words, name=f"voice{seed}")


CLIP = voice()
OTHER = voice(1.1, pitch=210.0, seed=1, rate=22050)
NEEDED = {
    "recorded_noise": {"recording": OTHER},
    "other_speaker": {"other": OTHER},
    "splice": {"donor": OTHER, "start": 0.1, "end": 0.9},
}
SPAN = (0.5, 1.1)
INSIDE = slice(8000, 17600)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("span", [None, SPAN])
def test_every_corruption_keeps_length_and_what_is_outside_and_changes_what_is_inside(name, span):
    before = CLIP.digest()
    done = apply(name, CLIP, span, seed=3, **NEEDED.get(name, {}))
    assert CLIP.digest() == before, "the input was changed"
    assert len(done.clip) == len(CLIP)
    assert done.clip.rate == RATE
    where = slice(0, len(CLIP)) if span is None else INSIDE
    outside = np.ones(len(CLIP), bool)
    outside[where] = False
    assert np.array_equal(done.clip.samples[outside], CLIP.samples[outside])
    assert np.mean(done.clip.samples[where] != CLIP.samples[where]) > 0.4
    assert done.span == ((0.0, CLIP.duration) if span is None else SPAN)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_corruption_depends_on_its_seed_alone(name):
    first, again = (apply(name, CLIP, SPAN, seed=5, **NEEDED.get(name, {})) for _ in range(2))
    assert first.clip.digest() == again.clip.digest()
    other = apply(name, CLIP, SPAN, seed=6, **NEEDED.get(name, {}))
    draws = {"white_noise", "pink_noise", "babble", "recorded_noise", "noise_replacement", "other_speaker"}
    draws |= {"reverberation", "time_shuffle"}
    assert (first.clip.digest() != other.clip.digest()) == (name in draws)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_corruption_says_what_it_keeps_and_breaks(name):
    kind = CORRUPTIONS[name]
    assert set(kind.keeps) | set(kind.breaks) <= set(FACTORS)
    assert not set(kind.keeps) & set(kind.breaks)
    assert "duration" in kind.keeps
    assert kind.breaks
    (entry,) = describe(name)
    assert entry["summary"].endswith(".")
    json.dumps(entry)
    json.dumps(apply(name, CLIP, SPAN, **NEEDED.get(name, {})).params)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_annotation_loses_the_words_that_are_broken_and_no_other(name):
    done = apply(name, CLIP, (0.5, 1.0), **NEEDED.get(name, {}))
    said = [word.text for word in done.clip.words]
    if name == "splice":
        assert said == ["one", "one two", "three"], "the donor's words in the place of 'two'"
        return
    if "words" in done.breaks:
        assert said == ["one", "three"]
        assert done.clip.text == "one three"
    else:
        assert said == ["one", "two", "three"]
        assert done.clip.text == "one two three"


@pytest.mark.parametrize("name", ["white_noise", "pink_noise", "babble", "recorded_noise", "other_speaker"])
@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 20.0])
@pytest.mark.parametrize("span", [None, SPAN])
def test_snr_is_exact_over_the_span(name, snr_db, span):
    done = apply(name, CLIP, span, seed=1, snr_db=snr_db, **NEEDED.get(name, {}))
    where = slice(0, len(CLIP)) if span is None else INSIDE
    speech = CLIP.samples[where].astype(np.float64)
    noise = done.clip.samples[where] - speech
    assert 10 * np.log10(np.mean(speech**2) / np.mean(noise**2)) == pytest.approx(snr_db, abs=0.01)


def test_pink_noise_falls_by_3_db_per_octave_and_white_is_flat():
    clip = voice(8.0)
    slopes = {}
    for name in ("pink_noise", "white_noise"):
        noise = apply(name, clip, snr_db=0.0).clip.samples - clip.samples
        hz, power = signal.welch(noise, RATE, nperseg=2048)
        band = (hz > 100) & (hz < 6000)
        slopes[name] = np.polyfit(np.log2(hz[band]), 10 * np.log10(power[band]), 1)[0]
    assert slopes["pink_noise"] == pytest.approx(-3.01, abs=0.3)
    assert slopes["white_noise"] == pytest.approx(0, abs=0.3)


@pytest.mark.parametrize(
    ("name", "key"), [("recorded_noise", "recording"), ("other_speaker", "other"), ("babble", "voices")]
)
def test_silence_around_a_given_recording_is_not_mixed_in(name, key):
    bark = np.zeros(10 * RATE)
    bark[5000:9000] = 0.3 * np.random.default_rng(0).standard_normal(4000)
    for seed in range(5):
        done = apply(name, CLIP, SPAN, seed=seed, snr_db=0.0, **{key: Clip(bark, RATE)})
        assert (done.clip.samples != CLIP.samples).sum() >= 3900


def test_babble_of_given_voices_uses_them():
    plain = apply("babble", CLIP, seed=2)
    given = apply("babble", CLIP, seed=2, voices=(OTHER, voice(0.3, 90, 2)))
    assert plain.clip.digest() != given.clip.digest()
    assert given.params["voices"] == "voice1 voice2"


def test_synthetic_babble_wavers_like_speech_and_noise_does_not():
    clip = voice(8.0)

    def waver(name):
        noise = apply(name, clip, snr_db=0).clip.samples.astype(np.float64) - clip.samples
        level = np.sqrt(np.mean(noise[: 8 * RATE].reshape(-1, 800) ** 2, axis=1))
        return level.std() / level.mean()

    assert waver("babble") > 3 * waver("white_noise")


def test_noise_replacement_has_the_level_of_the_span_and_none_of_its_sound():
    done = apply("noise_replacement", CLIP, SPAN, seed=1)
    was, now = CLIP.samples[INSIDE], done.clip.samples[INSIDE]
    assert np.sqrt(np.mean(now**2)) == pytest.approx(np.sqrt(np.mean(was**2)), rel=1e-4)
    assert abs(np.corrcoef(was, now)[0, 1]) < 0.05


def test_silence_is_zero_between_its_fades():
    done = apply("silence", CLIP, SPAN)
    assert not done.clip.samples[8000 + 32 : 17600 - 32].any()
    assert np.abs(np.diff(done.clip.samples)).max() <= 2 * np.abs(np.diff(CLIP.samples)).max()


@pytest.mark.parametrize(
    ("name", "params", "passed", "stopped"),
    [
        ("low_pass", {"cutoff_hz": 1000}, (100, 700), (2000, 8000)),
        ("high_pass", {"cutoff_hz": 1000}, (1500, 8000), (50, 500)),
        ("band_pass", {"low_hz": 500, "high_hz": 2000}, (800, 1400), (4000, 8000)),
    ],
)
def test_filters_pass_and_stop_without_delay(name, params, passed, stopped):
    noise = Clip(0.1 * np.random.default_rng(0).standard_normal(4 * RATE), RATE)
    out = apply(name, noise, **params).clip.samples
    hz, before = signal.welch(noise.samples, RATE, nperseg=1024)
    _, after = signal.welch(out, RATE, nperseg=1024)
    gain = 10 * np.log10(after / before)
    assert np.abs(gain[(hz > passed[0]) & (hz < passed[1])]).max() < 1.0
    assert gain[(hz > stopped[0]) & (hz < stopped[1])].max() < -40
    lags = np.arange(-50, 51)
    middle = slice(1000, -1000)
    correlation = [np.dot(np.roll(out, lag)[middle], noise.samples[middle]) for lag in lags]
    assert lags[np.argmax(correlation)] == 0


def test_filter_of_a_clip_shorter_than_its_own_ringing():
    assert len(apply("low_pass", Clip(np.ones(5), RATE), cutoff_hz=50).clip) == 5


def test_cutoff_above_half_the_rate_is_refused():
    with pytest.raises(AudioError, match="9000 Hz is not below 8000 Hz"):
        apply("low_pass", CLIP, cutoff_hz=9000)


@pytest.mark.parametrize("rt60", [0.3, 0.9])
def test_room_decays_by_60_db_in_rt60(rt60):
    response = room_response(rt60, 0.0, RATE, np.random.default_rng(0))
    tail = response[1:]
    assert 10 * np.log10(1 / np.sum(tail**2)) == pytest.approx(0.0, abs=1e-6)
    energy = 10 * np.log10(np.cumsum(tail[::-1] ** 2)[::-1] / np.sum(tail**2))
    # Schroeder's backward integral, fitted from -5 to -25 dB as ISO 3382 does
    fit = (energy < -5) & (energy > -25)
    slope = np.polyfit(np.flatnonzero(fit) / RATE, energy[fit], 1)[0]
    assert -60 / slope == pytest.approx(rt60, rel=0.1)


def test_reverberation_keeps_direct_sound_in_place_and_level():
    click = np.zeros(RATE)
    click[4000] = 0.5
    out = apply("reverberation", Clip(click, RATE), drr_db=3.0).clip.samples
    assert np.argmax(np.abs(out)) == 4000
    assert not np.abs(out[:4000]).max() > 1e-6
    level = apply("reverberation", CLIP).clip.rms
    assert level == pytest.approx(CLIP.rms, rel=1e-3)


def test_clipping_has_flat_tops_and_keeps_what_is_below():
    done = apply("clipping", CLIP, threshold=0.5).clip.samples
    top = 0.5 * np.abs(CLIP.samples).max()
    assert np.abs(done).max() == pytest.approx(top, rel=1e-6)
    below = np.abs(CLIP.samples) < 0.99 * top
    assert np.array_equal(done[below], CLIP.samples[below])


def test_shuffle_without_fade_is_a_permutation_of_blocks():
    done = apply("time_shuffle", CLIP, SPAN, seed=4, block_ms=100.0, fade_ms=0.0).clip.samples[INSIDE]
    blocks = {block.tobytes() for block in CLIP.samples[INSIDE].reshape(6, 1600)}
    assert {block.tobytes() for block in done.reshape(6, 1600)} == blocks


def test_shuffle_of_two_blocks_always_swaps_them():
    for seed in range(8):
        done = apply("time_shuffle", CLIP, (0.5, 0.7), seed=seed, block_ms=100.0, fade_ms=0.0).clip.samples
        assert np.array_equal(done[8000:9600], CLIP.samples[9600:11200])


def test_fades_leave_no_click_where_blocks_join():
    slow = Clip(np.sin(2 * np.pi * 30 * np.arange(RATE) / RATE), RATE)
    steps = {
        (name, fade): np.abs(np.diff(apply(name, slow, (0.21, 0.73), seed=1, fade_ms=fade).clip.samples)).max()
        for name in ("time_shuffle", "reverse")
        for fade in (0.0, 4.0)
    }
    for name in ("time_shuffle", "reverse"):
        assert steps[name, 4.0] < 0.05 < 0.2 < steps[name, 0.0]


def test_reverse_without_fade_is_exact():
    done = apply("reverse", CLIP, SPAN, fade_ms=0.0).clip.samples
    assert np.array_equal(done[INSIDE], CLIP.samples[INSIDE][::-1])


@pytest.mark.parametrize(("bits", "levels"), [(4, 17), (6, 65)])
def test_bit_depth_leaves_so_many_levels(bits, levels):
    assert len(np.unique(apply("bit_depth", CLIP, bits=bits).clip.samples)) <= levels
    error = apply("bit_depth", CLIP, bits=bits).clip.samples - CLIP.samples
    assert np.abs(error).max() <= np.abs(CLIP.samples).max() / 2**bits * 1.001


def test_mu_law_is_finer_where_it_is_quiet():
    quiet = CLIP.replace(samples=np.concatenate([CLIP.samples, 0.01 * CLIP.samples]))
    error = np.abs(apply("mu_law", quiet).clip.samples - quiet.samples)
    loud, soft = error[: len(CLIP)].mean(), error[len(CLIP) :].mean()
    assert soft < 0.05 * loud
    assert len(np.unique(apply("mu_law", quiet).clip.samples)) <= 256


def test_mdct_reconstructs():
    samples = np.random.default_rng(0).standard_normal(1234)
    assert np.allclose(inverse_mdct(mdct(samples, 64), 64, 1234), samples, atol=1e-12)


def test_codec_has_its_bandwidth_and_gets_better_with_its_quality():
    noise = Clip(0.1 * np.random.default_rng(0).standard_normal(2 * RATE), RATE)
    hz, power = signal.welch(apply("codec", noise, bandwidth_hz=4000).clip.samples, RATE)
    assert power[hz > 4300].max() < 1e-4 * power[hz < 3700].min()
    for snr_db in (12.0, 24.0):
        out = apply("codec", noise, bandwidth_hz=8000, band_snr_db=snr_db).clip.samples
        got = 10 * np.log10(np.mean(noise.samples**2) / np.mean((out - noise.samples) ** 2))
        assert got == pytest.approx(snr_db, abs=1.5)


@pytest.mark.parametrize("fit", ["stretch", "cut"])
def test_splice_has_the_pitch_of_the_donor_and_the_level_of_the_span(fit):
    done = apply("splice", CLIP, SPAN, donor=OTHER, start=0.2, end=0.7, fit=fit).clip.samples[INSIDE]
    assert np.sqrt(np.mean(done**2)) == pytest.approx(np.sqrt(np.mean(CLIP.samples[INSIDE] ** 2)), rel=0.05)
    spectrum = np.abs(np.fft.rfft(done * np.hanning(len(done)), 4 * RATE))
    assert np.argmax(spectrum) / 4 == pytest.approx(210, abs=3)


def test_splice_names_the_word_that_it_brings():
    donor = voice(1.5, 200, 7)
    done = apply("splice", CLIP, (0.5, 1.0), donor=donor, start=0.0, end=0.5)
    assert done.clip.text == "one one three"


def test_splice_refuses_what_would_not_be_natural():
    with pytest.raises(AudioError, match="fit='cut'"):
        apply("splice", CLIP, (0.5, 0.6), donor=OTHER)


@pytest.mark.parametrize("ratio", [0.6, 1.0, 1.7])
def test_stretch_keeps_the_pitch_and_gives_the_length(ratio):
    time = np.arange(RATE) / RATE
    tone = np.sin(2 * np.pi * 200 * time)
    out = stretched(tone, round(ratio * RATE), RATE)
    assert len(out) == round(ratio * RATE)
    middle = out[2000:-2000]
    hz = np.argmax(np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 8 * RATE))) / 8
    assert hz == pytest.approx(200, abs=1)
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(np.sqrt(0.5), rel=0.05)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: apply("whitenoise", CLIP), "no corruption 'whitenoise'; choose one of white_noise"),
        (lambda: apply("white_noise", CLIP, snr=3), "no parameter 'snr'; it takes snr_db"),
        (lambda: apply("other_speaker", CLIP), "needs the parameter 'other'"),
        (lambda: apply("other_speaker", CLIP, other="x.wav"), "must be a clip, not str"),
        (lambda: apply("white_noise", CLIP, snr_db="loud"), "'loud'; give a number from -60 to 120 dB"),
        (lambda: apply("white_noise", CLIP, snr_db=float("nan")), "nan; give a number"),
        (lambda: apply("bit_depth", CLIP, bits=6.5), "6.5; give a whole number from 2 to 24"),
        (lambda: apply("white_noise", CLIP, (1.0, 2.0)), r"1-2 s is not inside clip 'voice0', which lasts 1.500 s"),
        (lambda: apply("white_noise", CLIP, (1.0, 0.5)), "0 <= start < end"),
        (lambda: apply("white_noise", CLIP, seed=-1), "seed is -1"),
        (lambda: apply("white_noise", Clip(np.zeros(100), RATE)), "silent, so no level relative to it exists"),
        (
            lambda: apply("recorded_noise", CLIP, recording=Clip(np.zeros(100), RATE)),
            "The sound to mix in, the clip, is silent",
        ),
        (lambda: apply("time_shuffle", CLIP, (0.5, 0.54)), "fewer than two blocks of 50 ms"),
        (lambda: apply("band_pass", CLIP, low_hz=3000, high_hz=300), "swap them"),
        (lambda: describe("nothing"), "no corruption 'nothing'"),
    ],
)
def test_bad_input_gets_one_sentence(call, message):
    with pytest.raises(AudioError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_peak_beyond_full_scale_is_noticed_and_not_cut():
    done = apply("white_noise", CLIP, snr_db=-30)
    assert np.abs(done.clip.samples).max() > 1
    assert "beyond full scale" in done.clip.notices[-1]
    assert done.change == "white_noise(snr_db=-30)"
