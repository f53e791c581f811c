"""Capturing: the values, the cache that holds them, gradients, and stopping early."""

from __future__ import annotations

import pytest
import torch

from otoscope.engine.capture import Cache, capture_until, recording, resolve_sites
from otoscope.engine.intervene import scale
from otoscope.errors import SiteError
from otoscope.models.inputs import Inputs
from otoscope.models.site import PATTERN_POINTS, Site
from tests.tiny import FAMILIES, build, pair


@pytest.fixture(scope="module", params=["whisper", "wav2vec2-ctc", "wavlm-pre", "qwen3"])
def model(request):
    return build(request.param)


@pytest.fixture(scope="module")
def batch(model):
    return Inputs.stack(list(pair(model)))


def test_sites_come_in_the_order_of_computing_without_repetition(model):
    stack = model.adapter.order[-1]
    names = [
        f"{stack}.2.resid_post",
        f"{stack}.0.z.3",
        f"{stack}.*.attn_out",
        f"{stack}.0.z",
        Site(stack, 0, "attn_out"),
    ]
    n = model.stacks[stack].n_layers
    expected = [f"{stack}.0.z", *(f"{stack}.{i}.attn_out" for i in range(n))]
    expected.insert(expected.index(f"{stack}.2.attn_out") + 1, f"{stack}.2.resid_post")
    assert [str(s) for s in resolve_sites(model.adapter, names)] == expected


def test_one_site_is_the_same_captured_alone_or_with_all_others(model, batch):
    together = model.capture(batch, [s for s in model.sites() if s.point not in PATTERN_POINTS])
    for site in together.sites():
        assert torch.equal(model.capture(batch, site)[site], together[site])


def test_a_capture_keeps_no_graph_unless_asked(model, batch):
    site = f"{model.adapter.order[-1]}.1.resid_post"
    assert not model.capture(batch, site)[site].requires_grad
    output = model.run(batch, capture_sites=site, grad=True)
    # one output, since all of a normed state sum to a constant
    (slope,) = torch.autograd.grad(output.logits[:, -1, 0].sum(), output.cache[site])
    assert slope.shape == output.cache[site].shape
    assert slope.abs().max() > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_stopping_at_the_last_site_gives_the_same_values_and_runs_nothing_after_it(family):
    model = build(family)
    inputs, _ = pair(model)
    first = model.adapter.order[-1]
    sites = [Site(first, 1, "attn_out"), Site(first, 0, "resid_mid"), Site(first, 0, "mlp_post")]
    later = []
    handle = model.adapter.stack_module(first).layers[2].register_forward_hook(lambda *_: later.append(1))
    early = capture_until(model.adapter, inputs, sites)
    assert not later
    whole = model.capture(inputs, sites)
    handle.remove()
    assert later == [1]
    assert early.sites() == whole.sites() == [sites[1], sites[2], sites[0]]
    for site in sites:
        assert torch.equal(early[site], whole[site])


def test_captured_values_are_those_after_the_change(model, batch):
    site = f"{model.adapter.order[-1]}.1.mlp_out"
    plain = model.capture(batch, site)[site]
    assert torch.equal(model.run(batch, [scale(site, 2.0)], site).cache[site], 2 * plain)


class TestCache:
    """The mapping that captures give back."""

    def test_an_index_picks_one_head_or_neuron(self, model, batch):
        stack = model.adapter.order[-1]
        cache = model.capture(batch, f"{stack}.1.*")
        assert torch.equal(cache[f"{stack}.1.z.2"], cache[f"{stack}.1.z"][:, :, 2])
        assert torch.equal(cache[f"{stack}.1.pattern.2"], cache[f"{stack}.1.pattern"][:, 2])
        assert torch.equal(cache[Site(stack, 1, "mlp_post", 7)], cache[f"{stack}.1.mlp_post"][..., 7])
        assert f"{stack}.1.z.2" in cache
        assert f"{stack}.0.z" not in cache
        assert 3 not in cache

    def test_it_is_a_mapping_of_names(self, model, batch):
        stack = model.adapter.order[-1]
        cache = model.capture(batch, f"{stack}.1.*")
        assert list(cache) == [f"{stack}.1.{p}" for p in model.stacks[stack].points]
        assert len(cache) == len(model.stacks[stack].points)

    def test_an_item_is_what_it_is_in_the_batch(self, model, batch):
        site = f"{model.adapter.order[-1]}.1.z"
        cache = model.capture(batch, site)
        assert torch.equal(cache.item(1)[site], cache[site][1:])

    def test_what_was_not_captured_is_named_with_what_was(self, model, batch):
        stack = model.adapter.order[-1]
        cache = model.capture(batch, f"{stack}.1.z")
        with pytest.raises(SiteError, match=rf"'{stack}.0.z' was not captured: this cache holds {stack}.1.z; name it"):
            cache[f"{stack}.0.z"]
        with pytest.raises(SiteError, match="holds nothing"):
            Cache({})[f"{stack}.0.z"]


@pytest.mark.parametrize("bad", ["encoder.0.nothing", "nowhere.*", "encoder.9.z", "encoder.0.z.9"])
def test_unknown_sites_are_refused_before_anything_runs(bad):
    model = build("whisper")
    ran = []
    handle = model.hf.register_forward_pre_hook(lambda *_: ran.append(1))
    with pytest.raises(SiteError):
        model.capture(pair(model)[0], bad)
    handle.remove()
    assert not ran


def test_generation_joins_along_positions():
    model = build("llama")
    inputs, _ = pair(model)
    sites = resolve_sites(model.adapter, "decoder.1.resid_post,decoder.0.z")
    with recording(model.adapter, sites) as values:
        tokens = model.generate(inputs, max_new_tokens=6, eos_token_id=None)[0]
    whole = model.capture(inputs.with_tokens(tokens[:-1]), sites)
    for site in sites:
        assert (values[site] - whole[site]).abs().max() < 1e-5
    pattern = resolve_sites(model.adapter, "decoder.1.pattern")
    with (
        pytest.raises(SiteError, match="changes its shape at every generated token: capture it on the whole text"),
        recording(model.adapter, pattern),
    ):
        model.generate(inputs, max_new_tokens=3, eos_token_id=None)
