"""A stream gives the frames of a store without one, and goes on at any batch."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from otoscope.audio.clip import Clip
from otoscope.audio.files import write
from otoscope.errors import RunError, SiteError
from otoscope.sae.harvest import Harvest
from otoscope.sae.mixing import Noise, mixture
from otoscope.sae.normalise import Normaliser
from otoscope.sae.recordings import find
from otoscope.sae.store import Store
from otoscope.sae.stream import Stream
from otoscope.sae.train import train
from otoscope.sae.training_config import TrainingConfig
from tests import tiny
from tests.sae.corpus import write_corpus

SITE = "encoder.1.resid_post"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("data") / "corpus", n=9)


def _stream(corpus: Path, buffer: int = 90, **options) -> Stream:
    return Stream(tiny.build("whisper"), mixture([find(corpus)], **options), SITE, buffer_frames=buffer)


def test_a_stream_gives_what_a_store_holds(corpus, tmp_path):
    stream = _stream(corpus)
    Harvest(stream.model, stream.mixture, [SITE], tmp_path).run()
    store = Store(tmp_path)
    assert stream.n_frames() == store.n_frames
    assert (stream.d, stream.frame_rate, stream.site) == (store.d, store.frame_rate, store.site)
    assert len(stream._chunks(0)) > 2
    n = 0
    for x, number, time in stream.batches(32, epochs=1):
        n += len(x)
        for row, u, t in zip(x, number, time):
            own = store.frames(stream.recordings[int(u)].name)
            at = int((own.time - t).abs().argmin())
            assert abs(float(own.time[at] - t)) < 1e-4
            assert torch.allclose(own.x[at], row, atol=1e-5)
    assert n == store.n_frames
    assert len({(int(u), round(float(t), 4)) for b in stream.batches(32, epochs=1) for u, t in zip(b[1], b[2])}) == n


def test_a_stream_goes_on_at_any_batch(corpus):
    noisy = {"noises": (Noise(0.5),), "seed": 4}
    whole = list(islice(_stream(corpus, **noisy).batches(24, seed=1), 26))
    per_epoch = _stream(corpus).n_frames() / 24
    assert per_epoch < 24, "more than one epoch is compared"
    for start in (1, 13, 25):
        (later,) = islice(_stream(corpus, **noisy).batches(24, seed=1, start=start), 1)
        assert all(torch.equal(a, b) for a, b in zip(whole[start], later))


def test_buffers_before_the_start_are_not_heard(corpus, monkeypatch):
    stream = _stream(corpus)
    heard: list[str] = []
    real = stream.listener.hear
    monkeypatch.setattr(
        stream.listener, "hear", lambda clips, s: (heard.extend(c.name for c in clips), real(clips, s))[1]
    )
    late = stream.n_frames() // 24
    next(stream.batches(24, start=late - 1, epochs=1))
    assert 0 < len(heard) < 9


def test_pairs_and_normalisation(corpus):
    stream = _stream(corpus)
    for made in stream.pairs(16, 0.04, epochs=1):
        assert torch.allclose(made.now.time - made.before.time, torch.tensor(0.04), atol=1e-4)
        assert torch.equal(made.now.utterance, made.before.utterance)
    frames = torch.cat([b.x for b in stream.batches(50, epochs=1)])
    ours, other = stream.normalisation(), Normaliser.fit([frames], "standard")
    assert torch.allclose(ours.mean, other.mean, atol=1e-5)
    assert ours.scale == pytest.approx(other.scale, rel=1e-4)


def test_a_dictionary_is_trained_on_a_stream(corpus):
    config = TrainingConfig(steps=6, batch_size=32, warmup=2, log_every=3, normalise_batches=2)
    trained = train(_stream(corpus), "temporal", 64, config, k=3)
    assert trained.dictionary.metadata["hook_name"] == SITE
    assert trained.log[-1]["step"] == 6


def test_two_iterators_at_once_do_not_meet_in_the_model(corpus):
    whole = list(islice(_stream(corpus).batches(32, seed=1), 6))
    stream = _stream(corpus)
    both = list(islice(zip(stream.batches(32, seed=1), stream.batches(32, seed=2)), 6))
    assert all(torch.equal(a.x, b.x) for a, (b, _) in zip(whole, both))


def test_a_sound_shorter_than_a_frame_and_what_cannot_be_streamed(corpus, tmp_path):
    write(tmp_path / "blip.wav", Clip(np.full(100, 0.1, np.float32), 16000))
    told: list[str] = []
    model = tiny.build("whisper")
    sounds = mixture([[*find(corpus), *find(tmp_path / "blip.wav")]])
    stream = Stream(model, sounds, SITE, buffer_frames=90, notify=told.append)
    assert sum(len(b.x) for b in stream.batches(32, epochs=1)) == _stream(corpus).n_frames()
    assert len(told) == 1
    assert "blip" in told[0]
    with pytest.raises(SiteError, match="are tokens, whose number headers do not tell: harvest it instead"):
        Stream(model, sounds, "decoder.0.resid_post")
    with pytest.raises(SiteError, match="names 2 sites"):
        Stream(model, sounds, "encoder.0-1.resid_post")
    with pytest.raises(RunError, match="a buffer of 0 frames holds nothing"):
        Stream(model, sounds, SITE, buffer_frames=0)
