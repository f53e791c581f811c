"""The atlas of a tiny Whisper: a planted neuron is found with its phone, wrong labels with none; resume and report."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from otoscope.audio.clip import Clip, Span
from otoscope.engine.model import Model
from otoscope.errors import ModelError, TaskError
from otoscope.methods.controls import untrained
from otoscope.studies import atlas_run
from otoscope.studies.atlas import (
    RARELY,
    AtlasConfig,
    Found,
    Responses,
    claims,
    encoder_activity,
    metrics,
    replicated,
    shares,
    study,
)
from otoscope.studies.atlas_material import Piece, frame_families, frame_rows, pieces
from otoscope.studies.atlas_run import atlas, tables
from otoscope.studies.outcome import compute_now
from tests import tiny
from tests.methods import tiny_sentences
from tests.models.tiny_whisper import whisper

RATE = tiny_sentences.RATE
CONFIG = AtlasConfig(draws=40, n_looks=3)
#: phones and the Hz of the tone that stands for each
TONES = {"AA": 500.0, "IY": 1100.0, "M": 250.0, "S": 3000.0}
WORDS = ("the cat sat", "a mat is red", "the the hat", "it is the sun")
LAYER, NEURON, PHONE = 1, 7, "IY"
WIDER = {"d_model": 64, "encoder_attention_heads": 4, "encoder_ffn_dim": 256, "decoder_ffn_dim": 256}


def spoken(seed: int) -> Clip:
    """Eight tones of 0.1 s, in noise that is nearly as loud as they are."""
    rng = np.random.default_rng(seed)
    names = [*TONES, *TONES]
    rng.shuffle(names)
    phones = [Span(0.1 + 0.1 * k, 0.2 + 0.1 * k, name) for k, name in enumerate(names)]
    t = np.arange(RATE) / RATE
    samples = 0.08 * rng.standard_normal(RATE)
    for phone in phones:
        samples += 0.1 * np.sin(2 * np.pi * TONES[phone.text] * t) * ((t >= phone.start) & (t < phone.end))
    text = WORDS[seed % len(WORDS)]
    width = 0.8 / len(text.split())
    words = tuple(Span(0.1 + i * width, 0.1 + (i + 1) * width, word) for i, word in enumerate(text.split()))
    return Clip(
        samples.astype(np.float32),
        RATE,
        text=text,
        words=words,
        phones=tuple(phones),
        speaker=str(seed),
        name=f"s{seed}",
    )


@pytest.fixture(scope="module")
def material() -> list[Piece]:
    speech = [Piece("speech", spoken(i), str(i)) for i in range(10)]
    noisy = []
    for i, piece in enumerate(speech[:6]):
        samples = piece.clip.samples + 0.2 * np.random.default_rng(90 + i).standard_normal(RATE)
        noisy.append(Piece("noisy", piece.clip.replace(samples=samples.astype(np.float32)), piece.unit))
    return [*speech, *noisy, *(Piece("sound", tiny_sentences.clip(200 + i, 1.0), f"n{i}") for i in range(8))]


@pytest.fixture(scope="module")
def planted(material) -> Model:
    """A tiny Whisper with one neuron that reads a phone from its layer's input by least squares, on other sounds."""
    model = tiny_sentences.model()
    layer = model.hf.model.encoder.layers[LAYER]
    training = [Piece("speech", spoken(100 + i), str(i)) for i in range(30)]
    rows = frame_rows(model, training, 70)
    kept: list[torch.Tensor] = []
    hook = layer.fc1.register_forward_pre_hook(lambda _, given: kept.append(given[0][0]))
    encoder_activity(model, training, rows)
    hook.remove()
    x = torch.cat([kept[i][rows.frame[rows.piece == i]] for i in range(len(training))]).double()
    y = torch.as_tensor(rows.phone == PHONE).double()
    both = torch.cat([x, torch.ones(len(x), 1).double()], dim=1)
    weight = torch.linalg.lstsq(both, 4 * (y[:, None] - 0.2)).solution[:, 0].float()
    with torch.no_grad():
        layer.fc1.weight[NEURON], layer.fc1.bias[NEURON] = weight[:-1], weight[-1]
    return model


def mapped(model: Model, material: list[Piece], step=compute_now) -> Found:
    return study(model, material, CONFIG, step, None, lambda _: None, lambda seed: untrained(model, seed))


@pytest.fixture(scope="module")
def found(planted, material) -> Found:
    return mapped(planted, material)


def family(found: Found, stack: str, name: str) -> Responses:
    return next(r for r in found.responses if (r.stack, r.family) == (stack, name))


def test_planted_neuron_is_found_with_its_phone(found):
    phones = family(found, "encoder", "phones")
    unit, label = phones.units.index(f"encoder.{LAYER}.mlp_post.{NEURON}"), phones.labels.index(f"phone {PHONE}")
    assert phones.learned[unit, label]
    assert phones.auc[unit, label] > 0.8
    assert np.nanargmax(np.abs(phones.r[:, label])) == unit
    chosen, effect = phones.held_out(label)
    assert chosen == unit
    assert effect > 0.6
    heard = [found.frames.phone[row] for row in phones.top[label]]
    assert heard.count(PHONE) >= 2


def test_labels_of_other_sounds_are_found_with_no_unit(planted, material):
    """The same sounds with each other's phones: nothing responds to a phone, and the best units do not replicate."""
    speech = [piece for piece in material if piece.kind == "speech"]
    wrong = [
        Piece("speech", piece.clip.replace(phones=speech[(i + 1) % len(speech)].clip.phones), piece.unit)
        for i, piece in enumerate(speech)
    ]
    found = mapped(planted, [*wrong, *(piece for piece in material if piece.kind == "sound")])
    phones = family(found, "encoder", "phones")
    assert not phones.responds.any()
    assert np.mean([phones.held_out(j)[1] for j in range(len(phones.labels))]) < 0.25


def test_units_of_fresh_weights_rarely_count_as_learned(material, monkeypatch):
    """At Whisper's own initialisation; at a larger one, draws of a tiny network differ as wholes, and one draw is no null."""
    monkeypatch.setattr(
        tiny_sentences, "whisper", lambda seed, **kind: whisper(seed, **kind | {"init_std": 0.02, **WIDER})
    )
    model = untrained(tiny_sentences.model(), 50)
    found = mapped(model, material)
    assert len(family(found, "encoder", "phones").units) == 2 * (4 + 256)
    for stack in ("encoder", "decoder"):
        _, learned, passed = shares(found, stack)
        assert learned <= RARELY
        assert passed <= RARELY


def test_all_that_is_asked_for_is_there(found):
    names = {(r.stack, r.family) for r in found.responses}
    assert {("encoder", name) for name in ("phones", "silence", "padding", "noise", "sound", "word onset")} - names <= {
        ("encoder", "padding")  # a second of sound fills this model's window
    }
    assert {("decoder", name) for name in ("word onset", "end of speech", "timestamps", "repetition")} <= names
    assert len(found.looks.heads) == 2 * 2 + 3 * 4 * 2
    numbers = metrics(found)
    assert numbers["units.encoder"] == 2 * (2 + 24)
    assert numbers["units.decoder"] == 3 * (4 + 4 + 20)
    assert {"learned.encoder.phones", "fresh.decoder.repetition", "held_out_auc"} <= set(numbers)
    assert {claim.id for claim in claims(found)} == {"learned-encoder", "learned-decoder", "replicates", "alignment"}
    rows = tables(found)
    assert len(rows["labels"]) == sum(len(r.labels) for r in found.responses)
    assert all(row["p"] <= 0.05 for row in rows["units"])


def test_repetition_differs_by_what_came_before_alone(planted, found):
    """At the compared positions, a repetition and its control write the same tokens over the same sound."""
    runs = {kind: [r for r in found.runs if r.kind == kind] for kind in ("repeated", "other before")}
    assert len(runs["repeated"]) == len(runs["other before"]) > 3
    for one, other in zip(*runs.values()):
        assert one.piece == other.piece
        assert np.array_equal(one.tokens[one.start + 8 :], other.tokens[other.start + 8 :])
        assert not np.array_equal(one.tokens[one.start : one.start + 8], other.tokens[other.start : other.start + 8])


def test_replication_counts_labels_that_nothing_follows(found):
    assert replicated(found).n == sum(
        not np.isnan(r.held_out(j)[1]) for r in found.responses for j in range(len(r.labels))
    )


def test_a_run_resumes_and_its_report_can_be_searched(planted, material, tmp_path, monkeypatch):
    monkeypatch.setattr(atlas_run, "pieces", lambda *_: material)
    first = atlas(planted, config=CONFIG, out=tmp_path / "run")
    page = first.report.read_text()
    assert page.count('type="search"') == 3
    assert f"encoder.{LAYER}.mlp_post.{NEURON}" in page
    assert (tmp_path / "run" / "tables" / "units.csv").is_file()
    stored = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run" / "steps").iterdir()}
    again = atlas(planted, config=CONFIG, out=tmp_path / "run")
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run" / "steps").iterdir()} == stored
    assert again.results["metrics"] == first.results["metrics"]
    plain = atlas(planted, config=CONFIG)
    assert json.dumps(plain.results["metrics"]) == json.dumps(first.results["metrics"])
    assert plain.report is None


def test_what_cannot_be_mapped_is_refused(tmp_path):
    with pytest.raises(ModelError, match="is no Whisper"):
        atlas(tiny.build("hubert-base"), data=tmp_path)
    with pytest.raises(TaskError, match="holds no LibriSpeech"):
        pieces(tmp_path, 4, 2, 2)


@pytest.mark.data
def test_families_of_real_recordings(shared_data):
    made = pieces(shared_data, 6, 3, 4)
    assert [piece.kind for piece in made] == ["speech"] * 6 + ["noisy"] * 3 + ["sound"] * 4
    assert len({piece.unit for piece in made[:6]}) == 6
    rows = frame_rows(tiny_sentences.model(), made, 40)
    assert {f.name for f in frame_families(made, rows)} >= {"phones", "noise", "sound"}
