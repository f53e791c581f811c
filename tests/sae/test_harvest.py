"""A harvest writes each frame of each recording once, whatever happens to it on the way."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from otoscope.audio.clip import Clip
from otoscope.audio.files import write
from otoscope.engine.model import Model
from otoscope.errors import AudioError, ModelError, RunError
from otoscope.runs import files
from otoscope.sae import harvest as harvests
from otoscope.sae.harvest import Harvest
from otoscope.sae.mixing import Mixture, Noise, mixture
from otoscope.sae.recordings import find
from otoscope.sae.store import Store
from tests import tiny
from tests.sae.corpus import RATE, phone_at, write_corpus

ROOT = Path(__file__).resolve().parents[2]
SITES = ["encoder.0.resid_post", "encoder.1.mlp_post", "frontend.1.conv_out"]
SITE = SITES[0]


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny.build("whisper")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("data") / "corpus", n=9)


@pytest.fixture
def small_shards(monkeypatch):
    """Shards of two or three of the sounds."""
    monkeypatch.setattr(harvests, "_LARGEST_SHARD", 15_000)


def _mixture(corpus: Path, **options) -> Mixture:
    return mixture([find(corpus)], **options)


def _digests(folder: Path) -> dict[str, str]:
    """Every file of a store with its SHA-256."""
    found = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


def test_every_frame_is_stored_once_with_what_is_known_of_it(model, corpus, tmp_path, small_shards):
    harvest = Harvest(model, _mixture(corpus), SITES, tmp_path)
    expected = harvest.expected()
    assert expected.n_shards > 2
    done = harvest.run()
    assert done.frames == expected.frames
    recordings = {r.name: r for r in find(corpus)}
    for site in SITES:
        store = Store(tmp_path, site)
        assert sorted(u.name for u in store.utterances) == sorted(recordings)
        assert store.n_frames == done.frames[site] == sum(u.n_frames for u in store.utterances)
        phones, speakers, silent = store.labels("phone"), store.labels("speaker"), store.silent()
        for u in store.utterances:
            x, number, time = store.frames(u.number)
            clip = recordings[u.name].clip()
            pieces = harvest.listener.pieces(len(clip))
            naive = []
            for piece in pieces:
                part = Clip(clip.samples[piece], RATE)
                stack, layer = site.split(".")[0], int(site.split(".")[1])
                n = model.clock(stack, len(part), layer).n_valid
                naive.append(model.capture(model.inputs(part), [site])[site][0, :n])
            assert torch.allclose(x, torch.cat(naive), atol=1e-5)
            assert (number == u.number).all()
            at = harvest.listener.times(harvest.listener.axes[harvest.listener.sites[SITES.index(site)]], len(clip))
            assert np.allclose(time, at, atol=1e-5)
            own = slice(u.first, u.first + u.n_frames)
            i = int(u.name[1:])
            said = [phone_at(i, float(t)) for t in at]
            assert [phones.names[c] if c >= 0 else None for c in phones.codes[own]] == said
            assert list(silent[own]) == [u.has_phones and p is None for p in said]
            assert {speakers.names[c] for c in speakers.codes[own]} == {f"s{i % 3}"}
            assert (u.text, u.corpus, u.digest) == (f"number {i}", "corpus", clip.digest())


def test_half_precision_takes_half_the_space(model, corpus, tmp_path):
    Harvest(model, _mixture(corpus), [SITE], tmp_path / "a").run()
    Harvest(model, _mixture(corpus), [SITE], tmp_path / "b", dtype="float16").run()
    a, b = Store(tmp_path / "a"), Store(tmp_path / "b")
    assert torch.allclose(a.frames(0).x, b.frames(0).x, rtol=1e-3, atol=1e-3)
    assert b.frames(0).x.dtype == torch.float32
    size = [next((tmp_path / n).glob(f"shards/*.{SITE}.safetensors")).stat().st_size for n in "ab"]
    assert size[1] < 0.6 * size[0]


def test_noise_and_weights_are_part_of_what_is_stored(model, corpus, tmp_path):
    noisy = _mixture(corpus, noises=(Noise(1.0, (0.0, 0.0)),))
    Harvest(model, noisy, [SITE], tmp_path).run()
    store = Store(tmp_path)
    assert all(u.noise is not None and u.noise.endswith("at 0.00 dB") for u in store.utterances)
    u = store.utterances[0]
    take = next(t for t in noisy.takes() if t.recording.name == u.name)
    clip = take.sound(RATE).clip
    n = min(u.n_frames, 50)
    part = Clip(clip.samples[: RATE if len(clip) <= RATE else len(clip)], RATE)
    if len(clip) <= RATE:
        expected = model.capture(model.inputs(part), [SITE])[SITE][0, :n]
        assert torch.allclose(store.frames(0).x[:n], expected, atol=1e-5)


# -- stopped, and going on ---------------------------------------------------------------------------------------------

_SLOW = """
import sys, time
from pathlib import Path
from otoscope.sae import harvest as harvests
from otoscope.sae.harvest import Harvest
from otoscope.sae.mixing import mixture
from otoscope.sae.recordings import find
from tests import tiny
harvests._LARGEST_SHARD = 15_000
made = Harvest(tiny.build("whisper"), mixture([find(Path(sys.argv[1]))]), {sites!r}, Path(sys.argv[2]))
def slow(done, total):
    print(made.expected().n_done, flush=True); time.sleep(0.05)
made.run(progress=slow)
"""


def _run(corpus: Path, out: Path) -> subprocess.Popen[str]:
    environ = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _SLOW.format(sites=SITES), str(corpus), str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ)


def test_a_killed_harvest_goes_on_to_the_same_bytes(corpus, tmp_path):
    whole, killed = _run(corpus, tmp_path / "whole"), _run(corpus, tmp_path / "killed")
    assert killed.stdout is not None
    for line in killed.stdout:
        if int(line) >= 2:
            killed.send_signal(signal.SIGKILL)
            break
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "index.json").exists()
    with pytest.raises(RunError, match="is not finished: run the same command again"):
        Store(tmp_path / "killed")
    finished = {p: p.stat().st_mtime_ns for p in (tmp_path / "killed" / "shards").glob("0000[01].*")}
    assert len(finished) == 12  # for each shard three sites, two axes and its note
    # what a kill in the middle of a write leaves
    (tmp_path / "killed" / "shards" / f"{files.TEMPORARY}half").write_bytes(b"half")
    again = _run(corpus, tmp_path / "killed")
    done = [int(line) for line in again.communicate()[0].split()]
    assert again.returncode == 0
    assert done[0] >= 2, "it goes on, and does not begin again"
    assert finished == {p: p.stat().st_mtime_ns for p in finished}, "finished shards are not written anew"
    whole.communicate()
    assert _digests(tmp_path / "killed") == _digests(tmp_path / "whole")
    names = [u.name for u in Store(tmp_path / "killed", SITE).utterances]
    assert sorted(names) == sorted(r.name for r in find(corpus)), "none is lost, none is there twice"


def test_a_truncated_or_altered_shard_is_named_and_made_anew(model, corpus, tmp_path, small_shards):
    def harvest():
        return Harvest(model, _mixture(corpus), [SITE], tmp_path)

    harvest().run()
    before = _digests(tmp_path)
    path = tmp_path / "shards" / f"00001.{SITE}.safetensors"
    data = path.read_bytes()
    first = next(u.number for u in Store(tmp_path).utterances if u.shard == 1)

    path.write_bytes(data[:-100])
    with pytest.raises(RunError, match=r"00001.*has \d+ bytes where its index says \d+: delete .*00001\.\* and run"):
        Store(tmp_path).frames(first)
    assert harvest().run().seconds_of_sound > 0
    assert _digests(tmp_path) == before

    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    Store(tmp_path).frames(0)  # the other shards are as they were
    with pytest.raises(RunError, match=r"00001.*is not what was written \(its SHA-256 differs\)"):
        Store(tmp_path).verify()
    for part in (tmp_path / "shards").glob("00001.*"):  # as the sentence says
        part.unlink()
    harvest().run()
    assert _digests(tmp_path) == before
    assert harvest().run().seconds_of_sound == 0, "nothing is heard again where all is there"


def test_a_full_disk_is_one_sentence_and_keeps_the_shards_before(model, corpus, tmp_path, small_shards, monkeypatch):
    real, calls = os.replace, []

    def replace(*args):
        calls.append(args)
        if len(calls) > 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args)

    monkeypatch.setattr(files.os, "replace", replace)
    with pytest.raises(RunError, match="the disk is full"):
        Harvest(model, _mixture(corpus), [SITE], tmp_path).run()
    monkeypatch.undo()
    monkeypatch.setattr(harvests, "_LARGEST_SHARD", 15_000)
    harvest = Harvest(model, _mixture(corpus), [SITE], tmp_path)
    assert harvest.expected().n_done == 1
    harvest.run()
    Store(tmp_path).verify()

    usage = harvests.shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(harvests.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(RunError, match=r"has 0\.00 GB free and the harvest needs about"):
        Harvest(model, _mixture(corpus), [SITE], tmp_path / "other").run()


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_a_sound_shorter_than_a_frame_is_skipped_and_named(model, corpus, tmp_path):
    write(tmp_path / "blip.wav", Clip(np.full(100, 0.1, np.float32), RATE))
    told: list[str] = []
    done = Harvest(model, mixture([[*find(corpus), *find(tmp_path / "blip.wav")]]), [SITE], tmp_path / "a").run(
        notify=told.append
    )
    assert list(done.skipped) == ["blip"]
    assert "lasts 6 ms, shorter than one frame" in done.skipped["blip"]
    assert told == [f"skipped: 'blip' {done.skipped['blip']}"]
    assert done.n_utterances == 9
    with pytest.raises(RunError, match=r"none of the 1 recordings could be heard .*shorter than one frame"):
        Harvest(model, mixture([find(tmp_path / "blip.wav")]), [SITE], tmp_path / "b").run()


def test_nan_is_one_sentence_wherever_it_comes_from(corpus, tmp_path):
    broken = tiny.build("whisper")
    with torch.no_grad():
        broken.hf.model.encoder.layers[1].fc2.bias[3] = float("nan")
    with pytest.raises(ModelError, match=r"encoder\.1\.resid_post of tiny-whisper is NaN or infinite for 'u\d'"):
        Harvest(broken, _mixture(corpus), ["encoder.1.resid_post"], tmp_path / "a").run()
    assert not list((tmp_path / "a" / "shards").glob("*.safetensors"))
    import soundfile

    samples = np.full(8000, 0.1, np.float32)
    samples[7] = np.nan
    soundfile.write(tmp_path / "bad.wav", samples, RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"bad\.wav"):
        Harvest(broken, mixture([find(tmp_path / "bad.wav")]), ["encoder.0.resid_post"], tmp_path / "b").run()


def test_what_half_precision_cannot_hold_is_said(corpus, tmp_path):
    loud = tiny.build("whisper")
    with torch.no_grad():
        loud.hf.model.encoder.layers[0].fc2.bias[3] = 1e6
    with pytest.raises(ModelError, match=r"encoder\.0\.resid_post .* reaches 1e\+06 .* store float32"):
        Harvest(loud, _mixture(corpus), [SITE], tmp_path, dtype="float16").run()


def test_another_harvest_in_the_folder_is_refused(model, corpus, tmp_path):
    Harvest(model, _mixture(corpus), [SITE], tmp_path).run()
    for other, said in (
        (Harvest(model, _mixture(corpus), ["encoder.1.resid_post"], tmp_path), "sites is"),
        (Harvest(model, _mixture(corpus, seed=1), [SITE], tmp_path), "other recordings, labels, weights"),
        (Harvest(tiny.build("whisper", seed=5), _mixture(corpus), [SITE], tmp_path), "weights is"),
    ):
        with pytest.raises(RunError, match=rf"holds another harvest \({said}"):
            other.run()
    with pytest.raises(RunError, match="cannot be stored as 'int8': choose float32 or float16"):
        Harvest(model, _mixture(corpus), [SITE], tmp_path, dtype="int8")


def test_memory_decides_how_much_is_held_before_it_is_written(model, corpus, tmp_path):
    sizes = []
    for memory in (0.0016, 2.0):
        out = tmp_path / str(memory)
        Harvest(model, _mixture(corpus), SITES, out, memory_gb=memory).run()
        notes = [json.loads(p.read_text())["files"] for p in sorted((out / "shards").glob("*.json"))]
        sizes.append([sum(f["bytes"] for name, f in files.items() if ".frames." not in name) for files in notes])
    tight, wide = sizes
    assert len(wide) == 1
    assert len(tight) > 1
    headers = 4_000
    assert max(tight) <= 0.0016e9 * harvests._SHARD_SHARE + headers < wide[0]


def test_memory_that_does_not_suffice_is_said_before_anything_is_heard(corpus, tmp_path):
    model = tiny.build("hubert-base")
    write(tmp_path / "long.wav", Clip(np.full(20 * RATE, 0.1, np.float32), RATE))
    tight = {"sites": ["encoder.1.resid_post"], "memory_gb": 0.2}
    Harvest(model, _mixture(corpus), out=tmp_path / "a", **tight)  # its sounds are short
    with pytest.raises(RunError, match=r"do not suffice for tiny-hubert, .* to hear 20 s at once: raise --memory-gb"):
        Harvest(model, mixture([find(tmp_path / "long.wav")]), out=tmp_path / "b", **tight)
    with pytest.raises(RunError, match=r"long\.wav needs about 0\.0038 GB to be decoded, more than half of"):
        Harvest(model, mixture([find(tmp_path / "long.wav")]), tight["sites"], tmp_path / "b", memory_gb=0.005)
