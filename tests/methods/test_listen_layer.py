"""Flips, the listen layer and the heads: planted truths, interpolation by hand, claims that must not be made."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from otoscope.engine.intervene import replace_with
from otoscope.errors import TaskError
from otoscope.methods.grounding import Corners, Grounding, grounding
from otoscope.methods.listen_layer import band, flip_rates, flips, heads, held_out_band, listen_layer
from otoscope.stats import clopper_pearson
from tests import tiny
from tests.methods import planted
from tests.methods.test_grounding import log_prob, random_item

CONTROLS = ("random donor", "random direction", "same input")


@pytest.fixture(scope="module")
def listener() -> Grounding:
    model = planted.planted(1.0, 0.5, moves=1)
    return grounding(model, planted.items(model), controls=CONTROLS)


@pytest.fixture(scope="module")
def guesser() -> Grounding:
    model = planted.planted(0.5, 1.0, moves=1)
    return grounding(model, planted.items(model))


class TestFlips:
    """Exchanging the sound flips the answer of a model that listens, as long as the sound is still where it was."""

    def test_a_listener_flips_up_to_the_move_and_not_after(self, listener: Grounding) -> None:
        assert [rate.value for rate in flip_rates(listener)] == [1, 1, 0, 0]
        assert flip_rates(listener)[0][:3] == clopper_pearson(12, 12)[:3]
        for control in CONTROLS:
            assert not flips(listener, control).any()

    def test_a_guesser_never_flips(self, guesser: Grounding) -> None:
        assert not flips(guesser).any()

    def test_items_flip_where_their_sound_outweighs_the_text(self) -> None:
        """Shares of 0.6, 0.8 and 1 of the positions against a text of 0.7."""
        model = planted.planted(1.0, 0.7, moves=1)
        found = flips(grounding(model, planted.items(model), directions=("denoise",)))
        assert found[:, 0].tolist() == [planted.share(i) > 0.7 for i in range(12)]

    def test_equal_sounds_are_no_flips_and_do_not_count(self) -> None:
        model = planted.planted(1.0, 0.5, moves=1)
        items = [planted.item(model, 0), planted.item(model, 1, same_sound=True), planted.item(model, 2)]
        assert flip_rates(grounding(model, items))[0].n == 2

    def test_flips_need_the_denoise_direction(self) -> None:
        model = planted.planted()
        with pytest.raises(TaskError, match="call grounding\\(\\) with both directions"):
            flips(grounding(model, planted.items(model, 2), directions=("noise",)))

    def test_the_band(self) -> None:
        assert band([1.0, 0.95, 0.9, 0.5, 0.1, 0.0]) == (2, 4)
        assert band([0.5, 0.4]) == (None, None)

    def test_the_band_of_one_half_holds_on_the_other(self, listener: Grounding) -> None:
        found = held_out_band(listener)
        assert found.band == (1, 2)
        assert found.last["all tokens"][:4] == clopper_pearson(6, 6)[:4]
        assert found.first["all tokens"][:4] == clopper_pearson(0, 6)[:4]
        assert found.last["random donor"].value == found.last["random direction"].value == 0

    def test_the_halves_share_no_unit(self, listener: Grounding) -> None:
        """Flips are planted on half of the speakers: only their own half can report them."""
        speakers = tuple(f"speaker {i % 2}" for i in range(12))
        answers = listener.answer["denoise/audio/all tokens"].copy()
        first = sorted(set(speakers))[int(np.random.default_rng(0).permutation(2)[0])]
        mine = np.array([s == first for s in speakers])
        answers[~mine] = 1
        made = replace(listener, units=speakers, answer={"denoise/audio/all tokens": answers})
        found = held_out_band(made)
        assert found.band == (1, 2)
        assert (found.last["all tokens"].value, found.last["all tokens"].n) == (0.0, 6)

    def test_without_a_band_there_is_no_share(self, guesser: Grounding) -> None:
        found = held_out_band(guesser)
        assert found.band == (None, 0)
        assert np.isnan(found.last["all tokens"].value)
        assert found.first["all tokens"].value == 0


class TestListenLayer:
    """The crossing of E_audio and E_after."""

    @pytest.mark.parametrize("moves", [0, 1, 2])
    def test_it_lies_where_the_sound_is_moved(self, moves: int) -> None:
        model = planted.planted(1.0, 0.5, moves=moves)
        found = listen_layer(grounding(model, planted.items(model)))
        assert found.layer is not None
        # all of the effect passes between the inputs of layers `moves` and `moves + 1`
        assert found.layer[:4] == pytest.approx((moves + 0.5, moves + 0.5, moves + 0.5, 12), abs=1e-6)
        assert found.reason == ""
        assert found.band == (moves, moves + 1)
        assert found.audio[: moves + 1, 0] == pytest.approx(found.audio[0, 0])
        assert found.after[: moves + 1] == pytest.approx(0, abs=1e-5)
        assert found.after[moves + 1 :, 0] == pytest.approx(found.audio[0, 0], rel=1e-5)
        assert [row["flips"] for row in found.table()] == [1.0] * (moves + 1) + [0.0] * (3 - moves)

    def test_the_crossing_is_interpolated_and_its_interval_is_over_units(self, listener: Grounding) -> None:
        rng = np.random.default_rng(0)
        audio = np.linspace(4, 1, 4) + 0.3 * rng.standard_normal((12, 1))
        after = np.linspace(0, 3, 4) * np.ones((12, 1))
        made = with_effects(listener, audio, after)
        found = listen_layer(made)
        assert found.layer is not None
        # audio 4 - k + e and after k cross at (4 + mean e) / 2
        crossing = (4 + (audio[:, 0] - 4).mean()) / 2
        assert found.layer.value == pytest.approx(crossing)
        drawn = [(4 + rng.choice(audio[:, 0] - 4, 12).mean()) / 2 for _ in range(4000)]
        assert found.layer[1:3] == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.02)

    def test_none_is_claimed_for_a_guesser(self, guesser: Grounding) -> None:
        found = listen_layer(guesser)
        assert found.layer is None
        assert "not above chance (25%)" in found.reason

    def test_none_is_claimed_where_the_sound_does_nothing(self) -> None:
        model = planted.planted(0.0, 1.0)
        found = listen_layer(grounding(model, planted.items(model)))
        assert found.layer is None
        assert "no further than noise" in found.reason

    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_none_is_claimed_for_an_untrained_model(self, seed: int) -> None:
        model = tiny.build("llama", seed=seed)
        rng = np.random.default_rng(seed)
        found = listen_layer(grounding(model, [random_item(model, rng, i) for i in range(16)]))
        assert found.layer is None
        assert found.reason

    def test_none_is_claimed_where_all_sounds_are_the_same(self) -> None:
        model = planted.planted(1.0, 0.5)
        found = listen_layer(grounding(model, planted.items(model, 4, same_sound=True)))
        assert found.layer is None
        assert found.reason == "no item has two different sounds"

    def test_none_is_claimed_where_the_effects_never_cross(self, listener: Grounding) -> None:
        made = with_effects(listener, np.full((12, 4), 4.0), np.zeros((12, 4)))
        assert "never falls below" in listen_layer(made).reason

    def test_controls_are_reported_beside_the_flips(self, listener: Grounding) -> None:
        found = listen_layer(listener)
        assert set(found.controls) == set(CONTROLS)
        assert found.chance == 0.25
        assert found.table()[0]["random donor_flips"] == 0


def with_effects(grounding: Grounding, audio: np.ndarray, after: np.ndarray) -> Grounding:
    """The same study with these effects in both directions; flips stay what they are."""
    corners = np.zeros_like(grounding.corners)
    margin = {
        "noise/audio/all tokens": -audio, "noise/after/all tokens": -after,
        "denoise/audio/all tokens": audio, "denoise/after/all tokens": after,
    }  # fmt: skip
    return replace(grounding, margin=margin, corners=corners)


class TestHeads:
    """Single heads."""

    def test_the_planted_head_is_the_only_one(self) -> None:
        model = planted.planted(1.0, 0.5, moves=2)
        found = heads(model, planted.items(model))
        audio = 2 * np.array([planted.share(i) for i in range(12)])
        assert found.values.shape == (12, 2, planted.LAYERS, 1)
        answer = found.values[:, 0, 2, 0]
        assert answer / audio == pytest.approx(answer[0] / audio[0])
        assert found.p[0, 2, 0] < 0.01
        rest = np.delete(found.values, 2, axis=2)
        assert rest == pytest.approx(0, abs=1e-6)
        assert np.delete(found.p, 2, axis=1).min() > 0.9
        top = found.table()[0]
        assert (top["where"], top["layer"], top["head"]) == ("answer", 2, 0)
        assert top["low"] < top["effect"] < top["high"]

    @pytest.mark.parametrize("labels", [((5,), (7,)), ((5, 9), (5, 11))])
    def test_values_are_those_of_hooks(self, labels) -> None:
        model = tiny.build("llama", torch.float64)
        rng = np.random.default_rng(3)
        items = [random_item(model, rng, i, labels) for i in range(2)]
        found = heads(model, items, where=("answer", "question", "after"), layers=(1, 3))
        item, n = items[1], len(labels[0]) - 1
        start = item.ab.groups["answer"][0]

        def m(interventions=()) -> float:
            return log_prob(model, item.ab, labels[0], interventions) - log_prob(
                model, item.ab, labels[1], interventions
            )

        groups = {
            "answer": tuple(range(start, start + 1 + n)),
            "question": item.ab.groups["question"],
            "after": tuple(range(item.ab.groups["context"][-1] + 1, start + 1 + n)),
        }
        for w, positions in enumerate(groups.values()):
            for k, layer in enumerate((1, 3)):
                site = f"decoder.{layer}.z"
                scores = []
                for label in labels:
                    inputs = [a.inputs.with_tokens([*a.inputs.tokens[0].tolist(), *label]) for a in (item.ab, item.bb)]
                    donor = model.capture(inputs[1], site)[site]
                    hook = replace_with(site, donor, positions=positions, heads=(2,))
                    log_p = model.run(inputs[0], [hook]).logits[0].log_softmax(-1)
                    scores.append(float(sum(log_p[start + i, token] for i, token in enumerate(label))))
                effect = m() - (scores[0] - scores[1])
                assert found.values[1, w, k, 2] == pytest.approx(effect, abs=1e-8)

    def test_resuming_and_progress(self) -> None:
        model = planted.planted()
        store, seen = {}, []

        def step(key, compute):
            return store.setdefault(key, compute()) if key not in store else store[key]

        for _ in range(2):
            found = heads(model, planted.items(model, 2), step=step, progress=lambda *at: seen.append(at))
        assert len(store) == 2
        assert seen == [(1, 2), (2, 2)] * 2
        assert found.layers == (0, 1, 2, 3)

    def test_items_without_two_sounds_are_refused(self) -> None:
        model = planted.planted()
        with pytest.raises(TaskError, match="no item has two different sounds"):
            heads(model, planted.items(model, 2, same_sound=True))
        with pytest.raises(TaskError, match="'nowhere' is not a group of positions"):
            heads(model, planted.items(model, 2), where=("nowhere",))
        bare = [strip_question(item) for item in planted.items(model, 2)]
        with pytest.raises(TaskError, match="no question positions"):
            heads(model, bare)


def strip_question(item: Corners) -> Corners:
    """The same item without a question group."""
    made = {
        c: replace(getattr(item, c), groups={**getattr(item, c).groups, "question": ()})
        for c in ("ab", "bb", "aa", "ba")
    }
    return replace(item, **made)
