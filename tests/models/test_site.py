"""Site names: reading them, refusing them with a cure, and expanding patterns in the order of computing."""

from __future__ import annotations

import pytest

from otoscope.errors import SiteError
from otoscope.models.site import POINTS, Site, StackSpec, check, expand

_ENCODER = ("resid_pre", "pattern", "z", "attn_out", "resid_mid", "mlp_post", "mlp_out", "resid_post")
STACKS = {
    "frontend": StackSpec("frontend", 2, 12, 0, 0, 0, False, ("conv_out",), 100.0),
    "encoder": StackSpec("encoder", 4, 12, 3, 4, 48, False, _ENCODER, 50.0),
    "decoder": StackSpec("decoder", 2, 12, 3, 4, 48, True, (*_ENCODER[:4], "cross_z", *_ENCODER[4:])),
}


@pytest.mark.parametrize(
    "name", ["encoder.2.resid_post", "decoder.0.z.2", "decoder.1.mlp_post.47", "frontend.1.conv_out"]
)
def test_a_name_is_read_and_written_back(name):
    site = Site.parse(name)
    assert str(site) == name
    assert Site.parse(site) is site
    assert check(site, STACKS) == site
    assert site.whole.index is None


@pytest.mark.parametrize(
    "bad", ["", "encoder", "encoder.2", "encoder.two.z", "encoder.-1.z", "encoder.1.z.x", "a.1.z.2.3"]
)
def test_what_is_no_site_is_refused_with_an_example(bad):
    with pytest.raises(SiteError, match=r"is not a site: expected <stack>\.<layer>\.<point>"):
        Site.parse(bad)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("encodr.0.z", "has no stack 'encodr': it has frontend, encoder, decoder. Did you mean 'encoder'?"),
        ("encoder.0.resid_pots", "has no point 'resid_pots'.*Did you mean 'resid_post'?"),
        ("encoder.0.cross_z", "the encoder of m has no point 'cross_z'"),
        ("encoder.4.z", "has no layer 4: its layers are 0 to 3"),
        ("encoder.0.z.3", "has no head 3: its heads are 0 to 2"),
        ("encoder.0.mlp_post.48", "has no neuron 48: its neurons are 0 to 47"),
        ("encoder.0.resid_post.1", "has neither heads nor neurons: drop '.1'"),
    ],
)
def test_what_the_model_lacks_is_named_with_what_it_has(name, sentence):
    with pytest.raises(SiteError, match=sentence):
        expand(name, STACKS, "m")


def test_patterns_expand_in_the_order_of_computing():
    every = expand("*", STACKS)
    assert len(every) == 2 + 4 * 8 + 2 * 9
    assert [s.stack for s in every] == ["frontend"] * 2 + ["encoder"] * 32 + ["decoder"] * 18
    for stack, layer in {(s.stack, s.layer) for s in every}:
        order = [POINTS.index(s.point) for s in every if (s.stack, s.layer) == (stack, layer)]
        assert order == sorted(order)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("encoder.1-2.z", ["encoder.1.z", "encoder.2.z"]),
        ("encoder.*.resid_p*", [f"encoder.{i}.resid_{p}" for i in range(4) for p in ("pre", "post")]),
        ("*.0.*mid", ["encoder.0.resid_mid", "decoder.0.resid_mid"]),
        ("decoder.0.z.*", ["decoder.0.z.0", "decoder.0.z.1", "decoder.0.z.2"]),
        ("decoder.1.z.1-2", ["decoder.1.z.1", "decoder.1.z.2"]),
        ("frontend", ["frontend.0.conv_out", "frontend.1.conv_out"]),
        ("encoder.0.z, decoder.0.z,encoder.0.z", ["encoder.0.z", "decoder.0.z"]),
    ],
)
def test_a_pattern_names_exactly_these(pattern, names):
    assert [str(s) for s in expand(pattern, STACKS)] == names


@pytest.mark.parametrize("pattern", ["*.*.nothing", "encoder.7-9.z", "encoder.*.resid_post.*", "bogus"])
def test_a_pattern_that_names_nothing_is_refused(pattern):
    with pytest.raises(SiteError, match="names no site of m: stacks are frontend, encoder, decoder"):
        expand(pattern, STACKS, "m")


def test_a_range_that_is_none_is_refused():
    with pytest.raises(SiteError, match="'one-2' is not a layer or index: expected a number, a range such as 0-3"):
        expand("*.one-2.z", STACKS)


def test_shapes_are_told_in_words():
    assert STACKS["encoder"].shape("z") == "[batch, frame, 3, 4]"
    assert STACKS["decoder"].shape("pattern") == "[batch, 3, pos, pos]"
    assert STACKS["decoder"].shape("mlp_post") == "[batch, pos, 48]"
    assert STACKS["frontend"].shape("conv_out") == "[batch, frame, 12]"
