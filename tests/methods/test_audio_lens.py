"""AudioLens: scores by hand, a planted critical layer, whole labels, the run without sound, input that is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from otoscope.errors import ModelError, TaskError
from otoscope.methods.audio_lens import AudioLens, LensItem, audio_lens, lens_scores
from otoscope.tasks.conflict import ConflictTask
from tests import tiny
from tests.methods import planted


def lens_item(model, index: int) -> LensItem:
    """A sound alone, and the same prompt with a sound that says nothing."""
    word = index % planted.N_WORDS
    heard = planted.asked(model, [planted.SOUND + word] * planted.N_AUDIO, [planted.SYSTEM] * planted.N_CONTEXT)
    silent = planted.asked(model, [planted.SYSTEM] * planted.N_AUDIO, [planted.SYSTEM] * planted.N_CONTEXT)
    labels = tuple((planted.ANSWER + w,) for w in range(planted.N_WORDS))
    return LensItem(heard, silent, labels, word, f"item {index}")


class TestPlanted:
    """The layer that moves the sound to the answer is the first that the lens can read it at."""

    @pytest.mark.parametrize("moves", [0, 1, 2])
    def test_information_and_critical_layer(self, moves: int) -> None:
        model = planted.planted(1.0, 0.5, moves=moves)
        found = audio_lens(model, [lens_item(model, i) for i in range(12)])
        heard, silent = found.information("heard")[:, 0], found.information("silent")[:, 0]
        assert heard[moves:] == pytest.approx(1.0)
        assert heard[:moves] == pytest.approx(0.25), "nothing is there to read, so one label is right for all"
        assert silent == pytest.approx(0.25)
        assert found.difference()[moves:, 0] == pytest.approx(0.75)
        assert found.threshold == pytest.approx(1.2 / 4)
        critical = found.critical_layer()
        assert critical is not None
        # layers from `moves` on, with equal weights
        assert critical.value == pytest.approx((moves + planted.LAYERS - 1) / 2)
        assert found.critical_layer("silent") is None
        assert [row["heard"] for row in found.table()] == pytest.approx(heard.tolist())

    def test_the_critical_layer_is_the_weighted_mean_above_the_threshold(self) -> None:
        rng = np.random.default_rng(0)
        right = rng.random((200, 5)) < [0.2, 0.27, 0.35, 0.5, 0.9]
        chance = np.full(200, 0.25)
        found = AudioLens("made", 0.2, {"heard": right, "silent": right}, chance, tuple(map(str, range(200))))
        score = right.mean(0)
        assert (score > 0.3).tolist() == [False, False, True, True, True]
        expected = (score[2:] @ [2, 3, 4]) / score[2:].sum()
        critical = found.critical_layer()
        assert critical is not None
        assert critical.value == pytest.approx(expected)
        assert critical.low < expected < critical.high
        assert found.difference()[:, 0] == pytest.approx(0)
        stricter = replace(found, alpha=1.5).critical_layer()
        assert stricter is not None
        assert stricter.value == pytest.approx(4.0)


@pytest.mark.parametrize("family", ["llama", "qwen2_audio", "whisper"])
class TestScores:
    """Scores by hand, on whole labels of which two begin alike."""

    def asked(self, model, family):
        if family == "llama":
            return planted.asked(model, [20, 21], [22])
        if family == "qwen2_audio":
            return model.ask(tiny.sound(1), "what?")
        made = planted.asked(planted.planted(), [3], [9, 9])
        return replace(made, inputs=model.inputs(tiny.sound(1), tokens=made.inputs.tokens))

    def test_every_layer_is_read_through_the_final_norm_and_the_head(self, family) -> None:
        model = tiny.build(family, torch.float64)
        asked, labels = self.asked(model, family), [(5, 9), (5, 11), (13,)]
        start, n_layers = asked.groups["answer"][0], model.stacks["decoder"].n_layers
        found = lens_scores(model, asked, labels)
        assert found.shape == (n_layers, 3)
        for j, label in enumerate(labels):
            inputs = asked.inputs.with_tokens([*asked.inputs.tokens[0].tolist(), *label])
            output = model.run(inputs, capture_sites="decoder.*.resid_post")
            for layer in range(n_layers):
                state = output.cache[f"decoder.{layer}.resid_post"]
                with torch.no_grad():
                    log_p = model.adapter.unembed(model.adapter.final("decoder", state))[0].log_softmax(-1)
                expected = sum(float(log_p[start + i, token]) for i, token in enumerate(label))
                assert found[layer, j] == pytest.approx(expected, abs=1e-9)
            own = output.logits[0].log_softmax(-1)
            assert found[-1, j] == pytest.approx(sum(float(own[start + i, t]) for i, t in enumerate(label)), abs=1e-9)

    def test_single_tokens_are_ranked_by_their_logits(self, family) -> None:
        model = tiny.build(family, torch.float64)
        asked = self.asked(model, family)
        found = lens_scores(model, asked, [(5,), (7,), (9,)])
        logits = model.run(asked.inputs).logits[0, asked.groups["answer"][0]]
        assert found[-1] == pytest.approx(logits[[5, 7, 9]].tolist(), abs=1e-9)


class TestInput:
    """What is refused, and what a killed run leaves."""

    def test_labels_that_begin_alike_are_refused_where_only_the_first_token_is_read(self) -> None:
        model = tiny.build("llama")
        asked = planted.asked(model, [20], [22])
        with pytest.raises(TaskError, match="begin with the same token \\(5\\)"):
            lens_scores(model, asked, [(5, 9), (5, 11)], "first")
        first = lens_scores(model, asked, [(5, 9), (7, 11)], "first")
        assert first == pytest.approx(lens_scores(model, asked, [(5,), (7,)]))

    def test_a_right_label_that_is_not_there_is_refused(self) -> None:
        model = planted.planted()
        item = lens_item(model, 0)
        with pytest.raises(TaskError, match="is not among its 4 labels"):
            replace(item, right=4)
        with pytest.raises(TaskError, match="no item"):
            audio_lens(model, [])

    def test_a_model_that_caps_its_logits_is_refused(self, monkeypatch) -> None:
        model = tiny.build("llama")
        plain = model.adapter.forward
        monkeypatch.setattr(model.adapter, "forward", lambda inputs: 0.5 * plain(inputs))
        with pytest.raises(ModelError, match="not the unembedding"):
            lens_scores(model, planted.asked(model, [20], [22]), [(5,), (7,)])

    def test_resuming_computes_nothing_again(self, monkeypatch) -> None:
        model = planted.planted()
        items, store, seen = [lens_item(model, i) for i in range(3)], {}, []

        def step(key, compute):
            if key not in store:
                store[key] = compute()
            return store[key]

        first = audio_lens(model, items, step=step, progress=lambda *at: seen.append(at))
        assert seen == [(1, 3), (2, 3), (3, 3)]
        assert len(store) == 4, "three sounds, and one prompt without any"
        monkeypatch.setattr("otoscope.methods.audio_lens.lens_scores", lambda *_: pytest.fail("computed again"))
        again = audio_lens(model, items, step=step)
        assert (again.right["heard"] == first.right["heard"]).all()

    @pytest.mark.parametrize("without", ["silent", "none"])
    def test_items_of_a_conflict_task_are_read_with_and_without_their_sound(self, without) -> None:
        model = tiny.build("qwen2_audio")
        clips = [tiny.sound(i).replace(labels={"label": word}) for i, word in enumerate(["pig", "dog"] * 2)]
        task = ConflictTask.from_clips(clips, "What is it?", seconds=0.25)
        items = [LensItem.of(model, item, without=without) for item in task]
        assert all(
            item.labels[item.right] == model.label_tokens(task.items[i].sound_label) for i, item in enumerate(items)
        )
        assert bool(items[0].silent.groups["audio"]) == (without == "silent")
        assert items[0].heard.groups["context"] == ()
        found = audio_lens(model, items)
        assert found.right["heard"].shape == found.right["silent"].shape == (4, 4)
