"""Word timing: DTW against brute force, planted attention, padding, real weights against known times."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

import otoscope
from otoscope.audio.clip import Clip
from otoscope.audio.synth import say
from otoscope.errors import ModelError, SiteError, TaskError
from otoscope.methods.dtw import dtw, entries
from otoscope.methods.timing import TokenTime, _words, alignment_heads, smooth, word_timing
from tests import tiny


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (2, 3), (4, 4), (5, 7), (7, 4)])
@pytest.mark.parametrize("seed", range(3))
def test_dtw_is_the_cheapest_of_all_monotone_paths(shape: tuple[int, int], seed: int) -> None:
    cost = np.random.default_rng(seed).standard_normal(shape)

    @cache
    def cheapest(i: int, j: int) -> float:
        if i < 0 or j < 0:
            return np.inf
        before = min(cheapest(i - 1, j), cheapest(i, j - 1), cheapest(i - 1, j - 1)) if i or j else 0.0
        return cost[i, j] + before

    rows, columns, total = dtw(cost)
    assert total == pytest.approx(cheapest(shape[0] - 1, shape[1] - 1), abs=1e-9)
    assert cost[rows, columns].sum() == pytest.approx(total, abs=1e-9), "the path is the one that costs so much"
    steps = np.stack([np.diff(rows), np.diff(columns)])
    assert np.all((steps == 0) | (steps == 1))
    assert np.all(steps.sum(0) >= 1)
    assert (rows[0], columns[0], rows[-1], columns[-1]) == (0, 0, shape[0] - 1, shape[1] - 1)
    assert len(entries(rows, columns)) == shape[0]


def test_dtw_is_monotone_at_full_size() -> None:
    rows, columns, _ = dtw(np.random.default_rng(0).standard_normal((200, 1500)))
    assert np.all(np.diff(rows) >= 0)
    assert np.all(np.diff(columns) >= 0)
    assert np.all(np.diff(entries(rows, columns)) >= 0)
    rows, columns, _ = dtw(np.zeros((5, 9)))
    assert (rows[-1], columns[-1]) == (4, 8), "ties end, too"


def planted(onsets: list[int], n_frames: int, n_heads: int, noise: float, seed: int = 0) -> np.ndarray:
    """Attention of rows that each look at their own stretch of frames, with noise, normalised as a softmax is."""
    rng = np.random.default_rng(seed)
    scores = noise * rng.standard_normal((n_heads, len(onsets), n_frames))
    for row, (start, end) in enumerate(zip(onsets, [*onsets[1:], n_frames])):
        scores[:, row, start:end] += 3.0
    weights = np.exp(scores)
    return weights / weights.sum(-1, keepdims=True)


def test_planted_onsets_come_back() -> None:
    onsets = [0, 20, 35, 61, 90, 150]
    found = entries(*dtw(-smooth(planted(onsets, 200, 6, noise=1.0)))[:2])
    assert np.max(np.abs(found - onsets)) <= 3, "within the half-width of the median filter"


def test_noise_alone_does_not_find_planted_onsets() -> None:
    """Null: without the plant, onsets land anywhere."""
    onsets = np.array([0, 20, 35, 61, 90, 150])
    misses = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        weights = np.exp(rng.standard_normal((6, 6, 200)))
        misses.append(np.abs(entries(*dtw(-smooth(weights / weights.sum(-1, keepdims=True)))[:2]) - onsets)[1:])
    assert np.median(misses) > 10


def test_smooth_leaves_out_frames_that_say_nothing() -> None:
    flat = np.full((2, 3, 20), 0.05)
    assert np.all(smooth(flat) == 0)
    assert smooth(np.full((1, 3, 2), 0.5)).shape == (3, 2), "fewer frames than the filter has"
    spike = np.full((1, 3, 20), 0.05)
    spike[0, 1, 10] = 0.9
    assert np.all(smooth(spike) == 0), "one frame alone is an outlier to the median"
    assert smooth(spike, 1)[1, 10] > 1


def test_times_are_ordered_and_inside_the_recording() -> None:
    model = tiny.build("whisper")
    clip = tiny.sound(1, n_samples=5000)  # a third of the window; the rest is padding
    found = word_timing(model, clip, tokens=[7, 9, 11, 13, 15])
    times = np.array([(t.start, t.end) for t in found.tokens])
    assert found.attention.shape == (6, model.clock("encoder", 5000).n_valid)
    assert np.all(np.diff(times[:, 0]) >= 0)
    assert np.all(times[:, 1] >= times[:, 0])
    assert np.all(times <= clip.duration)
    assert np.array_equal(times[1:, 0], times[:-1, 1]), "a token ends where the next one starts"
    log_p = model.run(model.inputs(clip, tokens=[3, 7, 9])).logits[0].log_softmax(-1)
    assert found.tokens[0].log_prob == pytest.approx(float(log_p[0, 7]), abs=1e-4)
    assert found.words == ()
    assert json.loads(json.dumps(found.table())) == found.table()


def test_frames_of_padding_are_ignored() -> None:
    """Planted: a head that only looks at padding must not pull any time past the end."""
    model = tiny.build("whisper")
    clip = tiny.sound(1, n_samples=5000)
    found = word_timing(model, clip, tokens=[7, 9, 11])
    pattern = model.capture(model.inputs(clip, tokens=[3, 7, 9, 11]), "decoder.2.cross_pattern")[
        "decoder.2.cross_pattern"
    ]
    n_valid = model.clock("encoder", 5000).n_valid
    assert float(pattern[..., n_valid:].sum(-1).mean()) > 0.3, "the model does attend to padding"
    assert max(t.end for t in found.tokens) <= clip.duration


def test_heads() -> None:
    model = tiny.build("whisper")
    heads, source = alignment_heads(model)
    assert source == "upper half of the layers"
    assert heads == tuple((layer, head) for layer in (1, 2) for head in range(4))
    model.hf.generation_config.alignment_heads = [[0, 1], [2, 3]]
    assert alignment_heads(model) == (((0, 1), (2, 3)), "generation_config")
    assert alignment_heads(model, [(1, 1)]) == (((1, 1),), "given")
    clip = tiny.sound(1)
    assert word_timing(model, clip, tokens=[7, 9]).heads_from == "generation_config"
    # the picture of one head is that head's alone
    one = word_timing(model, clip, tokens=[7, 9], heads=[(2, 3)]).attention
    both = word_timing(model, clip, tokens=[7, 9]).attention
    other = word_timing(model, clip, tokens=[7, 9], heads=[(0, 1)]).attention
    assert np.allclose(both, (one + other) / 2, atol=1e-9)


def test_rows_are_the_queries_that_predict() -> None:
    model = tiny.build("whisper", torch.float64)
    clip = tiny.sound(1)
    found = word_timing(model, clip, tokens=[7, 9], heads=[(1, 2)], filter_width=1)
    pattern = model.capture(model.inputs(clip, tokens=[3, 7, 9]), "decoder.1.cross_pattern")["decoder.1.cross_pattern"]
    rows = pattern[0, 2, :, : found.attention.shape[1]].numpy()
    assert np.allclose(found.attention, (rows - rows.mean(0)) / rows.std(0), atol=1e-8)


def test_bad_input() -> None:
    model = tiny.build("whisper")
    clip = tiny.sound(1)
    with pytest.raises(SiteError, match=r"no decoder head \(5, 0\)"):
        word_timing(model, clip, tokens=[7], heads=[(5, 0)])
    with pytest.raises(SiteError, match="at least one"):
        word_timing(model, clip, tokens=[7], heads=[])
    with pytest.raises(TaskError, match="odd"):
        word_timing(model, clip, tokens=[7], filter_width=4)
    with pytest.raises(TaskError, match="room for 31"):
        word_timing(model, clip, tokens=[7] * 32)
    with pytest.raises(TaskError, match="hears 1 s at once"):
        word_timing(model, tiny.sound(1, 24000), tokens=[7])
    with pytest.raises(ModelError, match="tokenizer"):
        word_timing(model, clip, "hello")
    with pytest.raises(ModelError, match="load a Whisper"):
        word_timing(tiny.build("llama"), clip, tokens=[7])
    assert word_timing(model, clip, tokens=[]).tokens == ()


class _Pieces:
    """A tokenizer whose tokens are given pieces of bytes."""

    def __init__(self, *pieces: bytes):
        self.pieces = pieces

    def decode(self, ids: list[int]) -> str:
        return b"".join(self.pieces[i] for i in ids).decode(errors="replace")


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        (
            [b" so", b" my", b" fell", b"ow", b",", b" ask"],
            [("so", 0, 1), ("my", 1, 2), ("fellow,", 2, 4), ("ask", 5, 6)],
        ),
        ([b" he", b' "', b"did", b'"', b"."], [("he", 0, 1), ('"did".', 2, 3)]),
        ([b"...", b" yes", b" -", b" no", b" ."], [("...yes-", 1, 2), ("no.", 3, 4)]),
        ([b" na", b"\xc3", b"\xaf", b"ve", b" a"], [("naïve", 0, 4), ("a", 4, 5)]),
        ([b" don", b"'t", b" ", b"then"], [("don't", 0, 2), ("then", 3, 4)]),
        ([b"!"], []),
    ],
)
def test_words_from_tokens(pieces: list[bytes], words: list[tuple[str, int, int]]) -> None:
    model = tiny.build("whisper")
    model.adapter.tokenizer = _Pieces(*pieces)
    tokens = [TokenTime(i, "", float(i), float(i + 1), 0.0) for i in range(len(pieces))]
    found = [(word.text, int(word.start), int(word.end)) for word in _words(model, tokens)]
    assert found == words


@pytest.mark.weights
@pytest.mark.data
def test_real_words_against_known_times(shared_data: Path, whisper_tiny_en: Path) -> None:
    """Word starts of five LibriVox utterances against their forced alignment, and against transformers' own times."""
    model = otoscope.load(str(whisper_tiny_en))
    errors, control = [], []
    for file in sorted((shared_data / "recordings").glob("*.phone.json")):
        clip = otoscope.read(str(file).replace(".phone.json", ".flac"), 16000)
        truth = [w for w in json.loads(file.read_text())["w"] if not w["t"].startswith(("<", "["))]
        text = " ".join(re.sub(r"\(\d\)", "", w["t"]) for w in truth)
        found = word_timing(model, clip, text)
        assert [w.text for w in found.words] == text.split()
        starts = np.array([w.start for w in found.words])
        errors += list(np.abs(starts - [w["b"] for w in truth]))
        control += list(np.abs(np.linspace(0, clip.duration, len(truth) + 1)[:-1] - [w["b"] for w in truth]))
    assert np.median(errors) <= 0.15
    assert np.median(errors) < 0.75 * np.median(control), "better than words spread evenly over the recording"


@pytest.mark.weights
def test_planted_pause_is_found(whisper_tiny_en: Path) -> None:
    """Synthesised words have known times, and a pause of known length makes an even spread wrong."""
    pytest.importorskip("espeakng_loader")
    model = otoscope.load(str(whisper_tiny_en))
    first, second = say("tomorrow morning we leave"), say("for the coast of france")
    shift = first.duration + 2.0
    samples = np.concatenate([first.samples, np.zeros(32000, np.float32), second.samples])
    clip = Clip(samples, 16000)
    onsets = np.array([w.start for w in first.words] + [w.start + shift for w in second.words])
    found = word_timing(model, clip, "Tomorrow morning we leave for the coast of France.")
    starts = np.array([w.start for w in found.words])
    control = np.linspace(0, clip.duration, len(onsets) + 1)[:-1]
    assert len(starts) == len(onsets) == 9
    assert np.median(np.abs(starts - onsets)) <= 0.2
    assert np.median(np.abs(starts - onsets)) < 0.5 * np.median(np.abs(control - onsets))


@pytest.mark.weights
@pytest.mark.data
def test_agrees_with_transformers(shared_data: Path, whisper_tiny_en: Path) -> None:
    """transformers leaves out the first row, so only the first token's end may differ; its times are our ends."""
    model = otoscope.load(str(whisper_tiny_en))
    clip = otoscope.read(shared_data / "recordings/jfk.flac", 16000)
    mask = torch.zeros(1, 3000, dtype=torch.long)
    mask[:, : len(clip) // 160] = 1
    with torch.no_grad():
        theirs = model.hf.generate(
            input_features=model.inputs(clip).features, attention_mask=mask, return_token_timestamps=True,
            do_sample=False, num_beams=1, return_dict_in_generate=True,
        )  # fmt: skip
    # asking transformers for attention turns its own attention function on for good
    model.hf.set_attn_implementation("otoscope")
    end = model.hf.generation_config.eos_token_id
    kept = [(t, s) for t, s in zip(theirs["sequences"][0].tolist(), theirs["token_timestamps"][0].tolist()) if t < end]
    found = word_timing(model, clip, tokens=[t for t, _ in kept])
    assert np.allclose([t.end for t in found.tokens][1:], [s for _, s in kept][1:], atol=0.0401)


@pytest.mark.weights
@pytest.mark.data
def test_silence_in_front_shifts_every_word(shared_data: Path, whisper_tiny_en: Path) -> None:
    model = otoscope.load(str(whisper_tiny_en))
    clip = otoscope.read(shared_data / "recordings/jfk.flac", 16000).slice(3.0, 11.0)
    later = Clip(np.concatenate([np.zeros(16000, np.float32), clip.samples]), 16000)
    text = "ask not what your country can do for you, ask what you can do for your country."
    first, second = (np.array([w.start for w in word_timing(model, c, text).words]) for c in (clip, later))
    assert np.median(np.abs(second[1:] - first[1:] - 1.0)) <= 0.041
    assert word_timing(model, clip).tokens, "without a text, what the model writes is timed"
