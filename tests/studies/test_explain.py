"""Explaining errors, on a tiny Whisper: with and without a reference, resumed, and the arithmetic of the planted measure."""

import json

import numpy as np
import pytest

from otoscope.audio.files import write
from otoscope.engine.model import load
from otoscope.errors import ModelError, TaskError
from otoscope.studies import explain_run
from otoscope.studies.explain import ExplainConfig, advice, explain_clip
from otoscope.studies.explain_planted import BARS, halves, iou, judge_rows
from otoscope.studies.explain_run import explain_study
from otoscope.studies.explain_workers import sentence_workers
from tests import tiny
from tests.cli.folder import save_tiny_whisper
from tests.methods import tiny_sentences


@pytest.fixture(scope="module")
def model():
    return tiny_sentences.model()


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "sounds"
    made.mkdir()
    for seed in (0, 2):
        write(made / f"s{seed}.wav", tiny_sentences.clip(seed))
    (made / "manifest.tsv").write_text("path\ttext\tspeaker\ns0.wav\tthe cat sat\ta\ns2.wav\tthe mat\tb\n")
    return made


def test_every_error_of_a_recording_is_explained(model):
    sentence, errors, suspects = explain_clip(model, tiny_sentences.clip(0, text="the cat sat"))
    assert suspects is None
    assert [one.error for one in errors] == list(sentence.found.errors)
    for one in errors:
        assert one.verdict.name in ("heard wrong", "guessed", "mixed", "undetermined")
        assert one.evidence is not None
        assert one.evidence.margin > 0
        assert one.places is not None
        assert one.remedies
        assert one.remedy is None or one.remedy.mends
        assert advice(one)
        json.dumps(one.to_json(), allow_nan=True)


def test_what_is_written_is_right_against_itself(model):
    text = explain_clip(model, tiny_sentences.clip(0, text="the"))[0].text
    assert explain_clip(model, tiny_sentences.clip(0, text=text))[1] == []


def test_without_details_only_the_verdict_is_computed(model):
    (one, *_) = explain_clip(model, tiny_sentences.clip(0, text="the cat"), ExplainConfig(details=False))[1]
    assert one.places is None
    assert one.remedies == ()
    assert one.evidence is not None


def test_a_run_holds_errors_and_goes_on(model, folder, tmp_path, monkeypatch):
    out = tmp_path / "run"
    done = explain_study([folder], model, out=out)
    assert done.results["metrics"]["errors"] == sum(len(i["errors"]) for i in done.items) > 0
    assert done.results["metrics"]["wer"] > 0
    page = (out / "report.html").read_text()
    assert page.count("<audio") == 2
    for item in done.items:
        for error in item["errors"]:
            assert f">{error['verdict']['name']}</span>" in page
    assert "The sentence under each change" in page
    assert (out / "tables" / "errors.csv").read_text().count("\n") == done.results["metrics"]["errors"] + 1
    (out / "results.json").unlink()
    monkeypatch.setattr(explain_run, "explain_clip", None)  # nothing is explained twice
    assert explain_study([folder], model, out=out).results == done.results


def test_without_a_reference_words_are_flagged(model, folder, tmp_path):
    (folder / "manifest.tsv").unlink()
    done = explain_study([folder / "s0.wav"], model, out=tmp_path / "run")
    (item,) = done.items
    assert item["errors"] == []
    assert item["suspects"]
    assert done.results["metrics"]["flagged"] == sum(bool(w["flagged_by"]) for w in item["suspects"])
    assert "How suspect each word is" in (tmp_path / "run" / "report.html").read_text()


def test_a_reference_belongs_to_one_recording(model, folder):
    with pytest.raises(TaskError, match=r"manifest\.tsv"):
        explain_study([folder], model, reference="the cat")


def test_other_families_and_long_sounds_are_refused(model, folder):
    with pytest.raises(ModelError, match="load a Whisper"):
        explain_clip(tiny.build("wav2vec2-ctc"), tiny_sentences.clip(0, text="the cat"))
    with pytest.raises(TaskError, match="cut it"):
        explain_clip(model, tiny_sentences.clip(0, seconds=2.0, text="the cat"))


def told(model, clip, nearby, number, seed):
    """Something that depends on everything a worker is given."""
    return {"weights": model.weights_hash(), "clip": clip.digest(), "near": len(nearby), "number": number, "seed": seed}


def test_rows_do_not_depend_on_the_number_of_processes(tmp_path):
    one = load(str(save_tiny_whisper(tmp_path)))

    def ask(number):
        return tiny_sentences.clip(number), [tiny_sentences.clip(9)], number, 7

    def rows(n):
        with sentence_workers(told, one, {}, n, ask, 3) as compute:
            return [compute(i) for i in range(3)]

    assert rows(2) == rows(1)


def test_halves_share_no_speaker():
    found = halves(["b", "a", "c", "a", "d"])
    assert set(found) == {"a", "b", "c", "d"}
    assert sorted(found.values()).count("test") == 2
    assert halves(["d", "c", "b", "a"]) == found


def test_intersection_over_union():
    assert iou((0, 1), (0, 1)) == 1
    assert iou((0, 1), (2, 3)) == 0
    assert iou((0, 1), (0.5, 1.5)) == pytest.approx(1 / 3)


def row(kind: str, right: bool, iou: float, speaker: int, how: str = "noise") -> dict:
    return {"kind": kind, "right": right, "iou": iou, "speaker": str(speaker), "how": how, "changed": True}


def test_claims_count_right_verdicts_over_speakers():
    rows = [row("acoustic", i % 20 != 0, 0.8, i % 10) for i in range(200)]
    rows += [row("prior", i % 2 == 0, 0.6, i % 10, "bias") for i in range(200)]
    rows += [{**row("prior", False, np.nan, 0), "changed": False}]  # a plant without effect counts nowhere
    words = [{"speaker": str(i % 10), "right": 10, "no_error": 10} for i in range(50)]
    metrics, claims = judge_rows(rows, words)
    assert metrics["verdict.acoustic"].value == pytest.approx(0.95)
    assert metrics["verdict.prior"].value == pytest.approx(0.5)
    assert metrics["verdict.correct"].value == 1
    assert metrics["span_iou"].value == pytest.approx(0.7)
    assert metrics["n.prior"] == 200
    verdicts = {claim.id: claim.verdict for claim in claims}
    assert set(verdicts) == set(BARS)
    assert verdicts["verdict.prior"] == "refuted"
    assert verdicts["verdict.correct"] == "supported"
