"""Unbiased CKA: the U-statistic by enumeration, a rival form, invariances, no bias at few samples, and the block null."""

from itertools import permutations

import numpy as np
import pytest

from otoscope.errors import TaskError
from otoscope.methods.similarity import block_null, cka, hsic

RNG = np.random.default_rng(0)


def by_enumeration(k, l):  # noqa: E741
    """The U-statistic itself: the mean of its core over all orders of four different samples."""
    terms = [
        k[i, j] * l[i, j] + k[i, j] * l[q, r] - 2 * k[i, j] * l[i, q] for i, j, q, r in permutations(range(len(k)), 4)
    ]
    return np.mean(terms)


def u_centred(k):
    """Szekely & Rizzo (2014): the inner product of kernels centred this way is the same estimate."""
    k = k - np.diag(np.diag(k))
    m, rows = len(k), k.sum(1)
    out = k - rows[:, None] / (m - 2) - rows[None] / (m - 2) + k.sum() / ((m - 1) * (m - 2))
    return out - np.diag(np.diag(out))


def biased(x, y):
    x, y = x - x.mean(0), y - y.mean(0)
    k, l = x @ x.T, y @ y.T  # noqa: E741
    return (k * l).sum() / np.sqrt((k * k).sum() * (l * l).sum())


def smooth(n, d, rng, width=12):
    """States whose neighbours resemble each other, as frames of speech do."""
    raw = rng.standard_normal((n + width, d))
    sums = np.cumsum(raw, 0)
    return (sums[width:] - sums[:-width]) / np.sqrt(width)


def test_hsic_is_the_u_statistic():
    x, y = RNG.standard_normal((7, 3)), RNG.standard_normal((7, 5)) + 2
    k, l = x @ x.T, y @ y.T  # noqa: E741
    assert hsic(k, l) == pytest.approx(by_enumeration(k, l))
    assert hsic(k, l) == pytest.approx((u_centred(k) * u_centred(l)).sum() / (7 * 4))


def test_cka_knows_a_rotation_a_scale_and_a_shift():
    x = RNG.standard_normal((30, 6))
    turn = np.linalg.qr(RNG.standard_normal((6, 6)))[0]
    assert cka(x, 3 * x @ turn + 100) == pytest.approx(1)
    y = RNG.standard_normal((30, 6))
    assert cka(x, y) == pytest.approx(cka(x + 50, y @ turn - 7), abs=1e-9)
    assert cka(x, y) == pytest.approx(hsic(x @ x.T, y @ y.T) / np.sqrt(hsic(x @ x.T, x @ x.T) * hsic(y @ y.T, y @ y.T)))


def test_random_states_are_unlike_even_where_the_biased_estimate_says_otherwise():
    pairs = [(RNG.standard_normal((20, 60)), RNG.standard_normal((20, 60))) for _ in range(200)]
    values = [cka(x, y) for x, y in pairs]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))
    assert np.mean([biased(x, y) for x, y in pairs]) > 0.6


def test_a_planted_likeness_is_recovered_whatever_the_number_of_samples():
    """Half of the variance is shared, by as many channels: CKA of the population is 1/4 for isotropic states."""
    rng = np.random.default_rng(3)

    def pair(n):
        shared = rng.standard_normal((n, 40))
        return [np.sqrt(0.5) * (shared + rng.standard_normal((n, 40))) for _ in range(2)]

    for n in (24, 200):
        sets = [pair(n) for _ in range(4800 // n)]
        value = cka([a for a, _ in sets], [b for _, b in sets])
        assert value == pytest.approx(0.25, abs=0.03)


def test_utterances_are_sets_of_their_own():
    """What differs between utterances, such as a speaker's mean, is no likeness of frames."""
    offsets = [5 * RNG.standard_normal((1, 8)) for _ in range(40)]
    x = [RNG.standard_normal((25, 8)) + o for o in offsets]
    y = [RNG.standard_normal((25, 8)) + o for o in offsets]
    assert abs(cka(x, y)) < 0.1
    assert cka(np.concatenate(x), np.concatenate(y)) > 0.8


def test_what_does_not_vary_or_is_too_short_has_no_value():
    assert np.isnan(cka(np.ones((10, 3)), RNG.standard_normal((10, 3))))
    assert np.isnan(cka(RNG.standard_normal((3, 3)), RNG.standard_normal((3, 3))))
    x = RNG.standard_normal((9, 3))
    assert cka([x, x[:2]], [x, x[:2]]) == pytest.approx(1)
    with pytest.raises(TaskError, match="as many of each"):
        cka(x, x[:5])
    with pytest.raises(TaskError, match="at least 4"):
        hsic(np.eye(3), np.eye(3))


def test_block_null_is_fair_for_frames_that_resemble_their_neighbours():
    """Independent smooth states: the block null rejects about as often as it says, shuffled frames far too often."""
    rng = np.random.default_rng(5)
    by_blocks, by_frames = [], []
    for seed in range(50):
        x, y = smooth(180, 4, rng), smooth(180, 4, rng)
        by_blocks.append(block_null(x, y, 30, 40, seed).p_value < 0.1)
        by_frames.append(block_null(x, y, 1, 40, seed).p_value < 0.1)
    assert np.mean(by_blocks) < 0.25
    assert np.mean(by_frames) > 0.5


def test_block_null_finds_what_is_alike():
    x = [smooth(120, 4, RNG), smooth(90, 4, RNG)]
    found = block_null(x, [s + 0.5 * RNG.standard_normal(s.shape) for s in x], 20, 99)
    assert found.p_value == pytest.approx(0.01)
    assert found.value > found.null.max()
    with pytest.raises(TaskError, match="at least 1"):
        block_null(x, x, 0)
