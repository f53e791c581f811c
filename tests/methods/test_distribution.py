"""Departures of patched runs: nothing where nothing was patched, everything where the patch is absurd, only downstream."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from otoscope.engine.patch import Patch
from otoscope.errors import SiteError, TaskError
from otoscope.methods.distribution import departures, fit
from otoscope.methods.natural import SINGLE, positions
from otoscope.models.inputs import Inputs
from otoscope.models.site import Site
from tests.tiny import build, sound

SITES = "encoder.*.resid_post,encoder.1.z,decoder.*.resid_post"
TOKENS = [3, 7, 9, 12, 30]


@pytest.fixture(scope="module")
def model():
    return build("whisper")


@pytest.fixture(scope="module")
def natural(model):
    return fit(model, [model.inputs([sound(i, 12000) for i in range(12)], tokens=TOKENS)], SITES)


@pytest.fixture(scope="module")
def runs(model):
    """Recordings that were not fitted."""
    return [model.inputs(sound(100 + i, 12000), tokens=TOKENS) for i in range(12)]


def absurd(site, size=60.0, positions=(10, 11, 12)):
    value = size * torch.randn(1, len(positions), 24, generator=torch.Generator().manual_seed(0))
    return Patch(site, positions=positions, value=value)


def test_a_patch_that_changes_nothing_departs_exactly_as_the_unpatched_run(model, natural, runs):
    patches = [Patch("encoder.0.resid_post"), Patch("encoder.1.z.2", positions=(3, 4)), Patch("decoder.0.resid_post")]
    found = departures(model, natural, runs[0], runs[0], patches)
    for name in SINGLE:
        assert np.array_equal(found.values[name], found.base[name], equal_nan=True)
    assert np.array_equal(found.flags, found.base_flags)
    assert not found.flagged().any()


def test_an_absurd_value_is_flagged_where_it_stands_and_after(model, natural, runs):
    found = departures(model, natural, runs[0], runs[1], [absurd("encoder.0.resid_post")])
    at = {site: i for i, site in enumerate(found.sites)}
    for site in ("encoder.0.resid_post", "encoder.1.resid_post", "encoder.2.resid_post"):
        assert found.flags[0, at[site]], site
        assert not found.base_flags[0, at[site]], site
    assert found.flagged().tolist() == [True]
    assert found.values["norm_ratio"][0, at["encoder.0.resid_post"]] > 5
    assert found.base["norm_ratio"][0, at["encoder.0.resid_post"]] == pytest.approx(1, abs=0.3)


def test_what_lies_before_the_patch_is_not_measured(model, natural, runs):
    patches = [Patch("decoder.1.resid_post"), Patch("encoder.1.mlp_out"), Patch("encoder.2.resid_post")]
    found = departures(model, natural, runs[0], runs[1], patches)
    measured = [[s for s, ok in zip(found.sites, row) if ok] for row in np.isfinite(found.values["nearest"])]
    decoder = [f"decoder.{i}.resid_post" for i in range(3)]
    assert measured[0] == decoder[1:]
    assert measured[1] == ["encoder.1.resid_post", "encoder.2.resid_post", *decoder]
    assert measured[2] == ["encoder.2.resid_post", *decoder]
    assert not found.flags[np.isnan(found.values["nearest"])].any()


def test_values_are_the_means_of_the_scores_of_a_hooked_run(model, natural, runs):
    patch = Patch("encoder.0.resid_post", positions=(5, 6, 7, 49))
    found = departures(model, natural, runs[0], runs[1], [patch], ["encoder.2.resid_post", "decoder.1.resid_post"])
    donor = model.capture(runs[1], patch.site)[patch.site]
    states = model.run(runs[0], [patch.intervention(donor)], found.sites).cache
    encoder = natural.score(found.sites[0], states[found.sites[0]][0, [5, 6, 7]])  # frame 49 is padding
    decoder = natural.score(found.sites[1], states[found.sites[1]][0, 1:])  # position 0 is skipped
    for name in SINGLE:
        assert found.values[name][0, 0] == pytest.approx(getattr(encoder, name).mean(), rel=1e-5)
        assert found.values[name][0, 1] == pytest.approx(getattr(decoder, name).mean(), rel=1e-5)


def test_a_whole_natural_donor_is_as_natural_as_any_run(model, natural, runs):
    """All of another recording's layer: from there on the encoder is the donor's own, natural run."""
    patch = Patch("encoder.0.resid_post")
    for base, donor in zip(runs[:4], runs[4:8]):
        found = departures(model, natural, base, donor, [patch], "encoder.*.resid_post")
        swapped = departures(model, natural, donor, donor, [patch], "encoder.*.resid_post")
        for name in SINGLE:
            assert found.values[name] == pytest.approx(swapped.base[name], rel=1e-3)


def test_unpatched_natural_cells_are_seldom_flagged(model, natural, runs):
    windows = [tuple(range(a, a + 3)) for a in range(0, 36, 3)]
    patches = [Patch("encoder.0.resid_post", positions=w) for w in windows]
    flags = [
        departures(model, natural, run, run, patches, "encoder.1.resid_post", measure=m).base_flags
        for run in runs[:6]
        for m in ("mahalanobis", "any")
    ]
    assert np.mean(flags) < 0.08, "a dozen tiny utterances know their 99th percentile roughly"


def test_every_family_is_measured():
    for family in ("wavlm-pre", "hubert-base", "llama"):
        model = build(family)
        if family == "llama":
            tokens = torch.randint(4, 50, (14, 12), generator=torch.Generator().manual_seed(0))
            batch = Inputs(tokens=tokens)
        else:
            batch = model.inputs([sound(i, 6000) for i in range(14)])
        stack = model.adapter.order[-1]
        train = Inputs.stack([batch.item(i) for i in range(12)])
        natural = fit(model, [train], f"{stack}.*.resid_post")
        patch = absurd(f"{stack}.0.resid_post", positions=(4, 5))
        found = departures(model, natural, batch.item(12), batch.item(13), [patch])
        assert found.flagged().all()
        assert np.isfinite(found.values["mahalanobis"]).all()


def test_the_table_has_a_line_per_patch_and_site(model, natural, runs):
    seen = []
    patches = [absurd("encoder.0.resid_post"), Patch("encoder.1.z.2")]
    found = departures(model, natural, runs[0], runs[1], patches, progress=lambda *a: seen.append(a))
    assert seen == [(1, 2), (2, 2)]
    table = found.table()
    assert {len(c) for c in table.values()} == {2 * len(found.sites)}
    assert set(table) >= {"patch", "positions", "site", "mahalanobis", "nearest.base", "flag", "flag.base"}


def test_positions_that_count(model):
    inputs = model.inputs([sound(1, 4000), sound(2, 8000)], tokens=TOKENS)
    assert positions(model, Site("encoder", 1, "z"), inputs, 1, 1).tolist() == list(range(25))
    assert positions(model, Site("decoder", 1, "z"), inputs, 1, 2).tolist() == [2, 3, 4]


def test_bad_input_is_refused_in_one_sentence(model, natural, runs):
    def ask(patch, sites=None, donor=runs[1]):
        return departures(model, natural, runs[0], donor, [patch], sites)

    with pytest.raises(SiteError, match="has no layer 9"):
        ask(Patch("encoder.9.z"))
    with pytest.raises(SiteError, match="names donor 1, but 1 were given"):
        ask(Patch("encoder.1.z", donor=1))
    with pytest.raises(SiteError, match=r"'encoder.0.mlp_out' was not fitted"):
        ask(Patch("encoder.1.z"), "encoder.0.mlp_out")
    with pytest.raises(SiteError, match="has no position 77"):
        ask(Patch("encoder.1.z", positions=(77,)))
    with pytest.raises(TaskError, match=r"unequal tokens \(\(5,\), \(7,\)\)"):
        ask(Patch("decoder.0.resid_post"), donor=runs[1].with_tokens([3, 4, 5, 6, 7, 8, 9]))
