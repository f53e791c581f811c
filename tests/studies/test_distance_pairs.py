"""Sentences of the out-of-distribution study: changed in one known span and nowhere else, seeded, honest about what is missing."""

from __future__ import annotations

import numpy as np
import pytest

from otoscope.audio.clip import Clip, Span
from otoscope.audio.files import write
from otoscope.errors import AudioError, TaskError
from otoscope.studies import distance_pairs as pairs
from otoscope.studies.distance_pairs import CORRUPTIONS, interleaved, material, nulls, recorded, spoken

RATE = 16000
TEXTS = (
    "the small dog found water",
    "a green bird sang songs loudly",
    "seven children were walking home",
    "we saw cold rivers there",
)


def sentence(i: int) -> Clip:
    """Noise with words of 0.25 to 0.35 s."""
    rng = np.random.default_rng(i)
    text = TEXTS[i % len(TEXTS)]
    ends = np.cumsum(rng.uniform(0.25, 0.35, len(text.split())))
    words = tuple(Span(end - 0.24, end, word) for end, word in zip(ends.tolist(), text.split()))
    samples = 0.1 * rng.standard_normal(round((ends[-1] + 0.1) * RATE), dtype=np.float32)
    return Clip(samples, RATE, text=text, words=words, speaker="ab"[i % 2], name=f"clip {i}")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A manifest of sixteen such sentences, whose word times are known without an aligner."""
    known = {}
    lines = ["path\ttext\tspeaker"]
    for i in range(16):
        clip = sentence(i)
        write(tmp_path / f"{i}.wav", clip)
        lines.append(f"{i}.wav\t{clip.text}\t{clip.speaker}")
        known[str(i)] = clip.words
    (tmp_path / "manifest.tsv").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(pairs, "align", lambda clip: clip.replace(words=known[clip.name]))
    return tmp_path


def test_every_corruption_changes_the_word_and_nothing_else(folder):
    names = [c for c in CORRUPTIONS if c != "minimal_pair"]
    found, references = recorded(folder, names, 8, 6, 0)
    assert len(found) == 8
    assert len(references) == 6
    assert not {s.clip.name for s in found} & {c.name for c in references}
    for one in found:
        assert set(one.sounds) == set(names)
        assert one.clip.words[one.before] == one.word
        for name, (sound, span) in one.sounds.items():
            where = one.clip.span_samples(*span)
            assert span == (pytest.approx(one.word.start, abs=1e-4), pytest.approx(one.word.end, abs=1e-4))
            different = np.flatnonzero(sound.samples != one.clip.samples)
            # one swap is all that a word of five blocks may get
            share = 0.3 if name == "shuffle" else 0.5
            assert len(different) > share * (where.stop - where.start), name
            assert different.min() >= where.start
            assert different.max() < where.stop


def test_the_same_seed_gives_the_same_sounds(folder):
    def digests(seed):
        return [
            s.sounds[c][0].digest()
            for s in recorded(folder, ("noise", "word", "speaker"), 6, 6, seed)[0]
            for c in s.sounds
        ]

    assert digests(0) == digests(0)
    assert digests(0) != digests(1)


def test_nulls_change_nothing_or_nothing_that_could_be_heard(folder):
    one = recorded(folder, ("noise",), 1, 6, 0)[0][0]
    made = nulls(one, 0)
    assert set(made.sounds) == {"identical", "inaudible"}
    assert made.sounds["identical"][0].digest() == one.clip.digest()
    quiet = made.sounds["inaudible"][0].samples - one.clip.samples
    where = one.clip.span_samples(one.word.start, one.word.end)
    level = 10 * np.log10(np.mean(one.clip.samples[where] ** 2) / np.mean(quiet[where].astype(float) ** 2))
    assert level == pytest.approx(60, abs=0.5)


def test_without_speech_synthesis_the_minimal_pairs_are_left_out_and_said_so(folder, monkeypatch):
    def silent(*_, **__):
        raise AudioError("Speech synthesis needs a package")

    monkeypatch.setattr(pairs, "spoken", silent)
    made = material(folder, ("noise", "minimal_pair"), 4, 2, 6)
    assert set(made.references) == {"recorded"}
    assert all(set(s.sounds) == {"noise"} for s in made.sentences)
    assert "left out: Speech synthesis needs a package" in made.notices[0]
    with pytest.raises(AudioError, match="needs a package"):
        material(None, ("noise", "minimal_pair"), 4, 2, 6)


def test_spoken_sentences_have_every_corruption_and_the_word_of_their_frame():
    pytest.importorskip("espeakng_loader", reason='needs pip install "otoscope[speech]"')
    found = spoken(tuple(CORRUPTIONS), 3, 0)
    assert [s.word.text for s in found] == ["cat", "house", "boat"]
    for one in found:
        assert {"minimal_pair", "noise", "reverse"} <= set(one.sounds)
        other, span = one.sounds["minimal_pair"]
        assert len(other) == len(one.clip)
        assert span[0] <= one.word.start < one.word.end <= span[1] + 1e-6
        differs = np.flatnonzero(other.samples != one.clip.samples)
        assert differs.min() / RATE >= span[0] - 1e-3


def test_both_kinds_of_sentence_are_mixed_evenly():
    class Stub:
        pass

    first, second = [Stub() for _ in range(6)], [Stub() for _ in range(2)]
    mixed = interleaved(first, second)  # type: ignore[arg-type]
    assert [i for i, s in enumerate(mixed) if s in second] == [2, 6]
    assert [s for s in mixed if s in first] == first


@pytest.mark.parametrize(
    ("corruptions", "most", "message"),
    [
        (("nois",), 4.0, "there is no corruption 'nois' in this study"),
        (("noise",), 0.1, "has 0 recordings with a text of at most"),
    ],
)
def test_what_cannot_be_used_is_refused(folder, monkeypatch, corruptions, most, message):
    monkeypatch.setattr(pairs, "MAX_SECONDS", most)
    with pytest.raises(TaskError, match=message):
        material(folder, corruptions, 4, 2, 6)
