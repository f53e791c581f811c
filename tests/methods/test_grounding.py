"""The grounding coefficient: planted truths in closed form, nulls, exactness against hooks, whole labels, resuming."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from otoscope.engine.intervene import replace_with
from otoscope.errors import TaskError
from otoscope.methods import grounding_sweep
from otoscope.methods.grounding import Corners, Grounding, grounding
from otoscope.methods.grounding_curve import ratio_curve
from otoscope.methods.grounding_sweep import after_context, equal_positions, stranger_of
from otoscope.methods.label_sweep import check_labels, tails, with_tail
from otoscope.stats import bootstrap, ratio_of_sums
from otoscope.tasks.conflict import ConflictTask
from tests import tiny
from tests.methods import planted

LISTEN = [(1.0, 0.5), (0.5, 1.0), (1.0, 0.0), (0.0, 1.0), (0.8, 0.8)]


def expected(listen: float, guess: float, n: int = 12) -> tuple[np.ndarray, float]:
    """Effect of the sound per item and of the text, in units of the constant of the final norm."""
    return 2 * listen * np.array([planted.share(i) for i in range(n)]), 2 * guess


@pytest.mark.parametrize(("listen", "guess"), LISTEN)
class TestPlanted:
    """Weights written by hand: everything has a closed form."""

    def test_gc_is_the_planted_mixture_up_to_the_layer_that_moves_it(self, listen: float, guess: float) -> None:
        model = planted.planted(listen, guess, moves=2)
        found = grounding(model, planted.items(model))
        audio, text = expected(listen, guess)
        truth = audio.mean() / (audio.mean() + text)
        for direction in found.directions:
            curve = found.curve(direction)
            assert curve.gc[:3] == pytest.approx(truth, abs=1e-6)
            assert np.isnan(curve.gc[3]), "after the move there is nothing to measure, and certainly not one half"
            assert (curve.low[:3] <= truth + 1e-6).all()
            assert (curve.high[:3] >= truth - 1e-6).all()
        assert found.summary().value == pytest.approx(truth, abs=1e-6)
        assert found.listens().startswith(f"listens {100 * truth:.0f}% (95% interval ")

    def test_raw_effects_per_item_are_the_planted_ones(self, listen: float, guess: float) -> None:
        model = planted.planted(listen, guess, moves=1)
        found = grounding(model, planted.items(model))
        audio, text = expected(listen, guess)
        # the constant of norm and attention, by a run of its own: the difference of the agreeing corners
        unit = (found.corners[:, 2] - found.corners[:, 1]) / (audio + text)
        assert unit == pytest.approx(unit[0], rel=1e-6)
        for direction in found.directions:
            assert found.effect("audio", direction)[:, :2] == pytest.approx((audio * unit)[:, None] * [1, 1], abs=1e-5)
            assert found.effect("text", direction)[:, :2] == pytest.approx((text * unit)[:, None] * [1, 1], abs=1e-5)
            assert found.effect("audio", direction)[:, 2:] == pytest.approx(0, abs=1e-5)


class TestVariants:
    """Equal tokens and per token."""

    def test_equal_tokens_exchange_the_drawn_positions_only(self) -> None:
        model = planted.planted(1.0, 0.5, moves=1)
        items = planted.items(model)
        found = grounding(model, items, variants=("all tokens", "equal tokens"), seed=3)
        unit = found.effect("text")[0, 0]
        for i, item in enumerate(items):
            drawn = equal_positions(item.ab, 3 * 1009 + i)
            assert len(drawn["audio"]) == len(drawn["text"]) == planted.N_CONTEXT
            assert set(drawn["audio"]) <= set(item.ab.groups["audio"])
            first = item.ab.groups["audio"][0]
            carrying = sum(p - first < round(planted.share(i) * planted.N_AUDIO) for p in drawn["audio"])
            # one position of sound carries 2 * listen / n_audio, the whole text 2 * guess = 1 unit
            effect = found.effect("audio", "noise", "equal tokens")[i, 0]
            assert effect == pytest.approx(unit * 2 * carrying / planted.N_AUDIO, abs=1e-5)
        assert found.effect("text", "noise", "equal tokens") == pytest.approx(found.effect("text"), abs=1e-9)

    def test_per_token_divides_by_the_number_of_positions(self) -> None:
        model = planted.planted(1.0, 0.5)
        found = grounding(model, planted.items(model))
        assert found.effect("audio", "noise", "per token") == pytest.approx(found.effect("audio") / planted.N_AUDIO)
        assert found.effect("text", "noise", "per token") == pytest.approx(found.effect("text") / planted.N_CONTEXT)
        assert found.variants == ["all tokens", "per token"]


class TestNulls:
    """What must give no number."""

    def test_the_same_sound_on_both_sides_gives_nan_and_not_a_half(self) -> None:
        model = planted.planted(1.0, 0.5)
        found = grounding(model, planted.items(model, 6, same_sound=True))
        assert np.isnan(found.curve().gc).all()
        assert np.isnan(found.effect("audio")).all()
        assert not np.isnan(found.effect("text")).any()
        assert found.listens() == "neither the sound nor the text moves the answer beyond noise"

    def test_controls_keep_their_promises(self) -> None:
        model = planted.planted(1.0, 0.5, moves=1)
        controls = ("random donor", "random direction", "same input")
        found = grounding(model, planted.items(model), controls=controls)
        for direction in found.directions:
            assert np.isnan(found.curve(direction, "same input").gc).all()
            assert found.effect("audio", direction, "same input") == pytest.approx(0, abs=1e-9)
            # a foreign sound takes A away but does not bring B: half of the exchange
            half = found.effect("audio", "noise")[:, 0] / 2
            assert found.effect("audio", "noise", "random donor")[:, 0].mean() == pytest.approx(half.mean(), rel=0.1)
            assert found.effect("audio", direction, "random direction") != pytest.approx(
                found.effect("audio", direction)
            )
        rows = found.table()
        assert {row["variant"] for row in rows} == {"all tokens", "per token", *controls}
        assert len(rows) == 2 * 5 * planted.LAYERS

    def test_an_untrained_model_has_no_grounding(self) -> None:
        """Effects of random weights have random signs: the denominator's interval holds 0."""
        model = tiny.build("llama")
        rng = np.random.default_rng(2)
        found = grounding(model, [random_item(model, rng, i) for i in range(24)], directions=("noise",))
        assert np.isnan(found.curve().gc).all()
        assert np.abs(found.effect("audio")).mean() > 0.1, "single items do have effects"

    def test_one_item_has_a_value_but_no_interval(self) -> None:
        model = planted.planted(1.0, 0.5)
        found = grounding(model, planted.items(model, 1))
        assert found.summary().value == pytest.approx(0.6 / 1.1, abs=1e-6)
        assert np.isnan(found.summary().low)
        assert found.listens() == "listens 55%"


def random_item(model, rng: np.random.Generator, index: int, labels=((5,), (7,)), others=()) -> Corners:
    """Random tokens in the four corners of a text model."""
    audio, context = rng.integers(20, 50, (2, 4)).tolist(), rng.integers(20, 50, (2, 3)).tolist()
    made = {s + c: planted.asked(model, audio[i], context[j]) for i, s in enumerate("ab") for j, c in enumerate("ab")}
    return Corners(**made, audio_label=labels[0], text_label=labels[1], unit=f"item {index}", others=others)


def log_prob(model, asked, label: tuple[int, ...], interventions=()) -> float:
    """Whole-label log-probability by one hooked forward of the library's model."""
    start = asked.groups["answer"][0]
    inputs = asked.inputs.with_tokens([*asked.inputs.tokens[0].tolist(), *label])
    log_p = model.run(inputs, interventions).logits[0].log_softmax(-1)
    return float(sum(log_p[start + i, token] for i, token in enumerate(label)))


class TestExactness:
    """The sweeps give what one hooked forward per patch and label gives."""

    @pytest.fixture(params=["llama", "qwen2_audio"])
    def setting(self, request):
        """Labels of one and two tokens, two of which begin alike."""
        model = tiny.build(request.param, torch.float64)
        labels = [(5, 9), (5, 11), (13,)]
        if request.param == "llama":
            rng = np.random.default_rng(1)
            return model, [random_item(model, rng, i, labels[:2], (labels[2],)) for i in range(2)]
        items = []
        for i in range(2):
            sounds = {"a": tiny.sound(2 * i), "b": tiny.sound(2 * i + 1)}
            made = {s + c: model.ask(sounds[s], "what?", f"say {c}.") for s in "ab" for c in "ab"}
            items.append(Corners(**made, audio_label=labels[0], text_label=labels[1], unit=str(i), others=(labels[2],)))
        return model, items

    def test_per_item_values_are_those_of_hooks(self, setting) -> None:
        model, items = setting
        found = grounding(model, items)
        for i, item in enumerate(items):
            a, b = item.audio_label, item.text_label

            def m(asked, interventions=(), a=a, b=b) -> float:
                return log_prob(model, asked, a, interventions) - log_prob(model, asked, b, interventions)

            corners = [m(item.ab), m(item.bb), m(item.aa)]
            assert found.corners[i] == pytest.approx(corners, abs=1e-9)
            at = {"audio": item.ab.groups["audio"], "text": item.ab.groups["context"]}
            assert len(at["audio"]) > 1
            for layer in range(found.n_layers):
                site = f"decoder.{layer}.resid_pre"
                states = {c: model.capture(getattr(item, c).inputs, site)[site] for c in ("ab", "bb", "aa")}
                for arm, base, source, sign, zero in (
                    ("noise/audio", "ab", "bb", -1, 0), ("noise/text", "ab", "aa", 1, 0),
                    ("denoise/audio", "bb", "ab", 1, 1), ("denoise/text", "aa", "ab", -1, 2),
                ):  # fmt: skip
                    direction, side = arm.split("/")
                    hook = replace_with(site, states[source][:, list(at[side])], positions=at[side])
                    effect = sign * (m(getattr(item, base), [hook]) - corners[zero])
                    assert found.effect(side, direction)[i, layer] == pytest.approx(effect, abs=1e-8), (arm, layer)

    def test_every_arm_is_that_of_the_naive_path(self, setting) -> None:
        model, items = setting
        options = {
            "variants": ("all tokens", "equal tokens"),
            "controls": ("random donor", "random direction", "same input"),
        }
        fast, slow = grounding(model, items, **options), grounding(model, items, method="naive", **options)
        assert set(fast.margin) == set(slow.margin)
        assert len(fast.margin) == 2 * (2 * 5) + 2
        for name in fast.margin:
            assert fast.margin[name] == pytest.approx(slow.margin[name], abs=1e-8), name
            assert (fast.answer[name] == slow.answer[name]).all()
            assert (fast.answer[name] >= 0).all()

    def test_answers_are_the_best_of_all_options(self, setting) -> None:
        model, items = setting
        found = grounding(model, items)
        for i, item in enumerate(items):
            for c, name in enumerate(("ab", "bb", "aa")):
                best = int(np.argmax([log_prob(model, getattr(item, name), label) for label in item.labels]))
                assert found.corner_answers[i, c] == min(best, 2)


class TestLabels:
    """Whole labels with as few sweeps as possible."""

    def test_labels_share_a_tail_where_one_goes_on_from_the_other(self) -> None:
        assert [t.tokens for t in tails([(1,), (2,), (3,)])] == [()]
        assert [(t.tokens, t.labels) for t in tails([(1,), (2, 3), (4, 5)])] == [((2,), (0, 1)), ((4,), (2,))]
        assert [(t.tokens, t.labels) for t in tails([(2, 3, 4), (2, 5), (9,)])] == [((2, 3), (0, 1, 2))]

    @pytest.mark.parametrize(
        ("labels", "words"),
        [
            ([(1,)], "at least two labels"),
            ([(1,), ()], "no tokens"),
            ([(1, 2), (1, 2)], "the same tokens"),
            ([(1,), (1, 2)], "begin alike until one of them ends"),
        ],
    )
    def test_labels_that_cannot_be_told_apart_are_refused(self, labels, words) -> None:
        with pytest.raises(TaskError, match=words):
            check_labels(labels)

    def test_a_tail_is_put_after_the_prompt(self) -> None:
        model = planted.planted()
        asked = planted.item(model, 0).ab
        start = asked.groups["answer"][0]
        made = with_tail(asked.inputs, start, (3, 4)).tokens[0].tolist()
        assert made == [*asked.inputs.tokens[0].tolist(), 3, 4]
        assert after_context(asked, 2) == (*after_context(asked), start + 1, start + 2)


class TestItems:
    """Corners: what fits together."""

    def test_runs_of_other_length_are_refused(self) -> None:
        model = planted.planted()
        item = planted.item(model, 0)
        longer = planted.asked(model, [1] * (planted.N_AUDIO + 1), [6] * planted.N_CONTEXT)
        with pytest.raises(TaskError, match="runs ab and aa"):
            Corners(item.ab, item.bb, longer, item.ba, (10,), (11,), "x")

    def test_a_prompt_without_sound_is_refused_when_measured(self) -> None:
        model = planted.planted()
        made = {s + c: planted.asked(model, [], [6, 6]) for s in "ab" for c in "ab"}
        item = Corners(**made, audio_label=(10,), text_label=(11,), unit="x")
        with pytest.raises(TaskError, match="no audio positions"):
            grounding(model, [item])

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"directions": ("up",)}, "'up' is not a direction"),
            ({"variants": ()}, "is not a variant"),
            ({"controls": ("luck",)}, "'luck' is not a control"),
        ],
    )
    def test_what_there_is_not_is_refused(self, options, words) -> None:
        model = planted.planted()
        with pytest.raises(TaskError, match=words):
            grounding(model, planted.items(model, 1), **options)
        with pytest.raises(TaskError, match="no item"):
            grounding(model, [])

    def test_a_stranger_has_other_labels_where_there_is_one(self) -> None:
        model = planted.planted()
        items = planted.items(model)
        for i, item in enumerate(items):
            stranger = stranger_of(items, i)
            assert stranger is not None
            assert stranger is not item
            assert not {stranger.audio_label, stranger.text_label} & {item.audio_label, item.text_label}
        assert stranger_of(items[:1], 0) is None

    def test_corners_of_a_conflict_task(self) -> None:
        model = tiny.build("qwen2_audio")
        clips = [
            tiny.sound(i).replace(labels={"label": word}, speaker=f"s{i % 3}")
            for i, word in enumerate(["pig", "dog"] * 3)
        ]
        task = ConflictTask.from_clips(clips, "What is it?", seconds=0.25)
        items = [Corners.of(model, item) for item in task]
        first = task.items[0]
        assert items[0].audio_label == model.label_tokens(first.sound_label)
        assert items[0].unit == f"speaker {first.speaker}"
        assert not items[0].alike("audio")
        assert not items[0].alike("text")
        found = grounding(model, items[:2], directions=("noise",))
        assert found.margin["noise/audio/all tokens"].shape == (2, 4)
        assert [item.unit for item in items] == [f"speaker {item.speaker}" for item in task]


class TestResuming:
    """Finished items are not computed again, and nothing else is taken for them."""

    def test_a_second_call_computes_nothing(self, monkeypatch) -> None:
        model = planted.planted(1.0, 0.5)
        items, store, seen = planted.items(model, 3), {}, []

        def step(key, compute):
            if key not in store:
                store[key] = compute()
            return store[key]

        first = grounding(model, items, step=step, progress=lambda done, total: seen.append((done, total)))
        assert seen == [(1, 3), (2, 3), (3, 3)]
        monkeypatch.setattr(grounding_sweep, "sweep_labels", lambda *_, **__: pytest.fail("computed again"))
        again = grounding(model, items, step=step)
        assert again.effect("audio") == pytest.approx(first.effect("audio"))
        assert len(store) == 3

    def test_another_model_of_the_same_name_or_another_seed_is_another_study(self) -> None:
        store: dict = {}

        def step(key, compute):
            return store.setdefault(key, compute())

        one, other = planted.planted(1.0, 0.5), planted.planted(0.5, 1.0)
        for model, options in ((one, {}), (other, {}), (one, {"seed": 1}), (one, {"directions": ("noise",)})):
            grounding(model, planted.items(model, 2), step=step, **options)
        assert len(store) == 8


class TestIntervals:
    """The ratio's interval is that of the general bootstrap."""

    def test_the_interval_is_that_of_resampled_ratios(self) -> None:
        rng = np.random.default_rng(0)
        audio, text = rng.normal(2, 1, (40, 3)), rng.normal(1, 1, (40, 3))
        units = [f"speaker {i // 2}" for i in range(40)]
        curve = ratio_curve(audio, text, units, n_resamples=4000)
        for k in range(3):
            rows = np.stack([audio[:, k], audio[:, k] + text[:, k]], 1)
            general = bootstrap(rows, ratio_of_sums, units, 4000, seed=1)
            assert curve.gc[k] == pytest.approx(general.value)
            assert (curve.low[k], curve.high[k]) == pytest.approx((general.low, general.high), abs=0.01)
        assert (curve.n_items, curve.n_units) == (40, 20)

    def test_a_denominator_within_noise_gives_nan(self) -> None:
        rng = np.random.default_rng(0)
        centred = rng.normal(0, 1, (30, 1))
        units = [str(i) for i in range(30)]
        assert np.isnan(ratio_curve(centred, centred, units).gc).all(), "its interval holds 0"
        assert np.isnan(ratio_curve(centred - 5, centred - 5, units).gc).all(), "away from both labels is no share"
        small = np.full((30, 1), 1e-4)
        assert np.isnan(ratio_curve(small, small, units).gc).all(), "it is certain, but smaller than the logits' noise"
        assert ratio_curve(100 * small, 100 * small, units).gc == pytest.approx(0.5)

    def test_missing_items_are_left_out(self) -> None:
        audio, text = np.ones((4, 1)), np.ones((4, 1))
        audio[0], text[0] = np.nan, 50.0
        curve = ratio_curve(audio, text, ["a", "b", "c", "d"])
        assert curve.gc == pytest.approx(0.5)
        assert (curve.n_items, curve.n_units) == (3, 3)
        nothing = ratio_curve(audio * np.nan, text, ["a", "b", "c", "d"])
        assert np.isnan(nothing.gc).all()
        assert nothing.n_items == 0


def test_what_was_not_asked_is_named() -> None:
    model = planted.planted()
    found = grounding(model, planted.items(model, 2), directions=("noise",))
    assert isinstance(found, Grounding)
    with pytest.raises(TaskError, match="'denoise/audio/all tokens' was not asked"):
        found.effect("audio", "denoise")
