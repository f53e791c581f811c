"""Answers out of a closed set: kept by the frames themselves, lost with zeros, and scored as one whole forward scores them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import otoscope
from otoscope.sae.measures.answers import Asked, answers, asked_of, log_probs, plain_answers
from otoscope.tasks.pair import Pair
from otoscope.tasks.task import Card, Task, TaskItem
from tests.cli.folder import save_tiny_whisper
from tests.tiny import sound

SITE, LABELS = "encoder.0.resid_post", ("one", "two", "three")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return otoscope.load(str(save_tiny_whisper(tmp_path_factory.mktemp("model"))))


@pytest.fixture(scope="module")
def asked(model) -> list[Asked]:
    """Sounds whose right label is the one that this random model answers, so that it is right about all."""
    rows = [Asked(sound(seed, 8000), 0, "", f"s{seed % 3}") for seed in range(6)]
    return [one._replace(right=int(log_probs(model, one, LABELS).argmax())) for one in rows]


def test_the_frames_themselves_keep_every_answer_and_zeros_do_what_zeros_do(model, asked) -> None:
    before = plain_answers(model, SITE, asked, LABELS)
    assert (before[:, 0] == [one.right for one in asked]).all()
    same = answers(model, SITE, asked, LABELS, before, lambda x: x, n_resamples=20)
    assert same.accuracy.value == same.own.value == 1
    assert same.delta.value == 0
    gone = answers(model, SITE, asked, LABELS, before, torch.zeros_like, n_resamples=20)
    right = np.mean(before[:, 1] == [one.right for one in asked])
    assert gone.accuracy.value == pytest.approx(right)
    assert gone.recovered.value == pytest.approx(0) if right < 1 else np.isnan(gone.recovered.value)
    assert same.accuracy.n == 3  # speakers


def test_a_label_has_the_probability_of_its_tokens_one_after_the_other(model, asked) -> None:
    found = log_probs(model, asked[0], LABELS)
    prompt, end = model.prompt(), model.tokenizer.eos_token_id
    for i, label in enumerate(LABELS):
        total = 0.0
        for spelling in (f" {label.capitalize()}.", f" {label}"):
            tokens = [*model.tokenizer(spelling, add_special_tokens=False).input_ids, end]
            logits = model.run(model.inputs(asked[0].clip, tokens=[*prompt, *tokens])).logits[0].double()
            each = logits.log_softmax(-1)[len(prompt) - 1 : -1]
            total += float(each[range(len(tokens)), tokens].sum().exp())
        assert found[i] == pytest.approx(np.log(total), rel=1e-4)


def test_both_sounds_of_an_item_are_asked() -> None:
    pair = Pair(sound(0, 8000), sound(1, 8000), (0.0, 0.5), "one -> two", name="p")
    card = Card("", "word", "", "", "", "")
    task = Task("t", 1, 0, (TaskItem(pair, "one", "two", unit="u"),), card, LABELS)
    assert [(a.right, a.unit) for a in asked_of(task)] == [(0, "u"), (1, "u")]
