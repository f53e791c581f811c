"""Distributed alignment search: a planted subspace, the illusion it must not fall for, controls, exactness, resuming."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from otoscope.engine.intervene import Intervention
from otoscope.errors import ModelError, TaskError
from otoscope.methods import alignment_search, subspace
from otoscope.methods.alignment_search import Alignment, Training, das
from otoscope.methods.grounding import Corners, grounding
from otoscope.methods.interchange import Pair, States, frozen, pairs
from tests import tiny
from tests.methods import planted
from tests.methods.test_grounding import random_item

HOW = Training(rank=planted.N_WORDS, span=1.0, epochs=30, rate=0.02)


def searched(listen: float, guess: float, layers=(0, 2), **options) -> Alignment:
    """Sounds whose meaningless part differs far more than what they say."""
    model = planted.planted(listen, guess, moves=1)
    items = planted.items(model, 32, noises=True)
    return das(model, items, layers, training=options.pop("training", HOW), n_train=32, n_test=32, **options)


class TestPlanted:
    """What is to be found is known."""

    def test_a_listener_and_a_guesser(self) -> None:
        for listen, guess, gc in ((1.0, 0.5, 1.0), (0.5, 1.0, 0.0)):
            found = searched(listen, guess)
            assert found.gc()[0] == pytest.approx(gc)
            assert np.isnan(found.gc()[1]).all(), "after the move neither side does anything"
            assert found.iia("audio")[0].value == pytest.approx(gc)
            assert found.iia("text")[0].value == pytest.approx(1 - gc)
            assert not found.plain["audio/learned"].any(), "without an exchange the base answers its own label"

    def test_a_mixture_gives_the_share_of_items_that_listen(self) -> None:
        """Shares of 0.6, 0.8 and 1 against a text of 0.7: two thirds of the items listen, the others guess."""
        found = searched(1.0, 0.7, training=replace(HOW, epochs=60))
        judged = [float(unit.split()[1]) % 3 > 0 for unit in found.units]
        assert found.hits["audio/learned"][0].tolist() == judged
        assert found.hits["text/learned"][0].tolist() == [not j for j in judged]
        assert found.gc()[0, 0] == pytest.approx(np.mean(judged))

    @pytest.mark.parametrize("start", ["difference", "random"])
    def test_the_planted_subspace_is_learned_among_larger_differences(self, start) -> None:
        model = planted.planted(1.0, 0.5, moves=1)
        items = planted.items(model, 24, noises=True)
        how = replace(HOW, start=start, rank=3, rate=0.05, epochs=60)
        search = subspace.Search(model, items, range(24), [0], how, 0)
        untrained = subspace.Search(model, items, range(24), [0], replace(how, epochs=0), 0)
        learn = pairs("audio", range(24))
        # differences of four one-hot words span three directions; what else differs is noise
        words = torch.eye(planted.D, dtype=torch.float64)[:, : planted.N_WORDS]
        words = torch.linalg.svd(words - words.mean(1, keepdim=True))[0][:, :3]
        overlap = [float((words.T @ one._learn("audio", 0, learn)).square().sum()) / 3 for one in (untrained, search)]
        assert overlap[0] < 0.5
        assert overlap[1] > 0.85

    def test_it_does_not_do_what_whole_states_cannot(self) -> None:
        """A free subspace would write the sound into the words' directions, which later layers read: an illusion."""
        found = searched(0.5, 1.0, controls=("whole state",))
        assert not found.hits["audio/whole state"].any()
        assert not found.hits["audio/learned"].any()
        free = searched(0.5, 1.0, training=replace(HOW, span=None), layers=(0,))
        assert free.iia("audio")[0].value > 0.9

    def test_agreement_with_patching_is_a_rank_correlation_over_layers(self) -> None:
        model = planted.planted(1.0, 0.7, moves=1)
        items = planted.items(model, 24)
        found = das(model, items, range(4), training=HOW, n_train=24, n_test=24)
        agreement = found.agreement(grounding(model, items))
        assert agreement.rho.n == 2, "two layers have a value, too few for a correlation"
        assert np.isnan(agreement.rho.value)


@pytest.fixture(scope="module")
def found() -> Alignment:
    """A listener with all nulls."""
    return searched(1.0, 0.5, layers=(0,), controls=("random labels", "random subspace", "untrained"))


class TestControls:
    """Nulls in the same call."""

    def test_random_labels_are_right_about_half_the_time(self, found: Alignment) -> None:
        """Nothing can be learned: the exact interval of the held-out pairs holds one half."""
        for side in ("audio", "text"):
            (rate,) = found.iia(side, "random labels")
            assert rate.low < 0.5 < rate.high

    def test_a_random_subspace_of_the_same_rank_finds_less(self, found: Alignment) -> None:
        assert found.iia("audio", "random subspace")[0].value < found.iia("audio")[0].value - 0.5

    def test_an_untrained_model_is_answered_for_separately(self, found: Alignment) -> None:
        """Its own answers without an exchange are the zero that its accuracy is corrected by."""
        assert found.plain["audio/untrained"].mean() > found.plain["audio/learned"].mean()
        for side in ("audio", "text"):
            assert found.corrected(side, "untrained")[0] < 0.8
        assert found.corrected("audio")[0] == 1.0

    def test_the_table_holds_all_of_them(self, found: Alignment) -> None:
        (row,) = found.table()
        assert row["layer"] == 0
        assert row["audio/learned iia"] == 1.0
        assert {"text/random labels iia", "audio/random subspace plain", "audio/untrained iia", "gc"} <= set(row)
        assert (row["n_pairs"], row["n_train"], row["rank"]) == (32, 32, planted.N_WORDS)


def written(k: int, positions: tuple[int, ...], value: torch.Tensor) -> Intervention:
    """Add ``value`` ``[1, position, d]`` at some positions before layer k."""

    def change(x, at):
        x = x.clone()
        x[:, list(positions)] += value
        return x

    return Intervention(f"decoder.{k}.resid_pre", change)


class TestExactness:
    """The kept states and the suffix give what a hooked forward of the whole model gives."""

    @pytest.mark.parametrize("side", ["audio", "text"])
    @pytest.mark.parametrize("family", ["llama", "qwen2_audio"])
    def test_scores_are_those_of_hooks(self, family, side) -> None:
        model = tiny.build(family, torch.float64)
        labels = [(5, 9), (5, 11), (13,)]
        if family == "llama":
            rng = np.random.default_rng(1)
            items = [random_item(model, rng, i, labels[:2], (labels[2],)) for i in range(2)]
        else:
            sounds = [tiny.sound(i) for i in range(4)]
            items = [
                Corners(
                    **{s + c: model.ask(sounds[2 * i + (s == "b")], "what?", f"say {c}.") for s in "ab" for c in "ab"},
                    audio_label=labels[0], text_label=labels[1], unit=str(i), others=(labels[2],),
                )
                for i in range(2)
            ]  # fmt: skip
        states = States(model.adapter, items, [1, 3], batch_size=3)
        basis = torch.linalg.qr(torch.randn(24, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
        group = "audio" if side == "audio" else "context"
        positions = items[0].ab.groups[group]
        start = items[0].ab.groups["answer"][0]
        chosen = pairs(side, [0, 1])
        for layer in (1, 3):
            found = states.scores(side, layer, chosen, basis).detach()
            plain = states.scores(side, layer, chosen, None).detach()
            site = f"decoder.{layer}.resid_pre"
            for p, pair in enumerate(chosen):
                base, source = (getattr(items[pair.item], name) for name in (pair.base, pair.source))
                x, s = (model.capture(one.inputs, site)[site][:, list(positions)] for one in (base, source))
                hook = written(layer, positions, (s - x) @ basis @ basis.T)
                for j, label in enumerate(labels):
                    inputs = base.inputs.with_tokens([*base.inputs.tokens[0].tolist(), *label])
                    for interventions, got in (([hook], found), ([], plain)):
                        log_p = model.run(inputs, interventions).logits[0].log_softmax(-1)
                        expected = sum(float(log_p[start + i, token]) for i, token in enumerate(label))
                        assert float(got[p, j]) == pytest.approx(expected, abs=1e-9)

    def test_gradients_are_those_of_finite_differences(self) -> None:
        model = tiny.build("llama", torch.float64)
        items = [random_item(model, np.random.default_rng(i), i) for i in range(2)]
        states = States(model.adapter, items, [1])
        free = torch.randn(24, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)

        def loss(free):
            scores = states.scores("audio", 1, pairs("audio", [0, 1]), torch.linalg.qr(free)[0])
            return (scores[:, 0] - scores[:, 1]).square().sum()

        with frozen(model.hf):
            assert not any(p.requires_grad for p in model.hf.parameters())
            (slope,) = torch.autograd.grad(loss(free), free)
        assert all(p.requires_grad for p in model.hf.parameters())
        step = torch.randn(free.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():  # the library's norms compute in single precision, so the steps cannot be tiny
            by_steps = float(loss(free + 1e-3 * step) - loss(free - 1e-3 * step)) / 2e-3
        assert float((slope * step).sum()) == pytest.approx(by_steps, rel=2e-3)

    def test_pairs_ask_for_the_label_that_only_the_exchange_brings(self) -> None:
        assert pairs("audio", [3]) == [Pair(3, "bb", "ab", 0), Pair(3, "aa", "ba", 1)]
        assert pairs("text", [3]) == [Pair(3, "bb", "ba", 0), Pair(3, "aa", "ab", 1)]

    def test_items_of_several_layouts_are_searched_together(self) -> None:
        model = planted.planted(1.0, 0.5, moves=1)
        items = planted.items(model, 12)
        longer = []
        for i, item in enumerate(planted.items(model, 12)):
            made = {
                c: planted.asked(
                    model, tokens(getattr(item, c), "audio"), [planted.SYSTEM, *tokens(getattr(item, c), "context")]
                )
                for c in ("ab", "bb", "aa", "ba")
            }
            longer.append(replace(item, **made, unit=f"longer {i}"))
        found = das(model, [*items, *longer], [0], training=HOW, n_train=24, n_test=24)
        assert {unit.split()[0] for unit in found.units} == {"item", "longer"}
        assert found.iia("audio")[0].value == 1.0
        assert found.units[::2] == found.units[1::2], "both exchanges of an item stand side by side"


def tokens(asked, group: str) -> list[int]:
    return asked.inputs.tokens[0, list(asked.groups[group])].tolist()


class TestInput:
    """Splits, resuming, refusals."""

    def test_training_and_testing_share_no_unit(self) -> None:
        model = planted.planted()
        items = [replace(item, unit=f"speaker {i % 5}") for i, item in enumerate(planted.items(model, 20))]
        train, test = alignment_search._split(items, 8, 8, 0)
        assert len(train) == len(test) == 8
        assert not {items[i].unit for i in train} & {items[i].unit for i in test}

    def test_resuming_computes_nothing_again(self, monkeypatch) -> None:
        model = planted.planted(1.0, 0.5)
        items, store, seen = planted.items(model, 8), {}, []

        def step(key, compute):
            if key not in store:
                store[key] = compute()
            return store[key]

        def search() -> Alignment:
            return das(
                model, items, [0, 1], training=HOW, n_train=8, n_test=8, step=step, progress=lambda *at: seen.append(at)
            )

        first = search()
        assert seen == [(i, 4) for i in range(1, 5)]
        monkeypatch.setattr(subspace, "States", lambda *_, **__: pytest.fail("computed again"))
        again = search()
        assert (again.hits["audio/learned"] == first.hits["audio/learned"]).all()
        assert len(store) == 4

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"layers": ()}, "is not a decoder layer"),
            ({"layers": (9,)}, "'9' is not a decoder layer"),
            ({"controls": ("luck",)}, "'luck' is not a control"),
            ({"training": Training(rank=0)}, "rank 0 makes no subspace"),
        ],
    )
    def test_what_there_is_not_is_refused(self, options, words) -> None:
        model = planted.planted()
        with pytest.raises(TaskError, match=words):
            das(model, planted.items(model, 4), **{"layers": (0,), **options})

    def test_one_unit_or_equal_sounds_are_refused(self) -> None:
        model = planted.planted()
        with pytest.raises(TaskError, match="at least two units"):
            das(model, planted.items(model, 1), [0])
        with pytest.raises(TaskError, match="at least two units"):
            das(model, planted.items(model, 4, same_sound=True), [0])

    def test_a_model_that_hears_by_cross_attention_is_refused(self) -> None:
        model = tiny.build("whisper")
        clips = {"a": tiny.sound(0), "b": tiny.sound(1)}
        made = {}
        for s in "ab":
            for c, word in (("a", 7), ("b", 9)):
                asked = planted.asked(planted.planted(), [3, 3], [word, word])
                made[s + c] = replace(asked, inputs=model.inputs(clips[s], tokens=asked.inputs.tokens))
        items = [Corners(**made, audio_label=(5,), text_label=(7,), unit=str(i)) for i in range(4)]
        with pytest.raises(ModelError, match="use grounding_asr"):
            das(model, items, [0])
