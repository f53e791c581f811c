"""Claims of the bench, and steering with its side effects, on numbers and recordings whose truth is known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import sparse

from otoscope.errors import RunError
from otoscope.sae.measures.frames import Frames, Label
from otoscope.sae.measures.trust import Trust
from otoscope.stats import Interval
from otoscope.studies import sae_eval_model
from otoscope.studies.sae_eval import EvalConfig, Found
from otoscope.studies.sae_eval_claims import claims, difference
from otoscope.studies.sae_eval_figures import more
from tests.sae.measures.hearing import D, Told, read_identity


def found(trust: str = "reliable", **numbers: Interval | float) -> Found:
    random = {"fvu": Interval(0.5, 0.45, 0.55, 9), "probe.phone.k1": Interval(0.6, 0.58, 0.62, 9)}
    known = dict.fromkeys(numbers, Trust({}, trust))  # type: ignore[arg-type]
    return Found({}, numbers, {"random": random, "pca": {}}, trust=known)


def verdicts(done: Found) -> dict[str, str]:
    return {claim.id: claim.verdict for claim in claims(done)}


def test_claims_follow_intervals_and_controls() -> None:
    good = found(fvu=Interval(0.2, 0.18, 0.22, 9), **{"probe.phone.k1": Interval(0.7, 0.68, 0.72, 9)})
    assert verdicts(good) == {"explains": "supported", "better_than_random": "supported", "tells_phones": "supported"}
    bad = found(fvu=Interval(0.6, 0.58, 0.62, 9), **{"probe.phone.k1": Interval(0.61, 0.59, 0.63, 9)})
    assert verdicts(bad) == {"explains": "refuted", "better_than_random": "refuted", "tells_phones": "inconclusive"}
    # a number that ranks planted dictionaries wrongly decides nothing
    assert verdicts(found("unreliable", fvu=Interval(0.2, 0.18, 0.22, 9))) == {}


def test_an_effect_that_costs_words_is_not_supported() -> None:
    erased = {"erased.sex": Interval(0.9, 0.8, 1.0, 9), "erased_null.sex": Interval(0.0, -0.1, 0.1, 9)}
    cheap = found(**erased, **{"erasing_wer.sex": Interval(0.0, -0.002, 0.002, 9)})
    dear = found(**erased, **{"erasing_wer.sex": Interval(0.1, 0.05, 0.2, 9)})
    assert verdicts(cheap)["erases_sex"] == "supported"
    assert verdicts(dear)["erases_sex"] == "inconclusive"
    quiet = {"sounds_words_before": Interval(0.8, 0.7, 0.9, 9), "sounds_words": Interval(0.1, 0.0, 0.2, 9)}
    assert verdicts(found(**quiet, sounds_wer=Interval(0, 0, 0, 9)))["silences_sounds"] == "supported"
    assert verdicts(found(**quiet, sounds_wer=Interval(0.3, 0.2, 0.4, 9)))["silences_sounds"] == "inconclusive"


def test_the_bounds_of_a_difference_are_those_of_the_worst_case() -> None:
    assert difference(Interval(3, 2, 4, 5), Interval(1, 0.5, 1.5, 7))[:4] == (2, 0.5, 3.5, 5)
    assert difference(Interval(3, 2, 4, 5), Interval(1, 0.5, 1.5, 7), -1)[:4] == (-2, -3.5, -0.5, 5)
    assert difference(3.0, Interval(1, 0, 2, 7)) == 2


def test_unknown_measures_are_refused() -> None:
    with pytest.raises(RunError, match="no measure 'mood'"):
        EvalConfig(measures=("mood",))


class Identity:
    """A dictionary whose features are the channels."""

    def __init__(self, name: str, x: np.ndarray) -> None:
        self.name, self.dictionary, self.reading = name, None, read_identity(x)

    def read(self, x: np.ndarray):
        return read_identity(x)


def test_erasing_is_seen_by_the_probe_and_paid_for_only_by_what_hangs_on_it(monkeypatch) -> None:
    """Channel 0 tells the sex; tokens hang on channel 0 in one case, and on channel 11 in the other."""
    rng = np.random.default_rng(0)
    utterance = np.repeat(np.arange(24), 40)
    sex = utterance % 2
    x = np.abs(rng.normal(0.5, 0.1, (len(utterance), D)))
    x[:, 0] = np.where(sex == 1, x[:, 0] + 1, 0.0)
    x[:, 1:6] = 0  # the four features that come next have nothing to take away
    frames = Frames(
        x, utterance, Label(np.full(len(x), -1), ()), np.zeros(len(x), bool),
        {"sex": Label(1 - sex, ("male", "female"), of_recordings=True)},
    )  # fmt: skip
    monkeypatch.setattr(sae_eval_model, "wer_cost", lambda *a, **k: Interval(0.0, 0.0, 0.0, 1))
    monkeypatch.setattr(sae_eval_model, "K", 1)
    costs = {}
    for channel in (0, 11):
        told = [Told(x[utterance == u], listens=(channel,)) for u in range(4)]
        setting = SimpleNamespace(
            heard=lambda told=told: told, frames=frames, resampling={"n_resamples": 20, "seed": 0}, sounds=(), progress=None,
            n_resamples=20, seed=0, model=None, site="", clips=(), texts=(), before=(),
        )  # fmt: skip
        taken = sae_eval_model.take_steering(setting, [Identity("dictionary", x)])  # type: ignore[arg-type]
        numbers, rows = taken["dictionary"]
        costs[channel] = abs(numbers["erasing_ce.sex"].value)  # type: ignore[union-attr]
        own = {row["factor"]: row["value"] for row in rows if row["arm"] == "own"}
        assert own[1.0] == 1
        assert own[0.0] < 0.7
        assert {row["arm"] for row in rows} == {"own", "null", "inserted"}
        blocks = more(Found({}, {}, {}, tables={"steering": rows}), "Erasure and steering")
        assert [block.kind for block in blocks] == ["figure", "table"]
    assert costs[0] > 0.05
    assert costs[11] < 0.5 * costs[0]


def test_codes_of_sounds_and_speech_are_told_apart() -> None:
    from otoscope.sae.measures.erasure import best_features
    from otoscope.sae.measures.frames import Reading

    codes = np.zeros((40, 5))
    codes[:20, 3] = 1
    codes[20:, 1] = 1
    reading = Reading(sparse.csr_array(codes), np.zeros((0, 0)))
    assert best_features(reading, np.arange(40), np.arange(40) < 20, 1).tolist() == [3]
