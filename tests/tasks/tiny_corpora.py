"""Tiny corpora in the layouts of the public ones: noise that differs from file to file, or synthetic speech where asked for."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile

from otoscope.models.mini_labels import COMMANDS

#: hashes of speakers, as in the names of the files of Speech Commands
HASHES = ("0a2b400e", "1b4c9b89", "22aa3665", "3e7124ba")
#: ESC-50's number, name of ten classes and one of the other forty
ESC50 = (
    (0, "dog"), (1, "rooster"), (10, "rain"), (11, "sea_waves"), (12, "crackling_fire"), (20, "crying_baby"),
    (21, "sneezing"), (38, "clock_tick"), (40, "helicopter"), (41, "chainsaw"), (7, "vacuum_cleaner"),
)  # fmt: skip


def noise(path: Path, seconds: float = 0.4, rate: int = 16000) -> Path:
    """A file of noise that is the same for the same name; shorter than a second and with a silent end."""
    rng = np.random.default_rng(zlib.crc32(path.name.encode() + path.parent.name.encode()))
    samples = 0.1 * rng.standard_normal(round(seconds * rate))
    samples[-len(samples) // 8 :] = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate)
    return path


def speech_commands(folder: Path, words: Iterable[str] = COMMANDS, speakers: Iterable[str] = HASHES) -> Path:
    """``word/SPEAKER_nohash_TAKE.wav``, and the folder of background noises that the corpus has beside its words."""
    for word in words:
        for speaker in speakers:
            noise(folder / word / f"{speaker}_nohash_0.wav", 0.6)
    noise(folder / "_background_noise_" / "white_noise.wav")
    return folder


def fsdd(folder: Path, speakers: Iterable[str] = ("jackson", "theo"), takes: int = 2) -> Path:
    """``DIGIT_SPEAKER_TAKE.wav`` at 8 kHz."""
    for digit in range(10):
        for speaker in speakers:
            for take in range(takes):
                noise(folder / f"{digit}_{speaker}_{take}.wav", 0.3 + 0.02 * digit, 8000)
    return folder


def esc50(folder: Path, folds: int = 2) -> Path:
    """``meta/esc50.csv`` beside ``audio/``; one second, to be quick."""
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in range(1, folds + 1):
        for target, category in ESC50:
            source = 100000 * fold + target
            path = noise(folder / "audio" / f"{fold}-{source}-A-{target}.wav", 1.0, 44100)
            rows.append(f"{path.name},{fold},{target},{category},{category != 'vacuum_cleaner'},{source},A")
    (folder / "meta").mkdir()
    (folder / "meta" / "esc50.csv").write_text("\n".join(rows) + "\n")
    return folder


def librispeech(folder: Path, sexes: dict[str, str], sentences: int = 3) -> Path:
    """``dev-clean/SPEAKER/CHAPTER/*.flac`` with transcripts, and ``SPEAKERS.TXT`` above them; the sounds are noise."""
    lines = ["; ID | SEX | SUBSET | MINUTES | NAME"]
    for speaker, sex in sexes.items():
        chapter = folder / "dev-clean" / speaker / "7"
        texts = []
        for number in range(sentences):
            name = f"{speaker}-7-{number:04d}"
            noise(chapter / f"{name}.flac", 1.5)
            texts.append(f"{name} THE SMALL DOG FOUND WATER {number}")
        (chapter / f"{speaker}-7.trans.txt").write_text("\n".join(texts) + "\n")
        lines.append(f"{speaker:5}| {sex} | dev-clean        | 8.01 | A Reader")
    (folder / "SPEAKERS.TXT").write_text("\n".join(lines) + "\n")
    return folder


def manifest(folder: Path, columns: str, rows: Iterable[str]) -> Path:
    """A ``manifest.tsv``: columns and cells are separated by spaces here, by tabs there."""
    lines = ["\t".join(line.split(" ")) for line in (columns, *rows)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.tsv").write_text("\n".join(lines) + "\n")
    return folder
