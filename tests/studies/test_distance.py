"""The out-of-distribution study on a tiny random Whisper: maps against hooks, distances, nulls, the run and its report."""

from __future__ import annotations

import json

import numpy as np
import pytest

import otoscope
from otoscope.audio.clip import Clip, Span
from otoscope.engine.intervene import replace_with
from otoscope.errors import ModelError, TaskError
from otoscope.methods.contrast import contrast
from otoscope.studies import distance, distance_run
from otoscope.studies.distance import ask, measure, natural_states, transcript
from otoscope.studies.distance_grid import DistanceConfig, Kind, kinds
from otoscope.studies.distance_pairs import CORRUPTIONS, Material, Sentence
from otoscope.studies.distance_run import choose, distance_study, null_maps, recommendation
from tests.cli.folder import save_tiny_whisper
from tests.tiny import build

RATE = 16000
WORD = Span(0.4, 0.6, "word")
END = "encoder.1.resid_post"
#: the real function; a random model writes no words, so the tests put another in its place
AT_WORD = distance.at_word


def clip(seed: int, word_seed: int | None = None) -> Clip:
    """Noise of 0.9 s; with another noise over the word."""
    samples = 0.1 * np.random.default_rng(seed).standard_normal(round(0.9 * RATE)).astype(np.float32)
    if word_seed is not None:
        at = slice(round(WORD.start * RATE), round(WORD.end * RATE))
        samples[at] = 0.3 * np.random.default_rng(word_seed).standard_normal(at.stop - at.start)
    return Clip(samples, RATE, words=(WORD,), text="word", name=f"clip {seed}")


def sentence(seed: int, names=("noise", "silence", "word")) -> Sentence:
    sounds = {name: (clip(seed, 1000 * seed + i), (WORD.start, WORD.end)) for i, name in enumerate(names)}
    return Sentence(clip(seed), WORD, 0, "recorded", sounds)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    made = otoscope.load(str(save_tiny_whisper(tmp_path_factory.mktemp("model"))), offline=True)
    end = made.hf.config.eos_token_id  # a sound Whisper writes none of its other marks
    made.hf.generation_config.suppress_tokens += [t for t in made.tokenizer.all_special_ids if t != end]
    return made


@pytest.fixture(autouse=True)
def _any_word(monkeypatch):
    """Every first difference counts as the changed word."""
    monkeypatch.setattr(distance, "at_word", lambda *_: True)
    monkeypatch.setattr(distance, "_STATES", 400)


@pytest.fixture(scope="module")
def grid(model):
    return kinds(model.stacks["encoder"].n_layers)


@pytest.fixture(scope="module")
def natural(model, grid):
    return natural_states(model, [clip(500 + i) for i in range(6)], grid)


@pytest.fixture
def asked(model):
    """A sentence and questions about all of its corruptions."""
    for seed in range(1, 40):
        one = sentence(seed)
        heard = ask(model, one, transcript(model, one), list(one.sounds))
        if len(heard.asked) == 3:
            return one, heard
    pytest.fail("the tiny model hears no difference anywhere")


def rows_of(model, one, heard, grid, natural, chosen=("noise", "silence", "word")):
    return {(r["corruption"], r["kind"]): r for r in measure(model, one, heard, chosen, grid, natural)}


def test_a_question_is_where_both_transcripts_part(model, asked):
    one, heard = asked
    for name, question in heard.asked.items():
        found = contrast(model, one.clip, one.sounds[name][0])
        assert (question.position, question.answer, question.foil) == (found.position, found.answer, found.foil)
        assert heard.tokens[: question.position + 1] == found.tokens


def test_a_change_that_is_heard_elsewhere_is_not_asked_about(model, asked, monkeypatch):
    one, _ = asked
    monkeypatch.setattr(distance, "at_word", lambda *_: False)
    assert not ask(model, one, transcript(model, one), list(one.sounds)).asked


def test_the_place_of_a_word_in_a_transcript(model):
    spelled = model.tokenizer("the word", add_special_tokens=False).input_ids
    one = sentence(1)
    after = Sentence(one.clip, Span(0.4, 0.6, "Word."), 1, "recorded")
    assert AT_WORD(model, spelled, after)
    assert AT_WORD(model, spelled[:-2], after), "the beginning of the word is enough"
    assert not AT_WORD(model, spelled, Sentence(one.clip, Span(0.4, 0.6, "other"), 1, "recorded"))
    assert not AT_WORD(model, spelled, Sentence(one.clip, Span(0.4, 0.6, "word"), 4, "recorded"))
    assert not AT_WORD(model, [], after)


@pytest.mark.parametrize(
    ("mode", "value"), [("denoise", "donor"), ("noise", "donor"), ("noise", "zero"), ("denoise", "half")]
)
@pytest.mark.parametrize("site", ["encoder.0.resid_pre", "encoder.0.attn_out", END])
def test_a_map_equals_hooked_runs(model, asked, mode, value, site):
    one, heard = asked
    question, span = heard.asked["silence"], one.sounds["silence"][1]
    row = rows_of(model, one, heard, [Kind("place", site, 0.2, mode, value)], None)[
        "silence", f"place-0.2s-{mode}-{value}"
    ]
    tokens = heard.tokens[: question.position + 1]
    runs = {
        "clean": model.inputs(one.clip, tokens=tokens),
        "corrupt": model.inputs(one.sounds["silence"][0], tokens=tokens),
    }
    base, donor = ("corrupt", "clean") if mode == "denoise" else ("clean", "corrupt")
    states = {who: model.capture(run, site)[site] for who, run in runs.items()}
    new = {"donor": states[donor], "zero": 0 * states[base], "half": (states[base] + states[donor]) / 2}[value]

    def answer(run, changes=()):
        logits = model.run(runs[run], changes).logits[0, question.position]
        return float(logits[question.answer] - logits[question.foil])

    windows = model.clock("encoder", len(one.clip)).windows(0.2)
    values = np.array([answer(base, [replace_with(site, new, positions=tuple(w))]) for w in windows])
    effects = (values - answer(base)) / (answer(donor) - answer(base))
    assert row["margin"] == pytest.approx(abs(answer(donor) - answer(base)), abs=1e-3)
    assert row["effect"] == pytest.approx(effects.max(), abs=2e-3 / row["margin"])
    if not row["silent"]:
        clock, best = model.clock("encoder", len(one.clip)), windows[int(effects.argmax())]
        assert row["named_start"] == pytest.approx(clock.edges(best[0])[0])
        assert row["named_end"] == pytest.approx(clock.edges(best[-1])[1])
        middle = (row["named_start"] + row["named_end"]) / 2
        assert row["wrong"] == (not (row["named_start"] < span[1] and row["named_end"] > span[0])
                                and not span[0] - 0.1 <= middle <= span[1] + 0.1)  # fmt: skip


def test_at_the_end_of_the_encoder_what_is_put_in_is_what_is_left_behind(model, asked, grid, natural):
    one, heard = asked
    rows = rows_of(model, one, heard, [k for k in grid if k.site == END], natural)
    assert len(rows) == 3 * sum(k.site == END for k in grid)
    for row in rows.values():
        assert row["mean_put_in"] == pytest.approx(row["mean_distance"], rel=1e-4), row["kind"]


def test_distances_are_those_of_a_hooked_run(model, asked, natural):
    one, heard = asked
    kind = Kind("input", "encoder.0.resid_pre", 0.2, "noise", "zero")
    row = rows_of(model, one, heard, [kind], natural)["noise", kind.name]
    tokens = heard.tokens[: max(q.position for q in heard.asked.values()) + 1]
    clean = model.inputs(one.clip, tokens=tokens)
    left, put = [], []
    for w in model.clock("encoder", len(one.clip)).windows(0.2):
        zeros = 0 * model.capture(clean, kind.site)[kind.site]
        states = model.run(clean, [replace_with(kind.site, zeros, positions=tuple(w))], END).cache[END][0, list(w)]
        for site, x, out in ((END, states, left), (kind.site, zeros[0, list(w)], put)):
            found = natural.score(site, x)
            limits = [natural.threshold(site, m, len(w)) for m in ("mahalanobis", "nearest")]
            out.append(max(found.mahalanobis.mean() / limits[0], found.nearest.mean() / limits[1]))
    assert row["mean_distance"] == pytest.approx(np.mean(left), rel=1e-3)
    assert row["mean_put_in"] == pytest.approx(np.mean(put), rel=1e-5)


def test_an_ablation_is_the_same_patch_for_every_corruption_and_noise_is_far(model, asked, grid, natural):
    one, heard = asked
    rows = rows_of(model, one, heard, grid, natural)
    for kind in grid:
        if kind.value in ("mean", "zero", "gaussian"):
            assert len({rows[c, kind.name]["mean_distance"] for c in heard.asked}) == 1
    noisy = rows["noise", "layer1-0.2s-noise-gaussian"]
    assert noisy["mean_distance"] > 1 > rows["noise", "layer1-0.2s-denoise-donor"]["mean_distance"] / 1.5
    assert noisy["flagged_share"] == 1


def test_the_same_sound_twice_names_nothing(model, asked, grid):
    one, heard = asked
    rows = null_maps(model, one, heard, "noise", grid, 0)
    assert {r["corruption"] for r in rows} == {"identical", "inaudible", "untrained"}
    same = [r for r in rows if r["corruption"] == "identical"]
    assert len(same) == 4
    assert all(r["silent"] and r["margin"] == 0 and not r["false"] for r in same)


def test_corruptions_with_the_fewest_maps_come_first(model, asked):
    one, heard = asked
    assert choose(model, one, 2, {})[1] == ["noise", "silence"]
    assert choose(model, one, 2, {"noise": 3, "silence": 1})[1] == ["word", "silence"]
    assert len(choose(model, one, 9, {})[1]) == len(heard.asked)


def test_the_grid_holds_every_axis():
    for n_layers in (2, 4, 12, 32):
        grid = kinds(n_layers)
        assert len({k.name for k in grid}) == len(grid)
        assert {k.width for k in grid} == {0.1, 0.2, 0.4}
        assert {k.mode for k in grid} == {"denoise", "noise"}
        assert {k.value for k in grid} == {"donor", "half", "mean", "zero", "gaussian"}
        assert {k.site.rsplit(".")[-1] for k in grid} == {"resid_pre", "resid_post", "attn_out", "mlp_out"}
        assert set(kinds(n_layers, quick=True)) < set(grid)
    assert {k.site for k in kinds(32)} >= {"encoder.10.resid_post", "encoder.21.resid_post", "encoder.31.resid_post"}


def test_models_that_cannot_be_asked_are_refused():
    with pytest.raises(ModelError, match="needs a Whisper with its tokenizer"):
        transcript(build("hubert-ctc-pre"), sentence(1))


# -- the whole study -----------------------------------------------------------------------------------------------------


@pytest.fixture
def few(monkeypatch):
    """Sentences of the tiny model's kind instead of recordings."""

    def made(*_, **__):
        return Material(
            [sentence(i) for i in range(1, 9)], {"recorded": [clip(500 + i) for i in range(6)]}, ("so it is",)
        )

    monkeypatch.setattr(distance_run, "material", made)


CONFIG = DistanceConfig(n=6, per_sentence=2, corruptions=("noise", "silence", "word"), nulls=2)


def test_the_study_writes_its_run_and_goes_on_where_it_stopped(model, few, tmp_path, monkeypatch):
    out = tmp_path / "run"
    whole = distance.measure
    calls = []

    def stops(*arguments, **more):
        calls.append(1)
        if len(calls) == 4:  # its maps and two kinds of null make three calls for the first sentence
            raise KeyboardInterrupt
        return whole(*arguments, **more)

    with monkeypatch.context() as patched:
        patched.setattr(distance_run, "measure", stops)
        with pytest.raises(KeyboardInterrupt):
            distance_study(model, CONFIG, tmp_path, out=out)
    kept = len(list((out / "steps").iterdir()))
    first = distance_study(model, CONFIG, tmp_path, out=out)
    assert len(list((out / "steps").iterdir())) > kept
    monkeypatch.setattr(distance_run, "measure", lambda *_, **__: pytest.fail("computed again"))
    second = distance_study(model, CONFIG, tmp_path, out=out)
    assert second.results == first.results
    assert json.loads((out / "results.json").read_text()) == json.loads(json.dumps(first.results))
    assert first.results["command"] == "bench distance"
    assert {"maps", "cells", "kinds", "corruptions", "nulls"} <= {p.stem for p in (out / "tables").iterdir()}
    page = (out / "report.html").read_text()
    assert "The grid" in page
    assert "By kind of patch" in page
    assert "data:audio/flac;base64," in page
    assert "note: so it is" in first.lines


def test_two_runs_give_the_same_numbers_and_each_sentence_counts_once(model, few, tmp_path):
    first, second = (distance_study(model, CONFIG, tmp_path) for _ in range(2))
    assert json.dumps(first.results) == json.dumps(second.results)
    rows = first.found.rows
    assert len({(r["sentence"], r["corruption"], r["kind"]) for r in rows}) == len(rows)
    assert len(rows) == len(first.found.kinds) * sum(
        len({r["corruption"] for r in rows if r["sentence"] == s.name}) for s in first.found.used
    )
    assert len({r["sentence"] for r in first.found.nulls}) <= CONFIG.nulls


def test_where_no_change_is_heard_the_study_says_so(model, few, tmp_path, monkeypatch):
    monkeypatch.setattr(distance, "at_word", lambda *_: False)
    with pytest.raises(TaskError, match="hears none of the changes of 8 sentences where they were made"):
        distance_study(model, CONFIG, tmp_path)


def test_the_recommendation_is_read_from_results():
    claim = {"id": "recommendation", "statement": "Patch so."}
    within = {"id": "within", "verdict": "refuted", "value": 0.4, "interval": [0.3, 0.45]}
    results = {"command": "bench distance", "claims": [within, claim]}
    said = recommendation(results)
    assert said.startswith("Patch so. ")
    assert "does not predict false places (concordance 0.40 [0.30, 0.45])" in said
    nothing = {**within, "verdict": "inconclusive", "value": None, "interval": [None, None]}
    assert "is open (nothing to compare)" in recommendation({**results, "claims": [nothing, claim]})
    with pytest.raises(TaskError, match="could not recommend anything"):
        recommendation({**results, "claims": [within]})
    with pytest.raises(TaskError, match="results of 'patch'"):
        recommendation({"command": "patch", "claims": []})


def test_the_default_grid_knows_its_corruptions():
    assert DistanceConfig().corruptions == tuple(CORRUPTIONS)
    assert set(DistanceConfig.small().corruptions) < set(CORRUPTIONS)
    assert DistanceConfig.small(n=5, seed=3).n == 5
