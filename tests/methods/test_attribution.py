"""Attribution: the slope it claims to be, exact where the model is linear, zero where nothing differs, and confirmed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from otoscope.engine.metrics import KL, LabelLogProb, LogitDiff, Top1Change
from otoscope.engine.patch import Patch
from otoscope.errors import SiteError, TaskError
from otoscope.methods.attribution import attribute
from otoscope.models.inputs import Inputs
from otoscope.models.site import HEAD_POINTS, PATTERN_POINTS, Site
from tests.tiny import FAMILIES, build, pair


def exact(model, base, donor, patches, metric):
    result = model.sweep(base, donor, patches, metric, method="naive")
    return result.values[metric.name] - result.base[metric.name]


def cells_of(model, found, seed=0):
    """One random cell of every site, and all of it."""
    rng = np.random.default_rng(seed)
    for name, scores in found.scores.items():
        site = Site.parse(name)
        position = int(rng.integers(len(scores)))
        if scores.ndim == 2:
            part = int(rng.integers(scores.shape[1]))
            yield Patch(Site(site.stack, site.layer, site.point, part), positions=(position,))
        yield Patch(site, positions=(position,))
        yield Patch(site)


def shrunk(model, base, donor, patch, eps):
    """The same patch with only ``eps`` of the difference."""
    site = Site.parse(patch.site).whole
    both = model.capture(Inputs.stack([base, donor]), site)[site]
    heads, neurons = patch.parts()
    return Patch(site, patch.positions, heads, neurons, value=both[:1] + eps * (both[1:] - both[:1]))


def precise(family):
    """A float64 model whose every part computes in float64; the library's RMS norms round to float32 inside."""
    model = build(family, torch.float64)
    for parent in list(model.hf.modules()):
        for name, norm in list(parent.named_children()):
            if type(norm).__name__.endswith("RMSNorm"):
                exact_norm = nn.RMSNorm(norm.weight.shape, norm.variance_epsilon, dtype=torch.float64)
                exact_norm.weight = norm.weight
                setattr(parent, name, exact_norm)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_the_score_is_the_derivative_at_every_site(family):
    """(m(b + eps (d - b)) - m(b)) / eps tends to the score, and the error to 0 in proportion to eps."""
    model = precise(family)
    donor, base = pair(model)
    last = model.run(base).logits.shape[1] - 1
    metric = LogitDiff(5, 7, last)
    found = attribute(model, base, donor, "*", metric)
    assert list(found.scores) == [str(s) for s in model.sites()]
    patches = list(cells_of(model, found))
    scores = np.array([found.score(p) for p in patches])
    errors = []
    for eps in (1e-2, 1e-3):
        small = [shrunk(model, base, donor, p, eps) for p in patches]
        errors.append(np.abs(exact(model, base, donor, small, metric) / eps - scores))
    scale = np.abs(scores).max()
    assert scale > 1e-3
    assert (np.abs(scores) > 1e-3 * scale).mean() > 0.4
    assert errors[1].max() < 2e-2 * scale
    curved = errors[0] > 1e-7 * scale
    assert np.median(errors[1][curved] / errors[0][curved]) == pytest.approx(0.1, rel=0.1)


def test_a_label_of_several_tokens_has_its_slope_too():
    model = precise("llama")
    donor, base = pair(model)
    metric = LabelLogProb((5, 9), 4)
    found = attribute(model, base, donor, "decoder.*.resid_post,decoder.*.z", metric)
    patches = list(cells_of(model, found))
    small = [shrunk(model, base, donor, p, 1e-5) for p in patches]
    scores = np.array([found.score(p) for p in patches])
    assert np.abs(exact(model, base, donor, small, metric) / 1e-5 - scores).max() < 1e-3 * np.abs(scores).max()


@pytest.mark.parametrize(("family", "sites"), [
    ("hubert-base", ["encoder.2.resid_post"]),  # post-LN without head: the output is the last stream itself
    ("wav2vec2-ctc", ["encoder.2.resid_post"]),  # and here a linear map of it
    ("whisper", ["decoder.2.mlp_post", "decoder.2.mlp_out", "decoder.2.resid_post"]),
    ("llama", ["decoder.3.mlp_post", "decoder.3.mlp_out", "decoder.3.resid_post"]),
])  # fmt: skip
def test_where_the_rest_of_the_model_is_linear_the_score_is_the_exact_effect(family, sites):
    model = build(family, torch.float64)
    if family == "whisper":
        model.hf.model.decoder.layer_norm = nn.Identity()
    if family == "llama":
        model.hf.model.norm = nn.Identity()
    donor, base = pair(model)
    metric = LogitDiff(5, 7, 3)
    found = attribute(model, base, donor, sites, metric)
    patches = list(cells_of(model, found)) + [Patch(s, positions=(3,)) for s in sites]
    scores = np.array([found.score(p) for p in patches])
    assert np.abs(scores).max() > 1e-3
    assert np.abs(exact(model, base, donor, patches, metric) - scores).max() < 1e-9
    for site in sites:
        whole = found.scores[site]
        assert np.allclose(np.delete(whole, 3, 0), 0), "only the read position can matter in the last layer"
    if "resid_post" in sites[-1]:
        assert found.score(Patch(sites[-1])) == pytest.approx(found.donor - found.base)
        assert found.effects(sites[-1]).sum() == pytest.approx(1)


@pytest.mark.parametrize("family", ["whisper", "wavlm-pre", "qwen3"])
def test_equal_runs_score_exactly_nothing_and_have_no_effect(family):
    model = build(family)
    base, _ = pair(model)
    found = attribute(model, base, base, "*", LogitDiff(5, 7, 3))
    assert all((scores == 0).all() for scores in found.scores.values())
    assert found.span == 0
    assert all(np.isnan(found.effects(site)).all() for site in found.scores)


def test_shapes_follow_the_site():
    model = build("whisper")
    donor, base = pair(model)
    found = attribute(model, base, donor, "*", LogitDiff(5, 7))
    for name, scores in found.scores.items():
        site = Site.parse(name)
        spec = model.stacks[site.stack]
        length = {"frontend": 100 if site.layer == 0 else 50, "encoder": 50, "decoder": 7}[site.stack]
        part = (spec.n_heads,) if site.point in HEAD_POINTS else (40,) if site.point == "mlp_post" else ()
        assert scores.shape == (length, *part)
    assert {s for s in found.scores if Site.parse(s).point in PATTERN_POINTS}
    plain = model.run(Inputs.stack([base, donor])).logits[:, -1]
    assert found.base == pytest.approx(float(plain[0, 5] - plain[0, 7]), abs=1e-4)
    assert found.donor == pytest.approx(float(plain[1, 5] - plain[1, 7]), abs=1e-4)


def test_attributing_leaves_the_model_as_it_was():
    model = build("whisper")
    donor, base = pair(model)
    plain = model.run(base).logits
    attribute(model, base, donor, "*", LogitDiff(5, 7))
    assert torch.equal(model.run(base).logits, plain)
    assert all(p.grad is None and p.requires_grad for p in model.hf.parameters() if p is not _positions(model))


def _positions(model):
    """Whisper's encoder positions are fixed sines."""
    return model.hf.model.encoder.embed_positions.weight


@pytest.fixture(scope="module")
def case():
    model = build("whisper", torch.float64)
    donor, base = pair(model)
    metric = LogitDiff(5, 7, -1)
    found = attribute(model, base, donor, "encoder.*.resid_post,decoder.*.z,decoder.1.mlp_post", metric)
    return model, base, donor, metric, found


class TestRanking:
    """top and confirm."""

    def test_top_is_the_largest_of_all_cells_by_absolute_score(self, case):
        *_, found = case
        every = sorted((abs(float(x)) for s in found.scores.values() for x in s.ravel()), reverse=True)
        top = found.top(25)
        assert [abs(score) for _, score in top] == pytest.approx(every[:25])
        assert len({(str(p.site), p.positions) for p, _ in top}) == 25
        for patch, score in top:
            assert found.score(patch) == pytest.approx(score)

    def test_windows_are_the_sums_of_their_positions(self, case):
        model, *_, found = case
        windows = {"encoder": model.clock("encoder", 4000).windows(0.1), "decoder": [range(7)]}
        for patch, score in found.top(40, windows, split=False):
            assert score == pytest.approx(found.scores[str(patch.site)][list(patch.positions)].sum())
            assert patch.positions == tuple(range(7)) or len(patch.positions) in (5, 3)
        with pytest.raises(SiteError, match="is empty or outside its positions, 0 to 49"):
            found.top(1, {"encoder": [range(48, 52)]})

    def test_confirming_is_the_exact_sweep_of_the_same_patches(self, case):
        model, base, donor, metric, found = case
        confirmed = found.confirm(12, sample=8, seed=1)
        assert len(confirmed.patches) == 20
        assert confirmed.sampled.tolist() == [False] * 12 + [True] * 8
        assert np.abs(confirmed.exact - exact(model, base, donor, confirmed.patches, metric)).max() < 1e-9
        again = model.sweep(base, donor, confirmed.patches, metric)
        assert np.abs(confirmed.exact_effects - again.effects()).max() < 1e-12
        assert confirmed.predicted_effects == pytest.approx(confirmed.predicted / (found.donor - found.base))
        assert confirmed.predicted[:12].tolist() == [score for _, score in found.top(12)]
        assert np.abs(confirmed.predicted[12:]).max() <= np.abs(confirmed.predicted[:12]).min()
        assert len({(str(p.site), p.positions) for p in confirmed.patches}) == 20
        assert confirmed.rank.rho.n == 20
        from scipy.stats import spearmanr

        assert confirmed.rank.rho.value == pytest.approx(spearmanr(confirmed.predicted, confirmed.exact).statistic)
        table = confirmed.table()
        assert {len(column) for column in table.values()} == {20}

    def test_asking_for_more_than_there_is_gives_all(self, case):
        model, base, donor, metric, _ = case
        found = attribute(model, base, donor, "decoder.1.resid_post", metric)
        assert len(found.top(99)) == 7
        assert len(found.confirm(99, sample=5).patches) == 7

    def test_the_rank_correlation_tells_a_linear_model_from_a_random_ranking(self):
        model = build("llama", torch.float64)
        model.hf.model.norm = nn.Identity()
        donor, base = pair(model)
        linear = attribute(model, base, donor, "decoder.3.mlp_post", LogitDiff(5, 7)).confirm(30)
        assert linear.rank.rho.value == pytest.approx(1)
        flipped = attribute(model, base, donor, "decoder.3.mlp_post", LogitDiff(5, 7))
        rng = np.random.default_rng(0)
        for scores in flipped.scores.values():
            scores[-1] = rng.permutation(scores[-1])
        assert abs(flipped.confirm(30).rank.rho.value) < 0.6


def test_what_has_no_slope_is_refused():
    model = build("llama")
    donor, base = pair(model)
    for metric in (KL(), Top1Change()):
        with pytest.raises(TaskError, match=f"'{metric.name}' has no slope at the base run.*attribute with LogitDiff"):
            attribute(model, base, donor, "decoder.1.z", metric)


def test_bad_input_is_refused_in_one_sentence():
    model = build("llama")
    donor, base = pair(model)
    with pytest.raises(TaskError, match="one base with one donor, not 2 with 1"):
        attribute(model, Inputs.stack([base, donor]), donor, "decoder.1.z", LogitDiff(5, 7))
    with pytest.raises(TaskError, match="unequal tokens"):
        attribute(model, base, donor.with_tokens([1, 2, 3]), "decoder.1.z", LogitDiff(5, 7))
    with pytest.raises(SiteError, match="has no layer 9"):
        attribute(model, base, donor, "decoder.9.z", LogitDiff(5, 7))
    found = attribute(model, base, donor, "decoder.1.z,decoder.1.resid_post", LogitDiff(5, 7))
    with pytest.raises(SiteError, match=r"'decoder.0.z' was not attributed: the sites are decoder.1.z, decoder"):
        found.score(Patch("decoder.0.z"))
    for patch in (
        Patch("decoder.1.resid_post", neurons=(1,)),
        Patch("decoder.1.z", donor=1),
        Patch("decoder.1.z", value=torch.zeros(1)),
    ):
        with pytest.raises(SiteError, match="has no attribution: expected the donor's values"):
            found.score(patch)
