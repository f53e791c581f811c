"""The recipe about the temporal loss: whole on a tiny corpus, resumed without computing anew, and claims with their nulls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from otoscope.errors import RunError
from otoscope.sae.registry import build
from otoscope.sae.store import Store
from otoscope.studies import sae_paper_material, sae_paper_run
from otoscope.studies.sae_paper import Found, PaperConfig, best, claims, headline, metrics, table, variants
from otoscope.studies.sae_paper_material import equal_l0, split
from otoscope.studies.sae_paper_run import paper
from tests import tiny
from tests.sae.corpus import write_corpus

LAYERS = ("encoder.0.resid_post", "encoder.1.resid_post")
CONFIG = PaperConfig(
    layers=LAYERS[:1], width=40, k=4, steps=10, batch_size=64, seeds=2, lags_ms=(60.0,), recordings=10, held_out=12, fresh=4,
    n_resamples=50, rows=200, align=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_corpus(folder / "librispeech", n=30)
    write_corpus(folder / "esc10", n=9, seed=1)
    for manifest in folder.rglob("manifest.tsv"):  # five speakers, so that some of each side have phones
        rows = [line.split("\t") for line in manifest.read_text().splitlines()]
        spoken = [[*row[:2], f"s{i % 5}", *row[3:]] for i, row in enumerate(rows[1:])]
        manifest.write_text("\n".join("\t".join(row) for row in [rows[0], *spoken]) + "\n")
    return folder


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """The whole recipe, once; measures are tried on planted features in tests of their own."""
    folder = tmp_path_factory.mktemp("runs") / "paper"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sae_paper_run, "trust_in_all", lambda *_: {})
        return paper(tiny.build("whisper"), data=data, out=folder, config=CONFIG), folder


class TestWhole:
    def test_every_kind_is_measured_and_judged(self, run):
        done, folder = run
        rows = table(done.found)
        assert len(rows) == len(variants(CONFIG, LAYERS[0])) == 9
        assert all(row["FVU"] > 0 and 0 <= row["overlap"] <= 1 for row in rows)
        made = {claim["id"] for claim in done.results["claims"]}
        assert made == {
            f"{name}-encoder.0"
            for name in (
                "temporal-others",
                "temporal-alpha0",
                "temporal-shuffled",
                "temporal-overlap",
                "high",
                "smoother",
            )
        }
        assert json.loads((folder / "results.json").read_text()) == done.results
        assert (folder / "tables" / "dictionaries.csv").read_text().count("\n") == len(rows) + 1
        page = (folder / "report.html").read_text()
        assert "Does a temporal loss help" in page
        assert page.count("fresh weights") >= 1

    def test_a_second_run_computes_nothing_and_says_the_same(self, run, data, monkeypatch):
        done, folder = run

        def never(*_: Any, **__: Any) -> Any:
            raise AssertionError("computed anew")

        for module, name in (
            (sae_paper_material, "train"), (sae_paper_run, "measured"), (sae_paper_run, "found_again"),
            (sae_paper_run, "trust_in_all"), (sae_paper_run, "untrained"),
        ):  # fmt: skip
            monkeypatch.setattr(module, name, never)
        again = paper(tiny.build("whisper"), data=data, out=folder, config=CONFIG)
        assert again.results == done.results

    def test_a_lost_dictionary_is_trained_again_to_the_same_features(self, run, data):
        _, folder = run
        at = folder / "dictionaries" / LAYERS[0] / "topk-0"
        weights = (at / "sae_weights.safetensors").read_bytes()
        (at / "cfg.json").unlink()
        store = Store(folder / "activations" / "train", LAYERS[0])
        kind = variants(CONFIG, LAYERS[0])[0]
        sae_paper_material.dictionary(at, store, kind, CONFIG, 0)
        assert (at / "sae_weights.safetensors").read_bytes() == weights

    def test_kinds_with_a_threshold_have_as_many_active_features_as_topk(self, run):
        _, folder = run
        store = Store(folder / "activations" / "train", LAYERS[0])
        x = next(iter(store.batches(store.n_frames, seed=7))).x
        made = build({"architecture": "batchtopk", "d": store.d, "n_features": 40, "k": 4}, torch.Generator())
        equal_l0(made, store, 4)
        assert float((made.encode(x) > 0).sum(1).float().mean()) == pytest.approx(4, abs=0.01)


def test_nobody_is_on_both_sides(data):
    corpus = split(data, CONFIG)
    sides = [{(r.corpus, r.speaker) for r in part} for part in (corpus.train, corpus.held)]
    assert not sides[0] & sides[1]
    assert {name for name, _ in sides[0]} == {name for name, _ in sides[1]} == {"librispeech", "esc10"}


def test_a_folder_without_sentences_is_one_sentence(tmp_path):
    with pytest.raises(RunError, match="no folder librispeech"):
        split(tmp_path, CONFIG)


def hits(rate: float, seed: int, n: int = 40) -> np.ndarray:
    """Hits of two values in ``n`` recordings, at a balanced accuracy of ``rate``."""
    rng = np.random.default_rng(seed)
    asked = np.full((n, 2), 60)
    return np.stack([rng.binomial(asked, rate), asked, rng.binomial(asked, rate), asked], axis=2).astype(float)


def planted(rates: dict[str, float], fvu: dict[str, float] | None = None) -> Found:
    """What is found where each kind's probe has a known rate (.8 where none is given)."""
    config = PaperConfig(layers=LAYERS, lags_ms=(), n_resamples=100)
    one_layer = {}
    for i, variant in enumerate(variants(config, LAYERS[1])):
        rate = rates.get(variant.name, 0.8)
        one_layer[variant.name] = [
            {
                "fvu": (fvu or {}).get(variant.name, 0.2) + 0.001 * s, "l0": 16.0, "overlap": 0.5, "alive": 1.0, "tcs": 0.3,
                "high.overlap": 0.5 + 0.01 * s, "hits.phone.k1": hits(rate, 10 * i + s),
                "hits.high.phone.k1": hits(rate, 100 + 10 * i + s), "hits.shuffled.k1": hits(0.5, s),
            }
            for s in range(3)
        ]  # fmt: skip
    about = {"trainings": 18, "corpora": {}, "frames": {}, "d": 24}
    return Found("tiny", config, about, dict.fromkeys(LAYERS, one_layer), {layer: {} for layer in LAYERS}, {}, {})


class TestClaims:
    @staticmethod
    def verdicts(found: Found) -> dict[str, str]:
        return {claim.id: claim.verdict for claim in claims(found)}

    def test_a_planted_gain_is_supported_and_said(self):
        found = planted({"temporal": 0.9})
        verdicts = self.verdicts(found)
        for name in ("others", "alpha0", "shuffled", "overlap"):
            assert verdicts[f"temporal-{name}-encoder.1"] == "supported"
        assert "more than averaging" in headline(found, claims(found))
        assert metrics(found)["gain.alpha0.encoder.1"].value == pytest.approx(0.1, abs=0.02)

    def test_no_gain_is_not_supported(self):
        verdicts = self.verdicts(planted({}))
        assert not any(v == "supported" for id, v in verdicts.items() if id.startswith("temporal"))
        assert "not shown" in headline(planted({}), claims(planted({})))

    def test_a_gain_that_averaging_gives_too_is_overlap(self):
        found = planted({"temporal": 0.9, "topk-smoothed": 0.95})
        verdicts = self.verdicts(found)
        assert verdicts["temporal-alpha0-encoder.1"] == "supported"
        assert verdicts["temporal-overlap-encoder.1"] == "refuted"
        assert "overlap explains it" in headline(found, claims(found))

    def test_a_loss_is_refuted(self):
        found = planted({"temporal": 0.7})
        assert self.verdicts(found)["temporal-alpha0-encoder.1"] == "refuted"
        assert "does not help" in headline(found, claims(found))

    def test_a_gain_at_the_cost_of_reconstruction_is_not_supported(self):
        assert (
            self.verdicts(planted({"temporal": 0.9}, {"temporal": 0.3}))["temporal-alpha0-encoder.1"] == "inconclusive"
        )

    def test_what_is_shipped_tells_phones_best_at_a_low_fvu(self):
        found = planted({"temporal": 0.9, "batchtopk": 0.95}, {"batchtopk": 0.3})
        assert best(found) == [(layer, "temporal") for layer in LAYERS]
