"""The probing study: planted labels are found where they are, nulls stay silent, runs resume, bad requests are refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from otoscope.audio.clip import Clip, Span
from otoscope.engine.model import Model
from otoscope.errors import TaskError
from otoscope.methods.frames import MEL, pooled
from otoscope.methods.probes import held_out
from otoscope.studies.probe import ProbeConfig, claims, metrics
from otoscope.studies.probe_labels import Labelled, labelled
from otoscope.studies.probe_run import layer_numbers, probe, tables
from tests.tiny import build

#: so few seeds and folds that a test takes seconds
QUICK = ProbeConfig(seeds=(0, 1), folds=3, mlp=False, similarity=False)


def tone(seed: int, high: bool) -> Clip:
    """A tone in noise: low or high, of random loudness."""
    rng = np.random.default_rng(seed)
    t = np.arange(8000) / 16000
    wave = np.sin(2 * np.pi * (2500 if high else 400) * t * rng.uniform(0.95, 1.05))
    samples = rng.uniform(0.1, 0.4) * wave + 0.02 * rng.standard_normal(8000)
    return Clip(samples.astype(np.float32), 16000, name=f"tone-{seed}")


@pytest.fixture(scope="module")
def model() -> Model:
    return build("whisper")


@pytest.fixture(scope="module")
def tones() -> Labelled:
    high = [bool(i % 2) for i in range(36)]
    return Labelled(
        "register",
        tuple(tone(i, h) for i, h in enumerate(high)),
        tuple("high" if h else "low" for h in high),
        tuple(f"s{i // 4}" for i in range(36)),
    )


def test_a_label_that_is_in_the_sound_is_read_from_every_layer(model, tones):
    found = probe(model, tones, config=QUICK).found
    assert list(found.readings) == [MEL, "encoder.0.resid_pre", *(f"encoder.{k}.resid_post" for k in range(3))]
    values = metrics(found)
    assert values["accuracy.mel"].low > 0.9  # type: ignore[union-attr]
    assert values["accuracy"].low > 0.9  # type: ignore[union-attr]
    verdicts = {claim.id: claim.verdict for claim in claims(found)}
    assert verdicts["readable"] == "supported"
    # the model is as untrained as its null, so nothing was learned, and the spectrogram tells as much
    assert verdicts["learned"] != "supported"
    assert verdicts["beyond-mel"] != "supported"


def test_random_labels_are_read_from_nowhere(model, tones):
    values = np.random.default_rng(1).permutation(tones.values)
    found = probe(model, replace(tones, values=tuple(values)), config=QUICK).found
    assert all(reading.linear.accuracy().low < 0.5 for reading in found.readings.values())
    assert {claim.verdict for claim in claims(found) if claim.id == "readable"} != {"supported"}
    assert found.readings[found.best].compression < 1.1


def test_frames_are_labelled_by_their_moment(model):
    """Each clip is low in its first half and high in its second."""
    clips, spans = [], []
    for i in range(12):
        both = np.concatenate([tone(2 * i, False).samples, tone(2 * i + 1, True).samples])
        clips.append(Clip(both[:16000], 16000))
        spans.append((Span(0.0, 0.5, "low"), Span(0.5, 1.0, "high")))
    words = tuple((Span(0.0, 1.0, f"w{i % 3}"),) for i in range(12))
    data = Labelled("register", tuple(clips), (), tuple(f"s{i // 2}" for i in range(12)), tuple(spans), words)
    found = probe(model, data, config=replace(QUICK, frames=20)).found
    assert len(found.rows) == 12 * 20
    assert set(found.rows.types) == {"w0", "w1", "w2"}
    assert found.readings[found.best].linear.accuracy().low > 0.8
    # a random label per word says nothing of the moment
    assert found.readings[found.best].selectivity.low > 0.2  # type: ignore[union-attr]


def test_a_run_holds_its_tables_and_goes_on_where_it_stopped(model, tones, tmp_path, monkeypatch):
    config = replace(QUICK, seeds=(0,), mlp=True, similarity=True)
    done = probe(model, tones, config=config, layers=[1], against=build("whisper", seed=3), out=tmp_path / "run")
    assert done.results == json.loads((tmp_path / "run" / "results.json").read_text())
    assert {"layers.csv", "untrained.csv", "rows.csv", "similarity.other.csv"} <= {
        p.name for p in (tmp_path / "run" / "tables").iterdir()
    }
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Is the probe selective?" in page
    assert "How alike are the layers?" in page

    def fail(*args, **kwargs):
        raise AssertionError("computed again")

    monkeypatch.setattr("otoscope.studies.probe.collect", fail)
    monkeypatch.setattr("otoscope.studies.probe.read", fail)
    again = probe(model, tones, config=config, layers=[1], against=build("whisper", seed=3), out=tmp_path / "run")
    assert again.results == done.results
    assert tables(again.found) == tables(done.found)


def test_layers_are_alike_with_themselves(model, tones):
    config = replace(QUICK, seeds=(0,), similarity=True)
    alike = probe(model, tones, config=config, layers=[0, 2]).found.similarity["layers"]
    assert np.allclose(np.diag(alike.value), 1.0)
    assert np.all(alike.value <= 1.0)


def test_layers_are_numbers_and_ranges():
    assert layer_numbers("0,2-3") == [0, 2, 3]
    assert layer_numbers(None) is None
    with pytest.raises(TaskError, match="names no layers"):
        layer_numbers("last")


def test_what_cannot_be_probed_is_refused(model, tones, tmp_path):
    with pytest.raises(TaskError, match="no encoder layer 7"):
        probe(model, tones, layers=[7])
    with pytest.raises(TaskError, match="is not there"):
        labelled("sex", tmp_path / "nowhere")
    with pytest.raises(TaskError, match="no label 'mood'"):
        labelled("mood", tmp_path)


def test_any_column_of_a_manifest_is_a_label(tmp_path):
    rows = ["path\tmood\tspeaker"]
    for i in range(4):
        soundfile.write(tmp_path / f"{i}.wav", tone(i, False).samples, 16000)
        rows.append(f"{i}.wav\t{'glad' if i % 2 else 'sad'}\ts{i}")
    (tmp_path / "manifest.tsv").write_text("\n".join(rows))
    made = labelled("mood", tmp_path)
    assert made.values == ("sad", "glad", "sad", "glad")
    assert made.groups == ("s0", "s1", "s2", "s3")
    (tmp_path / "manifest.tsv").write_text("\n".join(row.replace("sad", "glad") for row in rows))
    with pytest.raises(TaskError, match="at least two labels"):
        labelled("mood", tmp_path)


@pytest.mark.data
def test_noise_is_added_at_the_recordings_own_level(shared_data):
    made = labelled("noise", shared_data, n=8, snr_db=5.0)
    assert made.values == ("clean",) * 4 + ("noisy",) * 4
    for clean, noisy in zip(made.clips[:4], made.clips[4:]):
        assert noisy.rms == pytest.approx(clean.rms, rel=1e-4)
        share = np.dot(noisy.samples, clean.samples) / np.dot(clean.samples, clean.samples)
        rest = noisy.samples - share * clean.samples
        assert 10 * np.log10(np.sum((share * clean.samples) ** 2) / np.sum(rest**2)) == pytest.approx(5.0, abs=0.5)


@pytest.mark.data
@pytest.mark.weights
def test_languages_are_told_apart(shared_data, whisper_tiny_en):
    """Twenty languages, a few words of each (tests only, by the corpus's licence)."""
    import otoscope

    made = labelled("lang", shared_data / "voxangeles", n=60)
    assert len(set(made.values)) == 20
    assert "speakers may be on both sides" in made.notes[0]
    model = otoscope.load(str(whisper_tiny_en))
    x = pooled(model, made.clips, model.sites("encoder.1.resid_post"), mel=False).values["encoder.1.resid_post"]
    y, groups = np.array(made.values), np.array(made.speakers)
    found = held_out(x, y, groups, groups, seeds=(0,), folds=3).accuracy()
    assert found.low > 0.15  # chance is 0.05
    assert (
        held_out(x, np.random.default_rng(0).permutation(y), groups, groups, seeds=(0,), folds=3).accuracy().value
        < 0.15
    )
