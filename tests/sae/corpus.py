"""A small corpus on disk: seeded sounds with a manifest, phones and words; importable by processes that tests start."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from otoscope.audio.clip import Clip
from otoscope.audio.files import write

RATE = 16000
#: seconds of the sounds, in turn: shorter and longer than the tiny Whisper's window of one second
SECONDS = (0.5, 0.31, 0.83, 1.0, 0.62, 2.3, 0.4)
PHONES, WORDS = ("a", "sh", "sil", "t"), ("ash", "tar", "")


def seconds(i: int) -> float:
    """Length of the i-th sound."""
    return SECONDS[i % len(SECONDS)]


def write_corpus(folder: Path, n: int = 7, seed: int = 0) -> Path:
    """``n`` sounds; phones of 70 ms from 0.1 s on, words of 140 ms; every third sound has none of them."""
    folder.mkdir(parents=True)
    manifest, phones, words = ["path\tdur\tspeaker\tsex\ttext"], ["utt\tstart\tend\tphone"], ["utt\tstart\tend\tword"]
    for i in range(n):
        rng = np.random.default_rng([seed, i])
        samples = 0.1 * rng.standard_normal(round(seconds(i) * RATE)).astype(np.float32)
        write(folder / f"u{i}.wav", Clip(np.clip(samples, -1, 1), RATE))
        sex = "female" if i % 2 else ""
        manifest.append(f"u{i}.wav\t{seconds(i):.2f}\ts{i % 3}\t{sex}\tnumber {i}")
        if i % 3 == 2:
            continue
        for k in range(_n_phones(i)):
            phones.append(f"u{i}\t{0.1 + 0.07 * k:.3f}\t{0.17 + 0.07 * k:.3f}\t{PHONES[(k + i) % 4]}")
            if k % 2 == 0 and k + 1 < _n_phones(i):
                words.append(f"u{i}\t{0.1 + 0.07 * k:.3f}\t{0.24 + 0.07 * k:.3f}\t{WORDS[(k + i) % 3]}")
    for name, lines in (("manifest", manifest), ("phones", phones), ("words", words)):
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def _n_phones(i: int) -> int:
    return int((seconds(i) - 0.1) / 0.07 + 1e-6)


def phone_at(i: int, time: float) -> str | None:
    """The phone that is said in the i-th sound; None for silence and where none is known."""
    k = int(np.floor((time - 0.1) / 0.07 + 1e-6))
    if i % 3 == 2 or k < 0 or k >= _n_phones(i):
        return None
    found = PHONES[(k + i) % 4]
    return None if found == "sil" else found
