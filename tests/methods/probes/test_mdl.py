"""The on-line code against closed forms, against a code written out with scikit-learn, and on nothing at all."""

import numpy as np
import pytest

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


def test_code_of_frequencies_is_the_closed_form():
    y = np.resize(["a", "a", "a", "b"], 256)
    code = online_code(noise(256, 2), y, shares=(0.25, 0.5, 1.0), fitting=lambda x, y, g: Frequencies(y))
    assert code.ends == (64, 128, 256)
    order = np.random.default_rng(0).permutation(256)
    expected = 64.0  # the first block takes one bit each
    for start, end in ((64, 128), (128, 256)):
        seen, sent = y[order[:start]], y[order[start:end]]
        blank = 1 / (1 + start)
        for label in "ab":
            p = (1 - blank) * np.mean(seen == label) + blank / 2
            expected -= np.sum(sent == label) * np.log2(p)
    assert code.total == pytest.approx(expected, rel=1e-12)


def test_each_block_is_sent_by_a_probe_of_the_rows_before_it():
    x = linear(Y, 6)
    code = online_code(x, Y, shares=(0.5, 1.0), fitting=lambda x, y, g: fit(x, y, penalties=[0.1]))
    order = np.random.default_rng(0).permutation(len(Y))
    half = len(Y) // 2
    probe: LinearProbe = fit(x[order[:half]], Y[order[:half]], penalties=[0.1])
    probs = np.exp(probe.log_probs(x[order[half:]]))
    blank = 1 / (1 + half)
    p = (1 - blank) * probs[np.arange(half), (Y[order[half:]] == "b").astype(int)] + blank / 2
    assert code.total == pytest.approx(half - np.log2(p).sum(), rel=1e-6)


def test_planted_label_is_compressed_and_noise_is_not():
    planted = online_code(linear(Y, 16, strength=3.0), Y, GROUPS)
    nothing = online_code(noise(len(Y), 16), Y, GROUPS)
    assert planted.compression > 3
    assert 0.8 < nothing.compression < 1.05


def test_effort_tells_apart_what_accuracy_does_not():
    """Both are read without error from all rows, but one of them needs far more rows for it."""
    easy = linear(Y, 2, strength=4.0)
    hard = np.concatenate([easy, 3 * noise(len(Y), 200, 7)], axis=1)
    assert online_code(easy, Y, GROUPS).bits.sum() < 0.7 * online_code(hard, Y, GROUPS).bits.sum()


def test_bits_are_given_in_the_order_of_the_rows():
    y = np.array(["b"] + ["a"] * 255)
    code = online_code(noise(256, 2), y, fitting=lambda x, y, g: Frequencies(y))
    assert code.bits.argmax() == 0


def test_groups_are_sent_whole():
    seen: list[set] = []

    def fitting(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> LinearProbe:
        seen.append(set(groups))
        return fit(x, y, penalties=[1.0])

    online_code(noise(len(Y), 3), Y, GROUPS, shares=(0.25, 0.5, 1.0), fitting=fitting)
    assert [len(s) for s in seen] == [4, 8]
