"""Counting what features do: planted codes are found again, parts merge to the whole, and silence stays silent."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from otoscope.errors import ModelError
from otoscope.sae.activity import Activity, Watch, merged
from otoscope.sae.codes import Codes

N, FRAMES = 6, 40


def recording(i: int) -> tuple[np.ndarray, np.ndarray, list[str | None]]:
    """Activations, dense codes and phones: feature 0 is active in S alone, 1 in a random third, 2 to 4 rarely, 5 never."""
    rng = np.random.default_rng(i)
    phones: list[str | None] = [str(p) for p in rng.choice(["S", "AA", "T"], FRAMES)]
    dense = np.zeros((FRAMES, N), np.float32)
    dense[:, 0] = [1 + rng.random() if p == "S" else 0 for p in phones]
    dense[:, 1] = (rng.random(FRAMES) < 1 / 3) * rng.random(FRAMES)
    for f in (2, 3, 4):
        dense[rng.integers(FRAMES), f] = 0.1 + rng.random()
    return rng.standard_normal((FRAMES, 5)).astype(np.float32) + 3, dense, phones


def watched(members: list[int], seed: int = 0, top: int = 3, random: int = 2) -> Activity:
    watch = Watch(N, top, random, seed)
    for i in members:
        x, dense, phones = recording(i)
        codes = Codes.of_dense(torch.from_numpy(dense))
        watch.add(i, x, codes, np.arange(FRAMES) * 0.02, {"phone": phones, "speaker": [f"s{i % 2}"] * FRAMES})
    return watch.activity()


def test_what_was_planted_is_counted() -> None:
    found = watched(list(range(8)))
    dense = np.concatenate([recording(i)[1] for i in range(8)])
    assert found.n_frames == 8 * FRAMES
    np.testing.assert_array_equal(found.active, (dense > 0).sum(0))
    np.testing.assert_allclose(found.total, dense.sum(0), rtol=1e-6)
    np.testing.assert_allclose(found.strongest, dense.max(0), rtol=1e-6)
    assert found.tallies["phone"].of(0) == [("S", int(found.active[0]))]
    assert found.tallies["phone"].of(5) == []
    assert sum(found.tallies["phone"].frames) == 8 * FRAMES


def test_the_null_feature_has_the_labels_of_all_frames() -> None:
    """A feature that fires at random has each phone as often as the frames do."""
    found = watched(list(range(60)))
    tally = found.tallies["phone"]
    share = {name: n / found.active[1] for name, n in tally.of(1)}
    for name, frames in zip(tally.names, tally.frames):
        assert share[name] == pytest.approx(frames / found.n_frames, abs=0.06)


def test_moments_are_the_strongest_of_their_recordings() -> None:
    found = watched(list(range(8)))
    for feature in range(5):
        best = sorted((float(recording(i)[1][:, feature].max()) for i in range(8)), reverse=True)[:3]
        np.testing.assert_allclose(found.top.value[feature], best, rtol=1e-6)
        assert len(set(found.top.recording[feature])) == 3
        for group in (found.top, found.random):
            for value, i, time in zip(group.value[feature], group.recording[feature], group.time[feature]):
                assert recording(int(i))[1][round(time / 0.02), feature] == pytest.approx(value)
                assert value > 0
    assert (found.top.recording[5] == -1).all()
    assert found.strongest[5] == 0


def test_parts_merge_to_the_whole() -> None:
    whole = watched(list(range(8)))
    parts = merged([Activity.of_plain(watched(list(m)).plain()) for m in (range(3), range(3, 7), range(7, 8))])
    for name in ("active", "total", "centre"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-9)
    np.testing.assert_allclose(parts.top.value, whole.top.value)
    assert parts.spread == pytest.approx(whole.spread)
    for kind in ("phone", "speaker"):
        for feature in range(N):
            assert dict(parts.tallies[kind].of(feature)) == dict(whole.tallies[kind].of(feature))


def test_the_spread_is_that_of_the_frames() -> None:
    x = np.concatenate([recording(i)[0] for i in range(8)]).astype(float)
    expected = np.sqrt(((x - x.mean(0)) ** 2).sum(1).mean())
    assert watched(list(range(8))).spread == pytest.approx(expected, rel=1e-6)


def test_entries_of_value_0_do_not_count() -> None:
    """TopK writes k entries for every frame, some of them 0."""
    watch = Watch(3)
    codes = Codes.of_top_k(torch.tensor([[1.0, 0.0]]), torch.tensor([[0, 2]]))
    watch.add(0, np.ones((1, 2)), codes, np.zeros(1), {})
    assert watch.activity().active.tolist() == [1, 0, 0]


def test_unequal_frames_are_refused() -> None:
    codes = Codes.of_dense(torch.ones(2, 3))
    with pytest.raises(ModelError, match="phone of recording 7"):
        Watch(3).add(7, np.ones((2, 2)), codes, np.zeros(2), {"phone": ["S"]})
    with pytest.raises(ModelError, match="at least one recording"):
        merged([])
