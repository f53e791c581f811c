"""Recordings are found with all that is known of them, and bad lists are refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from otoscope.audio.clip import Clip, Span
from otoscope.audio.files import write
from otoscope.errors import AudioError
from otoscope.sae import recordings
from otoscope.sae.recordings import find
from tests.sae.corpus import RATE, seconds, write_corpus


@pytest.fixture
def corpus(tmp_path) -> Path:
    return write_corpus(tmp_path / "corpus")


def test_a_manifest_gives_labels_and_tables_give_times(corpus):
    found = find(corpus)
    assert [r.name for r in found] == [f"u{i}" for i in range(7)]
    assert {r.corpus for r in found} == {"corpus"}
    second = found[1]
    assert (second.speaker, second.text, dict(second.labels)) == ("s1", "number 1", {"sex": "female"})
    assert second.seconds == pytest.approx(seconds(1))
    assert second.phones == (Span(0.1, 0.17, "sh"), Span(0.24, 0.31, "t"))  # the "sil" between them is left out
    assert second.words == (Span(0.1, 0.24, "tar"),)
    assert found[2].phones == ()
    clip = second.clip()
    assert (clip.phones, clip.speaker, clip.text, clip.name) == (second.phones, "s1", "number 1", "u1")


def test_files_folders_and_manifests_are_taken(corpus, tmp_path):
    one = find(corpus / "u3.wav")
    assert [r.name for r in one] == ["u3"]
    assert [r.name for r in find(corpus / "manifest.tsv")] == [f"u{i}" for i in range(7)]
    plain = tmp_path / "plain"
    (plain / "deep").mkdir(parents=True)
    write(plain / "deep" / "b.wav", Clip(np.full(800, 0.1, np.float32), RATE))
    (plain / "deep" / "b.txt").write_text("what is\nsaid")
    (found,) = find(plain, "mine")
    assert (found.name, found.corpus, found.text) == ("deep/b", "mine", "what is said")
    assert len(find([corpus, plain])) == 8


def test_a_textgrid_beside_a_file_gives_its_times(tmp_path):
    write(tmp_path / "a.wav", Clip(np.full(RATE, 0.1, np.float32), RATE))
    (tmp_path / "a.TextGrid").write_text(
        'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n1\n<exists>\n1\n"IntervalTier"\n"phones"\n0\n1\n2\n'
        '0\n0.4\n"AH"\n0.4\n1\n"sil"\n'
    )
    (found,) = find(tmp_path)
    assert found.clip().phones == (Span(0.0, 0.4, "AH"),)


def test_phones_in_a_manifest_end_at_samples(tmp_path):
    write(tmp_path / "a.wav", Clip(np.full(RATE, 0.1, np.float32), RATE))
    (tmp_path / "manifest.tsv").write_text("path\tphn\tphn_end_samples\na.wav\tdh sil ah\t1600 3200 16000\n")
    (found,) = find(tmp_path)
    assert found.phones == (Span(0.0, 0.1, "dh"), Span(0.2, 1.0, "ah"))
    (tmp_path / "manifest.tsv").write_text("path\tphn\tphn_end_samples\na.wav\tdh ah\t1600\n")
    with pytest.raises(AudioError, match=r"Row 2 of .* has 2 phones and 1 ends"):
        find(tmp_path)


def test_a_long_recording_is_taken_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(recordings, "PART_SECONDS", 1.0)
    samples = np.linspace(-0.5, 0.5, round(2.5 * RATE)).astype(np.float32)
    write(tmp_path / "long.wav", Clip(samples, RATE))
    parts = find(tmp_path / "long.wav")
    assert len(parts) == 3
    assert all(p.seconds <= 1.0 for p in parts)
    assert len({p.name for p in parts}) == 3
    joined = np.concatenate([p.clip().samples for p in parts])
    assert np.array_equal(joined, samples)
    assert [len(p.clip().resample(8000)) for p in parts] == [p.samples_at(8000) for p in parts]
    assert parts[1].start == pytest.approx(2.5 / 3, abs=1 / RATE)


def test_the_header_tells_the_length_after_resampling(tmp_path):
    for rate, n in ((8000, 12345), (44100, 9999), (16000, 777), (48000, 4801)):
        path = write(tmp_path / f"{rate}.wav", Clip(np.full(n, 0.1, np.float32), rate))
        (found,) = find(path)
        assert found.samples_at(16000) == len(found.clip().resample(16000))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda d: d / "no.wav", "There is no file"),
        (lambda d: d, "holds no sound"),
        (lambda d: _text(d / "t.wav", "hello\n" * 9), "is text, not sound"),
        (lambda d: _text(d / "manifest.tsv", "path\ngone.wav\n"), "Row 2 of .* names 'gone.wav', which is not there"),
        (lambda d: _text(d / "manifest.tsv", "file\nx\n"), "has no column 'path'"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, make, expected):
    with pytest.raises(AudioError, match=expected):
        find(make(tmp_path))


def test_a_malformed_table_of_times_is_named(corpus):
    _text(corpus / "phones.tsv", "utt\tstart\tend\tphone\nu0\t0.5\t0.2\ta\n")
    with pytest.raises(AudioError, match=r"Row 2 of .*phones.tsv has no span from '0.5' to '0.2' s"):
        find(corpus)
    _text(corpus / "phones.tsv", "utt\tstart\tend\nu0\t0.5\t0.2\n")
    with pytest.raises(AudioError, match=r"phones.tsv has no column 'phone'"):
        find(corpus)


def _text(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
