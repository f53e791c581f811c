"""The tables of the out-of-distribution study on simulated maps, where it is known whether distance predicts falseness."""

from __future__ import annotations

import numpy as np
import pytest

from otoscope.stats import spearman
from otoscope.studies.distance_choice import recommend, sentence_of, short_sentence
from otoscope.studies.distance_claims import claims, metrics, tables
from otoscope.studies.distance_grid import kinds
from otoscope.studies.distance_pairs import CORRUPTIONS
from otoscope.studies.distance_table import Row, across_cells, by, cell, flagged_gain, relation

KINDS = kinds(4)
NAMES = [k.name for k in KINDS]
CHANGES = ("noise", "silence", "word", "reverse")


def maps(within=0.0, across=0.0, through_effect=0.0, n=30, seed=0, level=-1.0) -> list[Row]:
    """Maps whose falseness hangs on the distance within a cell, on the cell's distance, or on the effect alone."""
    rng = np.random.default_rng(seed)
    far = {(c, k): rng.standard_normal() for c in CHANGES for k in NAMES}
    rows = []
    for i in range(n):
        for (c, k), where in far.items():
            if rng.random() < 0.5:
                continue
            own, effect = rng.standard_normal(2)
            p = 1 / (1 + np.exp(-(level + within * own + across * where + through_effect * effect)))
            distance = 2 + where + 0.5 * (own + (2 * effect if through_effect else 0.0))
            wrong = bool(rng.random() < p)
            moved = rng.random(4)
            rows.append(
                {
                    "sentence": f"sentence {i}", "corruption": c, "kind": k, "silent": False, "wrong": wrong, "alarm": False,
                    "false": wrong, "effect": float(effect), "chance": 0.2, "distance": float(distance),
                    "put_in": float(rng.standard_normal()), "flagged": bool(distance > 2.5),
                    "mean_distance": float(distance), "mean_put_in": 1.0,
                    "far_distance": (2 + where + (moved - 0.5) * (1 if within else 0) + rng.random(4)).tolist(),
                    "far_effect": (0.5 * moved).tolist(),
                }
            )  # fmt: skip
    return rows


def verdicts(rows: list[Row], nulls: list[Row] | None = None) -> dict[str, str]:
    return {c.id: c.verdict for c in claims(rows, nulls or [], relation(rows, n_resamples=400), recommend(rows), KINDS)}


def test_a_relation_within_cells_is_supported():
    said = verdicts(maps(within=1.0))
    assert said["within"] == "supported"
    assert said["windows"] == "supported"
    assert said["flag"] == "supported"


def test_without_a_relation_no_claim_of_one_is_supported():
    for seed in range(3):
        said = verdicts(maps(seed=seed))
        assert said["within"] != "supported"
        assert said["windows"] != "supported"
        assert said["across"] != "supported"


def test_a_relation_the_other_way_round_is_refuted():
    said = verdicts(maps(within=-1.0))
    assert said["within"] == "refuted"
    assert said["flag"] == "refuted"


def test_a_relation_across_cells_is_not_one_within():
    rows = maps(across=1.5)
    found = relation(rows, n_resamples=400)
    said = verdicts(rows)
    assert said["across"] == "supported"
    assert found.pooled.auc.low > 0.6
    assert found.within.auc.low < 0.55
    assert said["within"] != "supported"


def test_distance_that_only_follows_the_effect_is_not_enough():
    found = relation(maps(through_effect=1.0), n_resamples=400)
    assert found.within.auc.low > 0.55
    assert found.given_effect.auc.low < 0.5
    assert verdicts(maps(through_effect=1.0))["within"] == "inconclusive"


def test_a_shuffled_relation_is_as_rare_as_its_level():
    p = [relation(maps(n=8, seed=seed), n_resamples=100).within.p_value for seed in range(25)]
    assert np.mean(np.array(p) < 0.05) <= 0.2


def test_the_correlation_over_cells_is_that_of_their_means():
    rows = maps(across=1.5)
    groups = by(rows, "corruption", "kind").values()
    distance = [np.mean([r["distance"] for r in g]) for g in groups]
    false = [np.mean([r["false"] for r in g]) for g in groups]
    assert across_cells(rows, n_resamples=2).value == pytest.approx(spearman(distance, false, n_resamples=2).rho.value)


def test_the_gain_of_the_flag_is_a_difference_of_shares():
    rows = maps(within=1.0)
    flagged = [r["false"] for r in rows if r["flagged"]]
    others = [r["false"] for r in rows if not r["flagged"]]
    assert flagged_gain(rows).value == pytest.approx(np.mean(flagged) - np.mean(others))
    assert np.isnan(flagged_gain([{**r, "flagged": False} for r in rows]).value)


def test_silent_maps_count_in_no_rate():
    rows = maps(n=6)
    silent = [{**r, "silent": True, "false": False, "wrong": False, "effect": float("nan")} for r in rows]
    assert cell(rows + silent).false.value == cell(rows).false.value
    assert cell(rows + silent).silent.value == pytest.approx(0.5)
    assert np.isnan(cell(silent).false.value)
    assert recommend(silent) is None
    said = verdicts(silent)
    assert "recommendation" not in said
    assert set(said.values()) == {"inconclusive"}


def planted(best: str, trap: str, seed: int = 0) -> list[Row]:
    """Maps of which one kind is never false and natural, one never false and unnatural, and all others often false."""
    rng = np.random.default_rng(seed)
    rows = maps(level=0.0, seed=seed)
    for row in rows:
        row["flagged"] = row["kind"] != best and bool(rng.random() < 0.03)
        row["effect"] = 0.5
        if row["kind"] in (best, trap):
            row["false"] = row["wrong"] = False
        if row["kind"] == trap:
            row["flagged"], row["effect"] = True, 0.9
        if row["corruption"] == "word":
            row["false"] = row["wrong"] = row["wrong"] and bool(rng.random() < 0.3)
    return rows


def test_the_kind_with_the_fewest_false_maps_at_natural_distance_is_recommended():
    best, trap = NAMES[0], NAMES[1]
    for seed in range(5):
        found = recommend(planted(best, trap, seed))
        assert found is not None
        assert found.kind == best
        assert found.corruption == "word"
        assert found.by_kind.false.value == 0
        assert found.worst not in (best, trap)


def test_the_recommendation_is_judged_on_sentences_that_did_not_choose():
    rows = planted(NAMES[0], NAMES[1])
    found = recommend(rows)
    assert found is not None
    odd = [r for r in rows if int(r["sentence"].split()[1]) % 2]
    assert found.by_kind.maps == sum(r["kind"] == NAMES[0] for r in odd)
    assert found.everything.maps == len(odd)
    # a kind that was lucky on one half only is found out on the other
    lucky = [
        {**r, "false": r["false"] or (r["kind"] == NAMES[0] and bool(int(r["sentence"].split()[1]) % 2))} for r in rows
    ]
    unlucky = recommend(lucky)
    assert unlucky is not None
    assert unlucky.kind == NAMES[0]
    assert unlucky.by_kind.false.value == 1


def test_where_no_kind_is_natural_the_most_natural_one_is_recommended():
    rows = planted(NAMES[0], NAMES[1])
    for row in rows:
        row["flagged"] = row["kind"] != NAMES[3] or int(row["sentence"].split()[1]) % 4 < 2
    found = recommend(rows)
    assert found is not None
    assert found.kind == NAMES[3]


def test_the_sentence_has_the_numbers_of_the_choice():
    rows = planted(NAMES[0], NAMES[1])
    found = recommend(rows)
    assert found is not None
    said = sentence_of(found, KINDS)
    assert said.startswith(short_sentence(found, KINDS))
    assert KINDS[0].words in said
    assert CORRUPTIONS["word"][0] in said
    assert f"0% [0%, {found.by_kind.false.high:.0%}]" in said
    assert f"{found.worst_cell.false.value:.0%}" in said


def test_nulls_that_name_places_take_the_support_from_the_reference():
    rows = [{**r, "false": False, "wrong": False} for r in maps(n=40)]
    quiet = [{**r, "corruption": "identical", "silent": True} for r in rows[:20]]
    assert verdicts(rows, quiet)["reference"] == "supported"
    assert verdicts(rows, [{**r, "silent": False} for r in quiet])["reference"] == "inconclusive"
    assert verdicts(maps(level=1.0), quiet)["reference"] == "refuted"


def test_metrics_are_flat_and_tables_have_every_cell():
    rows = maps(n=6)
    numbers = metrics(rows, [{**r, "corruption": "identical"} for r in rows[:5]], relation(rows, n_resamples=50))
    assert {f"false.{c}" for c in CHANGES} | {f"false.{k}" for k in NAMES} <= set(numbers)
    assert numbers["named.identical"].value == 1
    made = tables(rows, [])
    assert len(made["cells"]) == len({(r["corruption"], r["kind"]) for r in rows})
    assert sum(row["maps"] for row in made["kinds"]) == len(rows) == len(made["maps"])
    assert not any(isinstance(v, list) for v in made["maps"][0].values())
