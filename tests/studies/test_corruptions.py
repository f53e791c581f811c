"""The audit of corruptions on planted yardsticks: it finds what was planted, resumes, and says it in the report."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from otoscope.audio.clip import Clip, Span
from otoscope.audio.corruptions import CORRUPTIONS, FACTORS
from otoscope.errors import TaskError
from otoscope.methods.yardsticks.base import Yardstick
from otoscope.methods.yardsticks.loudness import Loudness
from otoscope.methods.yardsticks.words import Words
from otoscope.studies import corruption_sounds, corruption_ways, corruptions
from otoscope.studies.corruption_checks import Check
from otoscope.studies.corruption_sounds import Sounds, Utterance
from otoscope.studies.corruption_ways import LEVELS, USED_FOR
from otoscope.studies.corruptions import AuditConfig
from otoscope.studies.corruptions_run import advice, audit
from otoscope.tasks.pair import Pair

N = 6


class ByName(Yardstick):
    """A yardstick for clips whose factors are told by their names: 1 between two names, 0 within one."""

    unit, summary = "names", "planted"

    def __init__(self, factor: str) -> None:
        self.factor = factor  # type: ignore[misc]
        self.calls = 0

    def moved(self, clean, corrupt, span=None, corrupt_span=None):
        self.calls += 1
        return float(clean.name != corrupt.name)


class PlantedWords(ByName, Words):
    """Words that need no recogniser."""

    def __init__(self) -> None:
        ByName.__init__(self, "words")

    def prepare(self, clips):
        return None

    def remember(self, clip, text):
        return None

    def heard(self, clip):
        return clip.text or ""


def clip(name: str, seed: int, loud: float = 0.1, speaker: str = "") -> Clip:
    samples = loud * np.random.default_rng(seed).standard_normal(16000).astype(np.float32)
    words = tuple(Span(i / 4, (i + 1) / 4, word) for i, word in enumerate("abcd"))
    return Clip(samples, 16000, "a b c d", words, speaker=speaker or name, name=name)


@pytest.fixture
def sounds() -> Sounds:
    # of unequal loudness, so that there is a natural difference
    own = [clip(f"s{i}", i, 0.02 * 2**i) for i in range(N)]
    pairs = tuple(
        Pair(c, clip(f"s{i}/other", 50 + i, 0.02 * 2**i), (0.25, 0.5), "planted", c.text, c.text)
        for i, c in enumerate(own)
    )
    utterances = tuple(
        Utterance(c, (0.25, 0.5), p.corrupt, own[(i + 1) % N], None) for i, (c, p) in enumerate(zip(own, pairs))
    )
    training = tuple(clip(f"t{s}", 100 + 10 * s + t, speaker=f"t{s}") for s in range(3) for t in range(2))
    retests = tuple(clip(f"r{s}", 200 + 10 * s + t, speaker=f"r{s}") for s in range(3) for t in range(2))
    return Sounds(utterances, pairs, pairs, pairs, training, retests, "planted noise")


@pytest.fixture
def rulers(monkeypatch, sounds) -> dict[str, Yardstick]:
    """Every yardstick goes by names but that of loudness, which is the real one."""
    made: dict[str, Yardstick] = {factor: ByName(factor) for factor in FACTORS}
    made["words"], made["loudness"] = PlantedWords(), Loudness()

    def check(factor: str) -> Check:
        def make(index: int, strength: int) -> Clip:
            if factor == "loudness":
                base = clip("x", index)
                return base.replace(samples=base.samples * np.float32(2.0 ** -(strength + 1)))
            return clip("y", index)

        return Check(factor, tuple(f for f in FACTORS if f != "loudness"), ("a", "b", "c"), make, factor == "loudness")

    monkeypatch.setattr(corruptions, "yardsticks", lambda space, model: made)
    monkeypatch.setattr(corruptions, "checks", lambda: tuple(check(factor) for factor in FACTORS))
    monkeypatch.setattr(corruptions, "sentence", lambda index: clip("x", index))
    monkeypatch.setattr("otoscope.studies.corruptions_run.gather", lambda n, seed, data: sounds)
    return made


@pytest.fixture
def recogniser():
    adapter = SimpleNamespace(dtype="float32")
    return SimpleNamespace(name="planted", adapter=adapter, weights_hash=lambda: "0" * 64)


def test_what_changes_only_loudness_is_found_and_nothing_else_is(rulers, recogniser):
    done = audit(AuditConfig(n=N), model=recogniser)
    found = {one.way.label: one for one in done.found.audited}
    silence = found["silence"]
    assert silence.cells["loudness"].verdict == "changed"
    assert {f: silence.cells[f].verdict for f in FACTORS if f != "loudness"} == dict.fromkeys(
        [f for f in FACTORS if f != "loudness"], "kept"
    )
    assert silence.scores["loudness"].low > 0.9
    assert all(silence.scores[f].value == 0 for f in FACTORS if f != "loudness")
    assert advice(done.found, "loudness").startswith("To change only loudness, use ")
    assert advice(done.found, "pitch").startswith("Nothing here changes only pitch")
    # a pair of other names moves everything that goes by names, so it isolates nothing
    assert found["minimal_pair"].scores["words"].value == 0
    assert all(one.scores[f].value == pytest.approx(0, abs=0.01) for one in [found["mu_law"]] for f in FACTORS)


def test_declarations_are_held_against_the_measurement(rulers, recogniser):
    done = audit(AuditConfig(n=N), model=recogniser)
    silence = next(one for one in done.found.audited if one.way.label == "silence")
    # by the planted yardsticks nothing but loudness moves, so most of what silence says it breaks is contradicted
    assert set(silence.disagreements) == {(f, "breaks") for f in CORRUPTIONS["silence"].breaks if f != "loudness"}
    assert done.results["metrics"]["n_disagreements"] >= 6


def test_claims_have_a_null_and_count_what_does_not_isolate(rulers, recogniser):
    claims = {claim["id"]: claim for claim in audit(AuditConfig(n=N), model=recogniser).results["claims"]}
    assert set(claims) == {f"isolates.{name}" for name in USED_FOR if name != "recorded_noise"} | {
        "some_do_not_isolate"
    }
    assert claims["isolates.silence"]["verdict"] == "refuted"
    assert claims["some_do_not_isolate"]["verdict"] == "supported"
    control = claims["isolates.silence"]["controls"]["a change that nobody hears"]
    assert control["value"] == 0


def test_a_yardstick_that_tells_nothing_is_shown_and_counts_for_nothing(rulers, recogniser, monkeypatch):
    monkeypatch.setattr(rulers["pitch"], "moved", lambda *_: 1.0)
    done = audit(AuditConfig(n=N), model=recogniser)
    assert not done.found.rulers["clip"]["pitch"].reliable
    silence = next(one for one in done.found.audited if one.way.label == "silence")
    assert silence.cells["pitch"].verdict == "unreliable"
    assert silence.scores["loudness"].low > 0.9
    assert "cannot be said" in advice(done.found, "pitch")
    assert "not reliable on whole clips: pitch" in "\n".join(done.lines)


def test_a_run_resumes_without_measuring_again_and_is_the_same_byte_for_byte(rulers, recogniser, tmp_path):
    config = AuditConfig(n=N, n_levels=2)
    first = audit(config, model=recogniser, out=tmp_path / "a")
    calls = rulers["pitch"].calls
    again = audit(config, model=recogniser, out=tmp_path / "a")
    assert rulers["pitch"].calls == calls
    audit(config, model=recogniser, out=tmp_path / "b")
    assert (tmp_path / "a" / "results.json").read_bytes() == (tmp_path / "b" / "results.json").read_bytes()
    assert again.lines == first.lines


def test_the_tables_and_the_report_hold_every_way_and_factor(rulers, recogniser, tmp_path):
    done = audit(AuditConfig(n=N, n_levels=2), model=recogniser, out=tmp_path / "run")
    rows = (tmp_path / "run" / "tables" / "isolation.csv").read_text().splitlines()
    assert len(rows) == 1 + len(done.found.audited) * len(FACTORS)
    page = (tmp_path / "run" / "report.html").read_text()
    assert all(word in page for word in ("To change only loudness", "voice_swap", "Planted changes", "<audio"))
    kept = json.loads((tmp_path / "run" / "results.json").read_text())
    assert kept["command"] == "bench corruptions"
    assert set(kept["metrics"]) >= {
        "isolation.white_noise.words",
        "n_isolating",
        "n_ways",
        "wer.clean",
        "eer.speaker.clip",
    }
    assert (tmp_path / "run" / "figures" / "effects.pdf").exists()


def test_too_few_sentences_are_refused():
    with pytest.raises(TaskError, match="at least 6"):
        audit(AuditConfig(n=3))


def test_every_corruption_has_a_use_and_every_level_a_parameter_that_is_not_the_default(sounds):
    assert set(CORRUPTIONS) <= set(USED_FOR)
    assert set(USED_FOR.values()) <= set(FACTORS)
    for way in corruption_ways.ways(sounds):
        sample = way.make(sounds, 0, 0)
        assert len(sample.clean) == len(sample.corrupt)
        assert sample.clean.digest() != sample.corrupt.digest()
        assert (sample.span is None) == (way.scope == "clip")
    assert {name for name, kind in CORRUPTIONS.items() if "snr_db" in getattr(kind, "__dataclass_fields__", {})} <= set(
        LEVELS
    )


def test_a_stronger_setting_is_another_sound(sounds):
    made = {way.label: way.make(sounds, 0, 0).corrupt.digest() for way in corruption_ways.ways(sounds)}
    for name in set(LEVELS) - {"recorded_noise"}:
        assert len({made[name], made[f"{name} mild"], made[f"{name} strong"]}) == 3, name


def test_a_folder_without_recordings_is_refused(tmp_path):
    pytest.importorskip("espeakng_loader", reason='needs pip install "otoscope[speech]"')
    with pytest.raises(TaskError, match="there is no folder"):
        corruption_sounds.gather(6, 0, tmp_path / "none")
