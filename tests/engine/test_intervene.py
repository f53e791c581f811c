"""Interventions against closed forms; their order, their places, their removal, and the sentences for bad ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from otoscope.engine.intervene import (
    Intervention,
    add,
    mean_ablate,
    project_out,
    replace_with,
    resample_ablate,
    scale,
)
from otoscope.errors import SiteError
from otoscope.models.inputs import Inputs
from otoscope.models.site import PATTERN_POINTS, Site
from tests.tiny import build, pair

FEW = ["whisper", "hubert-base", "wavlm-pre", "llama"]


@pytest.fixture(scope="module", params=FEW)
def model(request):
    return build(request.param, torch.float64)


@pytest.fixture(scope="module")
def batch(model):
    return Inputs.stack(list(pair(model)))


def sites_of(model):
    """One middle layer of every stack, every point."""
    return [s for s in model.sites() if s.layer == 1]


def changed(model, batch, one):
    """Value at the intervention's site before and after it."""
    site = Site.parse(one.site).whole
    plain = model.capture(batch, [site])[site]
    return plain, model.run(batch, [one], [site]).cache[site]


def along(site, value, positions=None, heads=None, last=None):
    """Boolean mask of a selection."""
    pos_axis, head_axis = (2, 1) if site.point in PATTERN_POINTS else (1, 2)
    chosen = [range(n) for n in value.shape]
    for axis, some in ((pos_axis, positions), (head_axis, heads), (value.ndim - 1, last)):
        chosen[axis] = chosen[axis] if some is None else some
    mask = torch.zeros(value.shape, dtype=torch.bool)
    mask[np.ix_(*chosen)] = True
    return mask


class TestOperations:
    """Each operation is its formula, exactly at the selection and nowhere else; the batch has two items."""

    def selections(self, model, site):
        spec = model.stacks[site.stack]
        yield {}
        yield {"positions": (0, 3)}
        yield {"positions": 2}
        if spec.width(site.point) == spec.n_heads and spec.n_heads:
            yield {"heads": (1, 3), "positions": (1, 2)}
            yield {"heads": 2}
        if site.point not in PATTERN_POINTS and site.stack != "frontend":
            yield {"neurons": (0, 3), "positions": [4]}
            yield {"neurons": 1}

    def expect(self, model, batch, make, formula, places=None):
        for site in places or sites_of(model):
            for where in self.selections(model, site):
                before, after = changed(model, batch, make(site, **where))
                listed = {
                    k: (v,) if isinstance(v, int) else tuple(v)
                    for k, v in where.items()
                }  # fmt: skip
                mask = along(site, before, listed.get("positions"), listed.get("heads"), listed.get("neurons"))
                expected = torch.where(mask, formula(site, before), before)
                assert (after - expected).abs().max() < 1e-12, (site, where)
                assert torch.equal(after[~mask], before[~mask]) or site.point == "resid_mid", (site, where)
                assert (after != before).any(), (site, where)

    def test_scale(self, model, batch):
        self.expect(model, batch, lambda s, **w: scale(s, -0.5, **w), lambda _s, x: -0.5 * x)

    def test_add(self, model, batch):
        self.expect(model, batch, lambda s, **w: add(s, torch.tensor(0.25), 2.0, **w), lambda _s, x: x + 0.5)

    def test_add_a_direction(self, model, batch):
        vector = torch.linspace(-1, 1, 24, dtype=torch.float64)
        streams = [s for s in sites_of(model) if s.point.startswith("resid")]
        self.expect(model, batch, lambda s, **w: add(s, vector, 3.0, **w), lambda _s, x: x + 3 * vector, streams)

    def test_project_out(self, model, batch):
        generator = torch.Generator().manual_seed(0)
        directions = torch.randn(2, 24, generator=generator, dtype=torch.float64)
        pseudo = torch.linalg.pinv(directions)
        streams = [s for s in sites_of(model) if s.point in ("resid_pre", "resid_mid", "attn_out", "mlp_out")]
        self.expect(
            model,
            batch,
            lambda s, **w: project_out(s, directions, **w),
            lambda _s, x: x - x @ pseudo @ directions,
            streams,
        )
        site = Site(model.adapter.order[-1], 1, "resid_post")
        _, after = changed(model, batch, project_out(site, directions[0]))
        assert (after @ directions[0]).abs().max() < 1e-12

    def test_replace(self, model, batch):
        donor = model.capture(Inputs.stack([batch.item(1), batch.item(0)]), sites_of(model))
        differ = [s for s in sites_of(model) if not torch.equal(donor[s][0], donor[s][1])]
        assert len(differ) >= 8
        for site in differ:
            before, after = changed(model, batch, replace_with(site, donor[site], positions=(2, 3)))
            mask = along(site, before, (2, 3))
            assert (after - torch.where(mask, donor[site], before)).abs().max() < 1e-12

    def test_replace_with_as_many_positions_as_named_in_their_order(self, model, batch):
        for site in (s for s in sites_of(model) if s.stack != "frontend"):
            axis = 2 if site.point in PATTERN_POINTS else 1
            donor = torch.rand_like(model.capture(batch, [site])[site].narrow(axis, 0, 2))
            before, after = changed(model, batch, replace_with(site, donor, positions=(5, 1)))
            expected = before.clone()
            expected.select(axis, 5).copy_(donor.select(axis, 0))
            expected.select(axis, 1).copy_(donor.select(axis, 1))
            assert (after - expected).abs().max() < 1e-12, site

    def test_what_a_cache_gives_for_one_head_or_neuron_can_be_put_back_elsewhere(self, model, batch):
        for whole in (s for s in sites_of(model) if model.stacks[s.stack].width(s.point)):
            one = Site(whole.stack, whole.layer, whole.point, 2)
            swapped = model.capture(Inputs.stack([batch.item(1), batch.item(0)]), [one])
            before, after = changed(model, batch, replace_with(one, swapped[one]))
            heads, last = ((2,), None) if whole.point != "mlp_post" else (None, (2,))
            expected = torch.where(along(whole, before, None, heads, last), swapped[whole], before)
            assert torch.equal(after, expected), whole

    def test_mean_ablate(self, model, batch):
        def mean(site, x):
            axes = (0, 2) if site.point in PATTERN_POINTS else (0, 1)
            return x.mean(axes, keepdim=True).expand_as(x)

        reference = model.capture(batch, sites_of(model))
        self.expect(model, batch, lambda s, **w: mean_ablate(s, reference[s], **w), mean)

    def test_resample_ablate_puts_whole_natural_values(self, model, batch):
        reference = model.capture(batch, sites_of(model))
        for site in sites_of(model):
            axis = 2 if site.point in PATTERN_POINTS else 1
            before, after = changed(model, batch, resample_ablate(site, reference[site], seed=3))
            pool = reference[site].movedim(axis, 1).flatten(0, 1).flatten(1)
            rows = after.movedim(axis, 1).flatten(0, 1).flatten(1)
            nearest = torch.cdist(rows, pool).min(1).values
            assert nearest.max() < 1e-6, site
            assert not torch.equal(after, before)
            again = model.run(batch, [resample_ablate(site, reference[site], seed=3)], [site]).cache[site]
            other = model.run(batch, [resample_ablate(site, reference[site], seed=4)], [site]).cache[site]
            assert torch.equal(after, again)
            assert not torch.equal(after, other)

    def test_an_index_in_the_site_is_the_same_as_naming_it(self, model, batch):
        stack = model.adapter.order[-1]
        for point, where in (("z", {"heads": 3}), ("pattern", {"heads": (3,)}), ("mlp_post", {"neurons": np.int64(3)})):
            by_index = model.run(batch, [scale(f"{stack}.1.{point}.3", 0.0)]).logits
            by_name = model.run(batch, [scale(f"{stack}.1.{point}", 0.0, **where)]).logits
            assert torch.equal(by_index, by_name)
            assert not torch.equal(by_index, model.run(batch).logits)

    def test_a_pattern_of_sites_changes_each_of_them(self, model, batch):
        stack = model.adapter.order[-1]
        together = model.run(batch, [scale(f"{stack}.0-1.attn_out", 0.0)]).logits
        apart = model.run(batch, [scale(f"{stack}.{i}.attn_out", 0.0) for i in (1, 0)]).logits
        assert torch.equal(together, apart)

    def test_removing_every_part_of_a_pre_norm_layer_leaves_the_stream(self):
        for family in ("whisper", "llama", "wav2vec2-pre"):
            model = build(family, torch.float64)
            inputs, _ = pair(model)
            stack = model.adapter.order[-1]
            parts = [p for p in ("attn_out", "cross_attn_out", "mlp_out") if p in model.stacks[stack].points]
            output = model.run(inputs, [scale(f"{stack}.1.{p}", 0) for p in parts], f"{stack}.1.resid_*")
            start = output.cache[f"{stack}.1.resid_pre"]
            assert torch.equal(output.cache[f"{stack}.1.resid_mid"], start)
            assert torch.equal(output.cache[f"{stack}.1.resid_post"], start)


class TestWindows:
    """Windows in seconds are the frames of the clock."""

    @pytest.mark.parametrize("family", ["whisper", "hubert-base", "wav2vec2-pre"])
    def test_seconds_are_the_clocks_frames(self, family):
        model = build(family, torch.float64)
        batch = Inputs.stack(list(pair(model)))
        for name in ("frontend.0.conv_out", "frontend.1.conv_out", "encoder.1.resid_post"):
            site = model.sites(name)[0]
            frames = model.clock(site.stack, 4000, site.layer).frames(0.05, 0.12)
            before, after = changed(model, batch, scale(site, 0.0, seconds=(0.05, 0.12)))
            touched = (before != after).flatten(2).any(-1).any(0).nonzero().flatten().tolist()
            assert touched == list(frames)
            assert abs(len(frames) - 0.07 * model.adapter.frame_rate(site)) < 1

    def test_a_window_needs_the_sound(self):
        model = build("whisper")
        with (
            pytest.raises(
                SiteError, match=r"a window in seconds at 'encoder.0.z' needs to know the sound: pass inputs="
            ),
            model.intervene(scale("encoder.0.z", 0, seconds=(0, 0.1))),
        ):
            pass


class TestOrder:
    """Several interventions at once."""

    def test_two_at_one_site_act_in_the_order_given(self, model, batch):
        for site in sites_of(model):
            plain = model.capture(batch, [site])[site]
            first, second = add(site, torch.tensor(1.0)), scale(site, 3.0)
            there = model.run(batch, [first, second], [site]).cache[site]
            back = model.run(batch, [second, first], [site]).cache[site]
            assert (there - 3 * (plain + 1)).abs().max() < 1e-12, site
            assert (back - (3 * plain + 1)).abs().max() < 1e-12, site

    def test_the_stream_sees_what_its_parts_became_whatever_the_order_given(self, model, batch):
        """resid_mid together with attn_out: the part first, then the sum, then the change of the sum."""
        stack = model.adapter.order[-1]
        block = model.adapter.blocks(stack)[1]
        at = model.capture(batch, f"{stack}.1.*")
        both = [add(f"{stack}.1.resid_mid", torch.tensor(5.0)), scale(f"{stack}.1.attn_out", 2.0)]
        for order in (both, both[::-1]):
            output = model.run(batch, order, f"{stack}.1.*")
            mid = block.after_attn(at[f"{stack}.1.resid_pre"], 2 * at[f"{stack}.1.attn_out"])
            if block.cross is not None:
                mid = mid + output.cache[f"{stack}.1.cross_attn_out"]
            assert (output.cache[f"{stack}.1.resid_mid"] - (mid + 5)).abs().max() < 1e-9
            post = block.mlp(mid + 5)
            assert (output.cache[f"{stack}.1.resid_post"] - post).abs().max() < 1e-9

    def test_the_same_holds_in_nested_blocks_whatever_the_order_of_nesting(self, model, batch):
        stack = model.adapter.order[-1]
        at = model.capture(batch, f"{stack}.1.*")
        value = torch.linspace(-2, 2, 24, dtype=torch.float64)
        whole = replace_with(f"{stack}.1.resid_mid", value)
        below = [scale(f"{stack}.1.resid_pre", 2.0), scale(f"{stack}.1.attn_out", 3.0)]
        for outer, inner in (([whole], below), (below, [whole])):
            with model.intervene(*outer), model.intervene(*inner):
                seen = model.capture(batch, f"{stack}.1.*")
            assert (seen[f"{stack}.1.resid_mid"] - value).abs().max() < 1e-12
            assert (seen[f"{stack}.1.resid_pre"] - 2 * at[f"{stack}.1.resid_pre"]).abs().max() < 1e-12
            expected = model.adapter.blocks(stack)[1].mlp(value.expand_as(seen[f"{stack}.1.resid_mid"]))
            assert (seen[f"{stack}.1.resid_post"] - expected).abs().max() < 1e-12

    def test_a_part_is_read_as_itself_while_the_sum_after_it_is_changed(self, model, batch):
        stack = model.adapter.order[-1]
        last = "cross_attn_out" if "cross_attn_out" in model.stacks[stack].points else "attn_out"
        site = f"{stack}.1.{last}"
        plain = model.capture(batch, site)[site]
        change = add(f"{stack}.1.resid_mid", torch.tensor(5.0))
        assert torch.equal(model.run(batch, [change], [site]).cache[site], plain)
        with model.intervene(change):
            assert torch.equal(model.capture(batch, site)[site], plain)

    def test_writing_the_stream_after_cross_attention_leaves_its_parts_below_alone(self):
        model = build("whisper", torch.float64)
        inputs, _ = pair(model)
        plain = model.capture(inputs, "decoder.1.*")
        both = [replace_with("decoder.1.resid_mid", torch.zeros(24)), scale("decoder.1.cross_attn_out", 0.5)]
        output = model.run(inputs, both, "decoder.1.*")
        assert torch.equal(output.cache["decoder.1.attn_out"], plain["decoder.1.attn_out"])
        assert torch.equal(output.cache["decoder.1.cross_attn_out"], 0.5 * plain["decoder.1.cross_attn_out"])
        assert output.cache["decoder.1.resid_mid"].abs().max() < 1e-12
        expected = model.adapter.blocks("decoder")[1].mlp(torch.zeros_like(plain["decoder.1.resid_mid"]))
        assert (output.cache["decoder.1.resid_post"] - expected).abs().max() < 1e-12

    def test_pattern_then_z_then_output(self, model, batch):
        stack = model.adapter.order[-1]
        block = model.adapter.blocks(stack)[1]
        at = model.capture(batch, f"{stack}.1.*")
        changes = [scale(f"{stack}.1.z", 0.5), scale(f"{stack}.1.pattern", 4.0)]
        output = model.run(batch, changes, f"{stack}.1.z,{stack}.1.attn_out")
        assert (output.cache[f"{stack}.1.z"] - 2 * at[f"{stack}.1.z"]).abs().max() < 1e-9
        assert (output.cache[f"{stack}.1.attn_out"] - block.attn.out(2 * at[f"{stack}.1.z"])).abs().max() < 1e-9

    def test_causality(self, model, batch):
        stack = model.adapter.order[-1]
        plain = model.run(batch).logits
        output = model.run(batch, [add(f"{stack}.0.resid_pre", torch.linspace(-3, 3, 24), positions=(4,))]).logits
        moved = (plain != output).any(-1).any(0).tolist()
        assert any(moved[4:])
        if model.stacks[stack].causal:
            assert not any(moved[:4]), "an earlier token must not see a later change"
        else:
            assert all(moved)


class TestRemoval:
    """Nothing stays behind."""

    def hooks(self, model):
        from otoscope.models import attention

        dicts = [
            getattr(m, name)
            for m in model.hf.modules()
            for name in (
                "_forward_hooks",
                "_forward_pre_hooks",
                "_forward_hooks_with_kwargs",
                "_forward_pre_hooks_with_kwargs",
            )
        ]
        return sum(map(len, dicts)) + sum(attention.tapped(m) for m in model.hf.modules())

    def test_after_the_block(self, model, batch):
        plain, before = model.run(batch).logits, self.hooks(model)
        with model.intervene(scale("*", 0.5)):
            assert self.hooks(model) > before
            assert not torch.equal(model.adapter.forward(batch), plain)
        assert self.hooks(model) == before
        assert torch.equal(model.run(batch).logits, plain)

    def test_after_an_exception_in_the_block_in_a_change_and_while_attaching(self, model, batch):
        plain, before = model.run(batch).logits, self.hooks(model)
        stack = model.adapter.order[-1]
        with pytest.raises(KeyboardInterrupt), model.intervene(scale(f"{stack}.*.*", 0.5)):
            raise KeyboardInterrupt

        def fails(_x, _at):
            raise ValueError("mine")

        with pytest.raises(ValueError, match="mine"):
            model.run(batch, [scale("*", 0.5), Intervention(f"{stack}.1.z", fails)], "*")
        with pytest.raises(SiteError):
            model.run(batch, [scale("*", 0.5), scale(f"{stack}.1.z", 0, heads=99)], "*")
        assert self.hooks(model) == before
        assert torch.equal(model.run(batch).logits, plain)

    def test_nested_blocks_stack_and_unstack(self, model, batch):
        site = f"{model.adapter.order[-1]}.1.resid_pre"
        plain = model.capture(batch, site)[site]
        with model.intervene(scale(site, 2.0)):
            with model.intervene(add(site, torch.tensor(1.0))):
                assert (model.capture(batch, site)[site] - (2 * plain + 1)).abs().max() < 1e-12
            assert (model.capture(batch, site)[site] - 2 * plain).abs().max() < 1e-12


WHISPER_BAD = [
    (scale("encodr.0.z", 0), "has no stack 'encodr'.*Did you mean 'encoder'"),
    (scale("encoder.9.z", 0), "has no layer 9: its layers are 0 to 2"),
    (scale("encoder.0.cross_z", 0), "has no point 'cross_z'"),
    (scale("encoder.0.z.4", 0), "has no head 4: its heads are 0 to 3"),
    (scale("encoder.0.z", 0, heads=4), "has no head 4: its heads are 0 to 3"),
    (scale("encoder.0.z", 0, heads=(-1, 2)), "are not usable: expected numbers from 0 to 3"),
    (scale("encoder.0.z", 0, heads=()), "are not usable: expected numbers from 0 to 3"),
    (scale("encoder.0.resid_pre", 0, heads=1), "has no heads: name z, pattern, cross_z or cross_pattern"),
    (scale("encoder.0.mlp_post.40", 0), "has no neuron 40: its neurons are 0 to 39"),
    (scale("encoder.0.mlp_post", 0, neurons=(3, 40)), r"has no neurons \[40\]: its last dimension has 40 neurons"),
    (scale("encoder.0.resid_pre", 0, neurons=-1), r"has no neurons \[-1\]: its last dimension has 24 neurons"),
    (scale("encoder.0.resid_pre", 0, neurons=()), "its last dimension has 24 neurons"),
    (scale("encoder.0.pattern", 0, neurons=1), "its last dimension has keys, not neurons"),
    (scale("encoder.0.z", 0, positions=50), "has no position 50: its positions are 0 to 49"),
    (scale("encoder.0.z", 0, positions=(-1,)), "are not usable: expected numbers from 0 up"),
    (scale("encoder.0.z", 0, positions=()), "are not usable: expected numbers from 0 up"),
    (scale("decoder.0.z", 0, positions=7), "has no position 7: the positions of these tokens are 0 to 6"),
    (scale("decoder.*.z", 0, positions=(1, 7)), "has no position 7: the positions of these tokens are 0 to 6"),
    (scale("encoder.0.z", 0, seconds=(0.2, 0.1)), "is empty: its end must come after its start"),
    (scale("encoder.0.z", 0, seconds=(7, 8)), "lies outside the stack, which covers 0-0.98 s"),
    (scale("encoder.0.z", 0, seconds=(0, 1), positions=1), "names positions and seconds: give one of the two"),
    (scale("decoder.0.z", 0, seconds=(0, 1)), "are tokens, not time: name positions instead of seconds"),
    (replace_with("encoder.0.z", torch.zeros(1, 49, 4, 6)), "has 49 positions where the model has 50"),
    (replace_with("encoder.0.z", torch.zeros(1, 51, 4, 6)), "has 51 positions where the model has 50"),
    (
        replace_with("encoder.0.z", torch.zeros(1, 2, 4, 6), positions=(1, 2, 3)),
        "has 2 positions where the model has 50",
    ),
    (
        replace_with("encoder.0.resid_pre", torch.zeros(23)),
        r"'replace' does not fit 'encoder.0.resid_pre'.*\(1, 50, 24\)",
    ),
    (add("encoder.0.resid_pre", torch.zeros(23)), r"'add' does not fit .*\(1, 50, 24\)"),
    (add("encoder.0.resid_pre", torch.zeros(5, 1, 1, 24)), r"must keep its shape \(1, 50, 24\)"),
    (add("encoder.0.resid_pre", torch.zeros(3, 1, 24)), r"must keep its shape \(1, 50, 24\)"),
    (project_out("encoder.0.resid_pre", torch.ones(23)), "'project_out' does not fit"),
    (mean_ablate("encoder.0.resid_pre", torch.ones(2, 3, 5)), "'mean_ablate' does not fit"),
]


@pytest.mark.parametrize(("bad", "sentence"), WHISPER_BAD, ids=range(len(WHISPER_BAD)))
def test_bad_input_gets_one_sentence_that_helps(bad, sentence):
    model = build("whisper")
    with pytest.raises(SiteError, match=sentence) as caught:
        model.run(pair(model)[0], [bad])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("directions", [torch.zeros(24), torch.ones(2, 24), torch.eye(24)[[*range(24), 0]]])
def test_dependent_directions_are_refused(directions):
    with pytest.raises(SiteError, match="are linearly dependent or zero: give independent ones"):
        project_out("encoder.0.resid_pre", directions)
