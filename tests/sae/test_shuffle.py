"""Batches: every frame once, every order equally likely, and the same from any number on."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import numpy as np
import pytest
import torch
from scipy import stats

from otoscope.errors import RunError
from otoscope.sae.ahead import ahead
from otoscope.sae.batch import Batch
from otoscope.sae.shuffle import batches, pairs

RATE = 50.0


@dataclass
class Frames:
    """Utterances of given lengths; the value of a frame is (utterance, number within it)."""

    lengths: dict[int, int]

    @property
    def n_frames(self) -> int:
        return sum(self.lengths.values())

    def places(self):
        utterance = np.repeat(list(self.lengths), list(self.lengths.values()))
        time = np.concatenate([np.arange(n) for n in self.lengths.values()]) / RATE
        return utterance, time.astype(np.float32)

    def load(self) -> Batch:
        utterance, time = self.places()
        x = np.stack([utterance, np.round(time * RATE)], 1).astype(np.float32)
        return Batch(torch.from_numpy(x), torch.from_numpy(utterance), torch.from_numpy(time))


CHUNKS = [Frames({0: 7, 1: 12}), Frames({2: 1, 3: 30}), Frames({4: 9})]
ALL = sorted((u, i) for chunk in CHUNKS for u, n in chunk.lengths.items() for i in range(n))


def _keys(batch: Batch) -> list[tuple[int, int]]:
    assert torch.equal(batch.x[:, 0].long(), batch.utterance)
    assert torch.allclose(batch.x[:, 1], batch.time * RATE, atol=1e-3)
    return [(int(u), int(i)) for u, i in batch.x]


@pytest.mark.parametrize("size", [1, 8, 59, 100])
def test_every_frame_comes_once_in_an_epoch_and_batches_have_no_gaps(size):
    made = list(batches(lambda epoch: CHUNKS, size, seed=1, epochs=2))
    assert all(len(b.x) == size for b in made[:-1])
    keys = [key for batch in made for key in _keys(batch)]
    assert len(ALL) == 59
    assert sorted(keys[:59]) == ALL
    assert sorted(keys[59:]) == ALL
    assert keys[:59] != keys[59:], "each epoch has its own order"


@pytest.mark.parametrize("start", [0, 1, 6, 7, 8, 20])
def test_what_follows_a_batch_does_not_depend_on_where_one_begins(start):
    whole = islice(batches(lambda epoch: CHUNKS, 8, seed=2), start, start + 9)
    later = islice(batches(lambda epoch: CHUNKS, 8, seed=2, start=start), 9)
    for a, b in zip(whole, later, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b))


def test_every_place_is_equally_likely():
    chunk = [Frames({0: 6})]
    seen = np.zeros((6, 6), int)
    for seed in range(600):
        (batch,) = batches(lambda epoch: chunk, 6, seed=seed, epochs=1)
        for place, (_, i) in enumerate(_keys(batch)):
            seen[i, place] += 1
    assert stats.chisquare(seen.ravel()).pvalue > 1e-4
    assert (seen > 0).all()


def test_pairs_are_a_lag_apart_and_others_are_any_of_the_utterance():
    made = list(pairs(lambda epoch: CHUNKS, 5, 0.06, RATE, seed=1, epochs=1))
    now, before, other = ([key for p in made for key in _keys(p[i])] for i in range(3))
    lengths = {u: n for chunk in CHUNKS for u, n in chunk.lengths.items()}
    assert sorted(now) == [(u, i) for u, i in ALL if i >= 3], "each frame that has a partner, once"
    assert before == [(u, i - 3) for u, i in now]
    assert all(o[0] == n[0] and o != n and o[1] < lengths[o[0]] for o, n in zip(other, now))


def test_other_frames_are_uniform_among_all_but_the_frame_itself():
    chunk = [Frames({0: 5})]
    counts = np.zeros(5, int)
    for seed in range(800):
        (made,) = pairs(lambda epoch: chunk, 8, 0.02, RATE, seed=seed, epochs=1)
        counts += np.bincount([i for (_, n), (_, i) in zip(_keys(made.now), _keys(made.other)) if n == 2], minlength=5)
    assert counts[2] == 0
    assert stats.chisquare(np.delete(counts, 2)).pvalue > 1e-4


def test_a_missing_frame_breaks_a_pair():
    class Gap(Frames):
        def places(self):
            utterance, time = super().places()
            return np.delete(utterance, 3), np.delete(time, 3)

    made = list(pairs(lambda epoch: [Gap({0: 8})], 99, 0.02, RATE, epochs=1))
    assert made[0].now.x.shape[0] == 5  # 1, 2, 5, 6, 7: neither 3, which is missing, nor 4, whose partner is


def test_what_cannot_be_made_is_one_sentence():
    with pytest.raises(RunError, match="batch 0 of 0 frames cannot be made"):
        next(batches(lambda epoch: CHUNKS, 0))
    with pytest.raises(RunError, match="there is no frame"):
        next(batches(lambda epoch: [], 5))
    with pytest.raises(RunError, match="no pair at this lag"):
        next(pairs(lambda epoch: CHUNKS, 5, 10.0, RATE))
    with pytest.raises(RunError, match="shorter than a frame of 20 ms"):
        next(pairs(lambda epoch: CHUNKS, 5, 0.001, RATE))
    with pytest.raises(RunError, match="tokens, which have no lag"):
        next(pairs(lambda epoch: CHUNKS, 5, 0.1, None))


def test_work_ahead_keeps_its_order_and_its_errors():
    started: list[int] = []

    def job(i: int) -> int:
        started.append(i)
        if i == 3:
            raise RunError("the third")
        return i

    made = ahead((lambda i=i: job(i)) for i in range(9))
    assert [next(made) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(RunError, match="the third"):
        next(made)
    assert max(started) <= 4, "one job ahead and no more"
