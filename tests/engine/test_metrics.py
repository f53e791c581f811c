"""Metrics against numpy, and the plan of what they read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr

from otoscope.engine.metrics import KL, LabelLogProb, LogitDiff, Reading, Top1Change
from otoscope.engine.patch import Patch
from otoscope.errors import TaskError
from tests.tiny import build, pair


@pytest.fixture
def logits():
    """Base run (item 0) and four other rows, six positions, nine tokens."""
    return torch.randn(5, 6, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def read(metrics, logits):
    """What a sweep computes: only the positions and tokens that are read."""
    reading = Reading.of(metrics, logits.shape[1])
    part = logits[:, list(reading.positions)]
    part = part if reading.vocab is None else part[..., list(reading.vocab)]
    return reading, reading.values(part, part[:1], logits.shape[1])


def test_logit_difference(logits):
    for position in (2, -1, 0):
        _, values = read(LogitDiff(7, 3, position), logits)
        assert torch.equal(values["logit_diff"], logits[:, position, 7] - logits[:, position, 3])


def test_a_label_is_scored_token_by_token(logits):
    _, values = read(LabelLogProb((4, 0, 8), 2), logits)
    log_p = log_softmax(logits.numpy(), -1)
    expected = log_p[:, 2, 4] + log_p[:, 3, 0] + log_p[:, 4, 8]
    assert np.abs(values["log_prob"].numpy() - expected).max() < 1e-12


def test_a_labels_log_prob_is_the_chain_rule_under_teacher_forcing():
    """Sum over the label of log p(token | what comes before), one run per prefix, equals one run over the whole text."""
    model = build("llama", torch.float64)
    inputs, _ = pair(model)
    tokens, label = inputs.tokens[0].tolist(), (5, 9, 2)
    whole = model.run(inputs.with_tokens([*tokens, *label])).logits
    _, values = read(LabelLogProb(label, len(tokens) - 1), whole)
    expected = 0.0
    for i, token in enumerate(label):
        step = model.run(inputs.with_tokens([*tokens, *label[:i]])).logits[0, -1]
        expected += float(step.log_softmax(-1)[token])
    assert float(values["log_prob"][0]) == pytest.approx(expected, abs=1e-9)


def test_kl_is_from_the_base_run_to_the_patched_one(logits):
    _, values = read(KL(3), logits)
    p = np.exp(log_softmax(logits[:, 3].numpy(), -1))
    assert np.abs(values["kl"].numpy() - rel_entr(p[:1], p).sum(-1)).max() < 1e-12
    assert float(values["kl"][0]) == 0
    assert (values["kl"][1:] > 0).all()


def test_top1_change(logits):
    _, values = read(Top1Change(1), logits)
    best = logits[:, 1].argmax(-1)
    assert values["top1_change"].tolist() == [float(b != best[0]) for b in best]
    assert values["top1_change"][0] == 0


def test_several_metrics_read_their_union_and_each_finds_its_part(logits):
    metrics = [LogitDiff(7, 3, 4), LogitDiff(3, 1, -5, name="other"), LogitDiff(1, 7, 5, name="last")]
    reading, values = read(metrics, logits)
    assert reading.positions == (1, 4, 5)
    assert reading.vocab == (7, 3, 1)
    for metric, position in zip(metrics, (4, 1, 5)):
        assert torch.equal(values[metric.name], logits[:, position, metric.answer] - logits[:, position, metric.foil])


def test_one_metric_that_needs_the_whole_vocabulary_makes_all_read_it(logits):
    reading, values = read([LogitDiff(7, 3, 2), KL(5)], logits)
    assert reading.vocab is None
    assert torch.equal(values["logit_diff"], logits[:, 2, 7] - logits[:, 2, 3])
    assert torch.equal(values["kl"], read(KL(5), logits)[1]["kl"])


def test_what_cannot_be_read_is_refused():
    with pytest.raises(TaskError, match=r"answer and foil are the same token \(4\): they cannot be told apart"):
        LogitDiff(4, 4)
    with pytest.raises(TaskError, match="logit_diff reads position 6, but the output has 6: 0 to 5"):
        Reading.of(LogitDiff(1, 2, 6), 6)
    with pytest.raises(TaskError, match="log_prob reads position 6"):
        Reading.of(LabelLogProb((1, 2, 3), 4), 6)
    with pytest.raises(TaskError, match="reads position -7"):
        Reading.of(KL(-7), 6)
    with pytest.raises(TaskError, match="two metrics share a name: give each its own"):
        Reading.of([LogitDiff(1, 2), LogitDiff(3, 4)], 6)


@pytest.mark.parametrize("metric", [LogitDiff(99, 2), LogitDiff(1, -3), LabelLogProb((1, 50), 2)])
def test_a_token_the_model_does_not_have_is_refused(metric):
    model = build("llama")
    base, donor = pair(model)
    with pytest.raises(TaskError):
        model.sweep(base, donor, [Patch("decoder.1.resid_post")], metric)
