"""Selectivity of features that tokens hang on, of features that nothing hangs on, and of edits put elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from otoscope.sae.measures.frames import Label, Reading
from otoscope.sae.measures.selectivity import features_of, marked, selectivity
from otoscope.sae.measures.sparsity import firing_rates
from tests.sae.measures.hearing import D, Told, read_identity


def recordings(n: int = 12, seed: int = 0, **options) -> list[Told]:
    """Sixteen tokens each; every feature is active in all frames of one random token in five, and never alone for long."""
    rng, made = np.random.default_rng(seed), []
    for _ in range(n):
        on = rng.random((16, D)) < 0.2
        on[0], on[1] = True, False
        made.append(Told(np.repeat(on * rng.uniform(0.5, 1, on.shape), 5, axis=0), **options))
    return made


def measured(heard, feature: int, **options):
    rates = firing_rates(sparse.csr_array(np.concatenate([h.x for h in heard])))
    return selectivity(heard, read_identity, [(feature, "f")], rates, n_resamples=100, **options)


def test_a_feature_that_its_own_tokens_hang_on_is_selective() -> None:
    found = measured(recordings(listens=(0,)), 0)
    assert np.isnan(found.ratio.value)  # nothing at all happens outside: the ratio has no end
    assert found.inside.value > 0.1
    assert found.outside.value == 0
    leaking = measured(recordings(listens=(0,), everywhere=True), 0)
    assert leaking.ratio.value == pytest.approx(1)


def test_a_mixture_is_selective_to_the_degree_that_it_is() -> None:
    class Both(Told):
        def _token(self, x, start, end):
            return 0.1 * float(x[start:end, 0].sum()) + 0.001 * float(x[:, 0].sum()) - 2

    heard = [Both(h.x) for h in recordings()]
    found = measured(heard, 0)
    assert found.ratio.low > 3
    # moved elsewhere the edit hits other tokens, and those that the feature marks lose what all lose
    assert found.elsewhere.value < 0.6 * found.ratio.value
    # a feature that no token hangs on changes nothing
    assert np.isnan(found.other.value)
    assert found.rows[0]["tokens"] > 0


def test_a_feature_that_nothing_hangs_on_does_nothing() -> None:
    found = measured(recordings(listens=(0,)), 3)
    assert found.inside.value == found.outside.value == 0
    assert np.isnan(found.ratio.value)


def test_lost_tokens_are_those_that_no_longer_come_first() -> None:
    heard = recordings(listens=(0, 1), weight=1.0)
    found = measured(heard, 0)
    assert found.lost_inside.value > 0
    assert found.lost_outside.value == 0
    assert all(h.asked == [4] for h in heard)  # untouched, own, other and elsewhere in one pass


def test_tokens_are_marked_by_frames_within_their_time() -> None:
    active = np.zeros(10, bool)
    active[4] = True
    spans = np.array([[0, 4], [4, 6], [4, 4], [5, 9], [10, 10]])
    assert marked(active, spans).tolist() == [False, True, True, False, False]


def test_the_feature_of_each_common_phone_is_found_and_none_twice() -> None:
    rng = np.random.default_rng(0)
    phone = rng.integers(0, 3, 900)
    codes = np.zeros((900, 6))
    codes[np.arange(900), phone + 1] = 1
    codes[:, 0] = rng.random(900) < 0.05
    reading = Reading(sparse.csr_array(codes), codes)
    found = features_of(reading, Label(phone, ("a", "b", "c")), 3)
    assert {name: feature for feature, name in found} == {"a": 1, "b": 2, "c": 3}
    drawn = features_of(reading, Label(np.full(900, -1), ()), 3)
    assert drawn == [(0, "")]  # the only one that is active in some frames and not in many
