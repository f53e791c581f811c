"""The on-line code against closed forms, against a code written out with scikit-learn, and on nothing at all."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from otoscope.methods.probes import fit, online_code
from otoscope.methods.probes.linear import LinearProbe
from tests.methods.probes.synthetic import balanced, linear, noise, speakers

GROUPS = speakers(16, 32)
Y = balanced(len(GROUPS))


class Frequencies:
    """A probe that knows nothing but how often each label was seen."""

    validation = 0.0

    def __init__(self, y: np.ndarray):
        self.classes, counts = np.unique(y, return_counts=True)
        self.shares = counts / counts.sum()

    def log_probs(self, x: np.ndarray) -> np.ndarray:
        return np.log(np.tile(self.shares, (len(x), 1)))


def mixed(first: float, *lengths: float) -> float:
    """Bits of a first block and of the mixture of whole codes for the rest."""
    return first - np.log2(np.mean(np.exp2(-np.array(lengths))))


def test_code_of_frequencies_is_the_closed_form():
    y = np.resize(["a", "a", "a", "b"], 256)
    code = online_code(noise(256, 2), y, shares=(0.25, 0.5, 1.0), experts=lambda x, y: [Frequencies(y)])
    assert code.ends == (64, 128, 256)
    order, expert = np.random.default_rng(0).permutation(256), 0.0
    for start, end in ((64, 128), (128, 256)):
        seen, sent = y[order[:start]], y[order[start:end]]
        blank = 1 / (1 + start)
        for label in "ab":
            p = (1 - blank) * np.mean(seen == label) + blank / 2
            expert -= np.sum(sent == label) * np.log2(p)
    # the first block takes one bit each, and so does the uniform code for the other 192
    assert code.total == pytest.approx(mixed(64.0, 192.0, expert), rel=1e-12)


def test_each_block_is_sent_by_a_probe_of_the_rows_before_it():
    x = linear(Y, 6)
    code = online_code(x, Y, shares=(0.5, 1.0), experts=lambda x, y: [fit(x, y, penalties=[0.01])])
    order = np.random.default_rng(0).permutation(len(Y))
    half = len(Y) // 2
    rival = make_pipeline(StandardScaler(), LogisticRegression(C=1 / (6 * 0.01 * half), max_iter=5000, tol=1e-8))
    probs = rival.fit(x[order[:half]], Y[order[:half]]).predict_proba(x[order[half:]])
    blank = 1 / (1 + half)
    p = (1 - blank) * probs[np.arange(half), (Y[order[half:]] == "b").astype(int)] + blank / 2
    assert code.total == pytest.approx(mixed(half, half, -np.log2(p).sum()), rel=5e-3)


def test_planted_label_is_compressed_and_noise_is_not():
    planted = online_code(linear(Y, 16, strength=3.0), Y, GROUPS)
    nothing = online_code(noise(len(Y), 16), Y, GROUPS)
    assert planted.compression > 3
    # never more than log2(7) bits longer than the uniform code
    assert nothing.total < len(Y) + np.log2(7) + 1e-6
    assert nothing.compression < 1.05


def test_effort_tells_apart_what_accuracy_does_not():
    """Both are read without error from all rows, but one of them needs far more rows for it."""
    easy = linear(Y, 2, strength=4.0)
    hard = np.concatenate([easy, 3 * noise(len(Y), 200, 7)], axis=1)
    assert online_code(easy, Y, GROUPS).bits.sum() < 0.7 * online_code(hard, Y, GROUPS).bits.sum()


def test_bits_are_given_in_the_order_of_the_rows():
    y = np.array(["b"] + ["a"] * 255)
    code = online_code(noise(256, 2), y, experts=lambda x, y: [Frequencies(y)])
    assert code.bits.argmax() == 0


def test_groups_are_sent_whole():
    x = np.repeat(np.arange(16.0), 32)[:, None]  # the feature is the speaker
    seen: list[set] = []

    def experts(x: np.ndarray, y: np.ndarray) -> list[LinearProbe]:
        seen.append(set(x[:, 0]))
        return [fit(x, y, penalties=[1.0])]

    online_code(x, Y, GROUPS, shares=(0.25, 0.5, 1.0), experts=experts)
    assert [len(s) for s in seen] == [4, 8]
