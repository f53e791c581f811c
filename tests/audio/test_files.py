"""Files: every format, every kind of bad input in one sentence, atomic writing, manifests."""

import os
import struct

import numpy as np
import pytest
import soundfile

from otoscope.audio import files
from otoscope.audio.clip import Clip
from otoscope.audio.files import read, read_manifest, write
from otoscope.errors import AudioError

RATE = 16000
TONE = (0.3 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.float32)


def saved(path, samples=TONE, rate=RATE, **options):
    soundfile.write(path, samples, rate, **options)
    return path


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize(
    ("suffix", "channels"), [(s, c) for s in ("wav", "flac", "ogg", "mp3") for c in (1, 2, 4) if (s, c) != ("mp3", 4)]
)
def test_reads_common_formats_at_any_rate_and_channel_count(tmp_path, suffix, rate, channels):
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    path = saved(tmp_path / f"tone.{suffix}", np.tile(tone[:, None], (1, channels)), rate)
    clip = read(path, 16000)
    assert clip.rate == 16000
    assert clip.duration == pytest.approx(1.0, abs=0.01)
    assert clip.name == "tone"
    hz = np.argmax(np.abs(np.fft.rfft(clip.samples[:15000] * np.hanning(15000), 64000))) / 4
    assert hz == pytest.approx(440, abs=1)
    assert clip.rms == pytest.approx(0.3 / np.sqrt(2), rel=0.02)
    assert any("mixed down" in notice for notice in clip.notices) == (channels > 1)
    assert any("resampled" in notice for notice in clip.notices) == (rate != 16000)


def test_channels_are_averaged_and_cancelling_ones_noticed(tmp_path):
    clip = read(saved(tmp_path / "a.wav", np.stack([TONE, 0 * TONE], 1)))
    assert np.allclose(clip.samples, TONE / 2, atol=1e-4)
    assert len(clip.notices) == 1
    clip = read(saved(tmp_path / "b.wav", np.stack([TONE, -TONE], 1)))
    assert "cancel" in clip.notices[1]


def test_silent_and_clipped_sounds_are_read_with_a_notice(tmp_path):
    assert "silent" in read(saved(tmp_path / "silent.wav", np.zeros(RATE))).notices[0]
    assert "clipped" in read(saved(tmp_path / "hot.wav", np.clip(9 * TONE, -1, 1))).notices[0]
    # a pure tone at full scale touches it without being cut
    assert read(saved(tmp_path / "full.wav", TONE / 0.3)).notices == ()


def _cut(path, share):
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    return path


def _huge_header(path):
    # a header that promises 3 h; the decoder must never be asked for them
    size = 3 * 3600 * RATE * 2
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    with path.open("wb") as raw:
        raw.write(struct.pack("<4sI4s", b"RIFF", size + 36, b"WAVE") + fmt + struct.pack("<4sI", b"data", size))
        raw.truncate(44 + size)
    return path


BAD = {
    "missing": (lambda d: d / "no.wav", "There is no file"),
    "below a file": (lambda d: saved(d / "a.wav") / "b.wav", "There is no file"),
    "folder": (lambda d: d, "is a folder, not a sound file"),
    "empty": (lambda d: ((d / "e.wav").write_bytes(b"") and None) or d / "e.wav", r"is empty \(0 bytes\)"),
    "text": (lambda d: (d / "t.wav").write_text("hello\nworld\n") and d / "t.wav", "is text, not sound"),
    "binary": (lambda d: (d / "b.wav").write_bytes(bytes(range(256)) * 9) and d / "b.wav", "damaged or not sound"),
    "no samples": (lambda d: saved(d / "z.wav", TONE[:0]), "holds zero samples"),
    "cut wav": (lambda d: _cut(saved(d / "c.wav"), 0.4), "promises 1.00 s and it holds 0.40 s"),
    "cut flac": (lambda d: _cut(saved(d / "c.flac"), 0.4), "damaged or not sound"),
    "cut mp3": (lambda d: _cut(saved(d / "c.mp3"), 0.4), "cut short"),
    "nan": (lambda d: saved(d / "n.wav", np.where(TONE > 0.29, np.nan, TONE), subtype="FLOAT"), "NaN or infinite"),
    "infinite": (lambda d: saved(d / "i.wav", np.where(TONE > 0.29, np.inf, TONE), subtype="FLOAT"), "NaN or infinite"),
    "huge": (lambda d: _huge_header(d / "h.wav"), r"holds 3.0 h of sound.*limit is 2 h"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_get_one_sentence_that_names_them(tmp_path, kind):
    make, message = BAD[kind]
    path = make(tmp_path)
    with pytest.raises(AudioError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_too_many_channels_for_memory_are_refused_before_decoding(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_BYTES", 10_000)
    with pytest.raises(AudioError, match="the limit is"):
        read(saved(tmp_path / "a.wav"))


def test_a_pipe_is_refused_and_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(AudioError, match="not a regular file"):
        read(tmp_path / "pipe.wav")


def test_a_file_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.wav")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may read everything, so chmod cannot show it
    with pytest.raises(AudioError, match="may not be read by this user"):
        read(path)


def test_a_wav_of_unknown_length_from_a_pipe_is_read(tmp_path):
    raw = bytearray(saved(tmp_path / "a.wav").read_bytes())
    for place in (4, raw.index(b"data") + 4):
        raw[place : place + 4] = b"\xff\xff\xff\xff"
    (tmp_path / "streamed.wav").write_bytes(raw)
    clip = read(tmp_path / "streamed.wav")
    assert clip.duration == pytest.approx(1.0)
    assert clip.notices == ()


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_write_and_read_back_is_exact(tmp_path, suffix):
    sixteen = (np.round(TONE * 32767) / 32768).astype(np.float32)
    clip = Clip(sixteen, RATE)
    assert read(write(tmp_path / f"a{suffix}", clip)).digest() == clip.digest()
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]


def test_wav_keeps_every_float_even_beyond_full_scale_and_flac_refuses(tmp_path):
    clip = Clip(TONE * np.float32(4.123), RATE)
    assert read(write(tmp_path / "a.wav", clip)).digest() == clip.digest()
    with pytest.raises(AudioError, match=r"flac holds no samples beyond \+-1"):
        write(tmp_path / "a.flac", clip)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    old = write(tmp_path / "a.wav", Clip(TONE, RATE)).read_bytes()

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(soundfile, "write", full)
    with pytest.raises(AudioError, match="No space left on device"):
        write(tmp_path / "a.wav", Clip(TONE * 0, RATE))
    assert (tmp_path / "a.wav").read_bytes() == old
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["a.mp3", "a", "no/such/folder/a.wav"])
def test_write_refuses_what_it_cannot_write(tmp_path, name):
    with pytest.raises(AudioError, match="Cannot write"):
        write(tmp_path / name, Clip(TONE, RATE))


def manifest(folder, *lines, name="manifest.tsv"):
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / name


def test_manifest_fills_text_speaker_and_labels(tmp_path):
    (tmp_path / "sub").mkdir()
    saved(tmp_path / "sub" / "a.wav")
    saved(tmp_path / "b.flac", TONE, 8000)
    listed = manifest(tmp_path, "path\tdur\tspeaker\ttext", 'sub/a.wav\t1.0\tanna\tSAY "IT', "", "b.flac\t\t\t")
    for source in (tmp_path, listed, str(listed)):
        first, second = read_manifest(source, rate=16000)
        assert (first.name, first.text, first.speaker, first.labels) == ("sub/a", 'SAY "IT', "anna", {"dur": "1.0"})
        assert (second.name, second.text, second.speaker, second.labels) == ("b", None, None, {})
        assert second.rate == 16000


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("file\ttext", "a.wav\tx"), r"no column 'path' \(it has file, text\)"),
        (("path\ttext",), "has a header but no rows"),
        (("path\ttext", "a.wav\tx", "gone.wav\ty"), "Row 3 of .* names 'gone.wav', which is not there"),
        (("path\ttext", "a.wav\tx", "\ty"), "Row 3 of .* has an empty 'path'"),
        (("path\ttext", "a.wav\tx\ty"), "Row 2 of .* has 3 cells for 2 columns"),
        (("path\ttext", "a.wav\tx", "bad.wav\ty"), "Row 3 of .* is text, not sound"),
    ],
)
def test_bad_manifests_name_the_row(tmp_path, lines, message):
    saved(tmp_path / "a.wav")
    (tmp_path / "bad.wav").write_text("no sound")
    manifest(tmp_path, *lines)
    with pytest.raises(AudioError, match=message):
        read_manifest(tmp_path)


def test_folder_without_manifest_and_manifest_that_is_not_text(tmp_path):
    with pytest.raises(AudioError, match="There is no manifest"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.tsv").write_bytes(b"path\n\xff\xfe\n")
    with pytest.raises(AudioError, match="cannot be read as UTF-8 text"):
        read_manifest(tmp_path)


@pytest.mark.data
def test_real_manifests_are_read(shared_data):
    clips = read_manifest(shared_data / "phone_labels_en", rate=16000)
    assert len(clips) == 10
    assert clips[0].text == "THE CHILD ALMOST HURT THE SMALL DOG"
    assert clips[0].duration == pytest.approx(float(clips[0].labels["dur"]), abs=0.01)
