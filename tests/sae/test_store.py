"""A store gives back what was harvested: in order, at random, in views, and in windows where memory is short."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from otoscope.errors import RunError, SiteError
from otoscope.sae import harvest as harvests
from otoscope.sae.harvest import Harvest
from otoscope.sae.mixing import mixture
from otoscope.sae.moments import Moments, merged
from otoscope.sae.normalise import Normaliser
from otoscope.sae.recordings import find
from otoscope.sae.store import Store
from tests import tiny
from tests.sae.corpus import write_corpus

SITE = "encoder.1.resid_post"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Activations of nine sounds in several shards, at an encoder's site and at a decoder's."""
    made = tmp_path_factory.mktemp("store")
    corpus = write_corpus(made / "corpus", n=9)
    largest, harvests._LARGEST_SHARD = harvests._LARGEST_SHARD, 15_000
    try:
        short = [r for r in find(corpus) if r.seconds <= 1]  # a decoder's sound must fit into one window
        Harvest(tiny.build("whisper"), mixture([short]), [SITE, "decoder.1.resid_post"], made / "acts").run()
    finally:
        harvests._LARGEST_SHARD = largest
    return made / "acts"


@pytest.fixture
def store(folder) -> Store:
    return Store(folder, SITE)


def _all(store: Store) -> torch.Tensor:
    return torch.cat([store.frames(u.number).x for u in store.utterances])


def _sorted(x: torch.Tensor) -> np.ndarray:
    rows = x.numpy()
    return rows[np.lexsort(rows.T)]


def test_batches_hold_every_frame_once_with_its_place(store):
    made = list(store.batches(16, seed=1, epochs=1))
    assert np.array_equal(_sorted(torch.cat([b.x for b in made])), _sorted(_all(store)))
    batch = made[0]
    for x, utterance, time in zip(*batch):
        own = store.frames(int(utterance))
        at = int((own.time - time).abs().argmin())
        assert torch.equal(own.x[at], x)


def test_little_memory_gives_windows_of_shards_and_still_every_frame_once(folder, store):
    tight = Store(folder, SITE, memory_gb=1e-5)
    n_windows = len(tight._epoch(0)(0))
    assert n_windows > 1
    assert np.array_equal(_sorted(torch.cat([b.x for b in tight.batches(16, epochs=1)])), _sorted(_all(store)))
    orders = [tuple(w._shards[0] for w in tight._epoch(0)(epoch)) for epoch in range(8)]
    assert len(set(orders)) > 1, "windows are drawn anew in every epoch"
    whole = list(islice(tight.batches(16, seed=3), 12))
    for a, b in zip(whole[7:], islice(tight.batches(16, seed=3, start=7), 5), strict=True):
        assert torch.equal(a.x, b.x)
    lag = list(tight.pairs(8, 0.04, epochs=1))
    assert all(torch.allclose(p.now.time - p.before.time, torch.tensor(0.04), atol=1e-4) for p in lag)
    assert all(torch.equal(p.now.utterance, p.before.utterance) for p in lag)


def test_a_subset_has_its_own_frames_and_labels_only(store):
    chosen = [u.number for u in store.utterances if u.speaker == "s1"]
    view = store.subset(chosen)
    assert 0 < view.n_frames < store.n_frames
    assert {u.speaker for u in view.utterances} == {"s1"}
    assert np.array_equal(_sorted(torch.cat([b.x for b in view.batches(16, epochs=1)])), _sorted(_all(view)))
    whole = store.labels("phone")
    rows = np.concatenate([np.arange(u.first, u.first + u.n_frames) for u in store.utterances if u.number in chosen])
    own = view.labels("phone")
    assert [own.names[c] if c >= 0 else None for c in own.codes] == [
        whole.names[c] if c >= 0 else None for c in whole.codes[rows]
    ]
    assert np.array_equal(view.times(), store.times()[rows])
    tight = Store(store.path, SITE, memory_gb=1e-5).subset(chosen)
    assert np.array_equal(_sorted(torch.cat([b.x for b in tight.batches(16, epochs=1)])), _sorted(_all(view)))
    with pytest.raises(RunError, match="has no utterance 99: its utterances are 0 to"):
        store.subset([99])


def test_moments_and_normalisation_are_those_of_all_frames(store):
    x = _all(store).double()
    made = store.moments()
    assert made.n == len(x)
    assert torch.allclose(made.mean, x.mean(0))
    assert torch.allclose(made.variance, x.var(0, unbiased=False))
    assert float(made.norm) == pytest.approx(float(x.norm(dim=1).mean()))
    for kind in ("standard", "scale", "sqrt_d", "none"):
        ours, other = store.normalisation(kind), Normaliser.fit([_all(store)], kind)
        assert torch.allclose(ours.mean, other.mean, atol=1e-5)
        assert ours.scale == pytest.approx(other.scale, rel=1e-5)


def test_moments_join_exactly_where_squares_would_cancel():
    x = torch.randn(4000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 1e6
    made = merged(Moments.of(part) for part in x.split(317))
    assert torch.allclose(made.variance, x.var(0, unbiased=False), rtol=1e-9)
    naive = x.float().square().mean(0) - x.float().mean(0).square()
    assert not torch.allclose(naive.double(), x.var(0, unbiased=False), rtol=0.1)


def test_labels_of_manifests_and_what_is_unknown(store):
    sex = store.labels("sex")
    assert sex.names == ["female"]
    by_name = {u.name: set(sex.codes[u.first : u.first + u.n_frames]) for u in store.utterances}
    assert (by_name["u1"], by_name["u0"]) == ({0}, {-1})
    assert set(store.labels("word").names) <= {"ash", "tar"}
    with pytest.raises(
        RunError, match=r"no utterance of .* has the label 'age': there are phone, word, speaker, corpus, sex"
    ):
        store.labels("age")


def test_tokens_of_a_decoder(folder, store):
    read = Store(folder, "decoder.1.resid_post")
    assert read.frame_rate is None
    assert len(read.tokens()) == read.n_frames
    assert np.isnan(read.times()).all()
    with pytest.raises(RunError, match="are frames of sound, which are no tokens"):
        store.tokens()
    with pytest.raises(RunError, match="tokens, which have no lag"):
        read.pairs(8, 0.1)


def test_utterances_by_name_and_number(store):
    u = store.utterance("u1")
    assert store.utterance(u.number) == u
    assert torch.equal(store.frames("u1").x, store.frames(u.number).x)
    with pytest.raises(RunError, match="has no utterance 'u77'"):
        store.frames("u77")


def test_folders_and_sites_that_cannot_be_used(folder, tmp_path):
    with pytest.raises(RunError, match="holds no activations: expected a folder that `otoscope sae harvest"):
        Store(tmp_path)
    with pytest.raises(SiteError, match=r"holds several sites: name one of encoder\.1\.resid_post, decoder"):
        _ = Store(folder).site
    with pytest.raises(SiteError, match=r"does not hold 'encoder\.9\.z'"):
        Store(folder, "encoder.9.z")
    index = json.loads((folder / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps(index | {"format": 7}))
    with pytest.raises(RunError, match="has the format 7 and this version reads 1"):
        Store(tmp_path)
