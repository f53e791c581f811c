"""Sweeps of audio-LLMs: sound and text in one decoder, a tower that is run only where it was patched."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from otoscope.engine.metrics import KL, LabelLogProb, LogitDiff
from otoscope.engine.patch import Patch
from otoscope.engine.sweep import sweep
from otoscope.errors import SiteError
from tests.engine.test_prefix import computed  # noqa: F401
from tests.engine.test_sweep import EXACT, patches_everywhere
from tests.tiny import FAMILIES, build, sound

LISTENERS = [family for family in FAMILIES if build(family).listens_and_reads]


@pytest.fixture(params=LISTENERS)
def family(request):
    return request.param


class Corners:
    """Base (sound A, context B), donors (B, B) and (A, A), and where sound, context and answer are."""

    def __init__(self, model, sounds=(1, 2, 1), contexts=(1, 1, 0)):
        clips = [sound(i) for i in sounds]
        n = model.adapter.audio_tokens(len(clips[0].samples))
        words = np.random.default_rng(0).integers(10, 50, (2, 3)).tolist()
        before, after = [11, 12], [13, 14, 15]
        tokens = [[*before, *[model.adapter.audio_token] * n, *words[c], *after] for c in contexts]
        self.inputs = [model.inputs(clip, tokens=t) for clip, t in zip(clips, tokens)]
        self.n = len(tokens[0])
        self.audio = tuple(range(2, 2 + n))
        self.context = tuple(range(2 + n, 5 + n))
        self.metric = LogitDiff(5, 7, self.n - 1)

    def sweep(self, model, patches, metrics=None, **options):
        return sweep(model, self.inputs[0], self.inputs[1:], patches, metrics or self.metric, **options)


def grounding(model, corners):
    """The study's questions: at every layer, the sound of (B, B) and the context of (A, A)."""
    for layer in range(model.stacks["decoder"].n_layers):
        yield Patch(f"decoder.{layer}.resid_pre", corners.audio, donor=0)
        yield Patch(f"decoder.{layer}.resid_pre", corners.context, donor=1)


@pytest.mark.parametrize("dtype", EXACT, ids=["float32", "float64"])
def test_the_grounding_sweep_equals_naive_hooks(family, dtype):
    model = build(family, dtype)
    corners = Corners(model)
    last = corners.n - 1
    metrics = [LabelLogProb((5,), last, "a"), LabelLogProb((7,), last, "b"), KL(corners.audio[-1]), LogitDiff(5, 7, 0)]
    patches = list(grounding(model, corners))
    fast = corners.sweep(model, patches, metrics)
    slow = corners.sweep(model, patches, metrics, method="naive")
    for name in fast.values:
        assert np.abs(fast.values[name] - slow.values[name]).max() < EXACT[dtype]
    # the whole of the sound, or of the context, is exchanged at layer 0: the run is the donor's
    assert fast.values["a"][:2] == pytest.approx(slow.donors["a"], abs=1e-4)
    assert np.abs(slow.values["a"] - slow.base["a"]).max() > 0.01


@pytest.mark.parametrize("sounds", [(1, 2, 1), (3, 1, 2)], ids=["one sound shared", "all differ"])
def test_every_site_equals_naive_hooks_with_sound_and_text_exchanged(family, sounds):
    model = build(family)
    corners = Corners(model, sounds)
    patches = list(patches_everywhere(model, corners.inputs[0]))[::3]
    patches += [Patch(p.site, p.positions, p.heads, p.neurons, donor=1) for p in patches[::3]]
    metrics = [corners.metric, KL(corners.audio[0], name="kl at the sound")]
    fast = corners.sweep(model, patches, metrics)
    slow = corners.sweep(model, patches, metrics, method="naive")
    for name in fast.values:
        assert np.abs(fast.values[name] - slow.values[name]).max() < 1e-4


def test_the_prefix_before_the_sound_and_after_a_donors_span_is_not_computed(family, computed):  # noqa: F811
    model = build(family)
    corners, layers = Corners(model), model.stacks["decoder"].n_layers

    def cost(patches):
        computed.clear()
        corners.sweep(model, patches)
        return sum(computed)

    def rows(n):
        return sum(n * (layers - 1 - k) + 1 for k in range(1, layers))

    after_audio, after_context = corners.n - corners.audio[-1] - 1, corners.n - corners.context[-1] - 1
    everything = list(grounding(model, corners))
    assert cost([p for p in everything if p.donor == 0]) == rows(after_audio)
    assert cost([p for p in everything if p.donor == 1]) == rows(after_context)
    # one head of the sound: all from the first audio position on
    heads = [Patch("decoder.0.z", corners.audio, heads=(1,))]
    assert cost(heads) == len(corners.audio) + (corners.n - corners.audio[0]) * (layers - 2) + 1
    # the projected sound: the language model starts at it
    assert cost([Patch("connector.0.resid_post", (0,))]) == (corners.n - corners.audio[0]) * (layers - 1) + 1


def test_patches_of_the_decoder_never_run_the_tower_again(family):
    model = build(family)
    corners = Corners(model)
    runs = []
    handle = model.adapter.stack_module("encoder").register_forward_hook(lambda *_: runs.append(1))
    corners.sweep(model, list(grounding(model, corners)))
    assert len(runs) == 1, "one for the plain runs"
    runs.clear()
    corners.sweep(model, [Patch(site, (1,)) for site in model.sites("connector.*.*")])
    handle.remove()
    assert len(runs) == 1, "one for the plain runs: what the connector makes goes straight to the language model"


def test_what_was_patched_in_the_tower_is_observed_at_its_end(family):
    model = build(family)
    corners = Corners(model)
    seen = {}
    sites = ["encoder.0.resid_post", "connector.0.resid_post", "decoder.1.attn_out"]
    patches = [Patch(site, (0, 2)) for site in sites]
    corners.sweep(model, patches, observe=lambda patch, x: seen.update({patch.site: x}) or 0.0)
    for site, stack in zip(sites, ("encoder", "connector", "decoder")):
        end = f"{stack}.{model.stacks[stack].n_layers - 1}.resid_post"
        donor = model.capture(corners.inputs[1], site)[site]
        changed = model.run(corners.inputs[0], [Patch(site, (0, 2)).intervention(donor)], end).cache[end][0]
        assert torch.allclose(seen[site], changed[-1:] if stack == "decoder" else changed, atol=1e-4)


def test_cost_counts_the_tower_for_naive_hooks_even_where_only_the_decoder_is_patched(family):
    model = build(family)
    corners = Corners(model)
    found = corners.sweep(model, [Patch("decoder.1.resid_pre", corners.audio)]).cost
    with_tower = corners.sweep(model, [Patch("encoder.1.resid_pre", (0,))]).cost
    assert found.naive_tflop == pytest.approx(with_tower.naive_tflop)
    assert found.tflop < with_tower.tflop


def test_without_a_sound_the_decoder_is_swept_and_the_tower_refused(family):
    model = build(family)
    a, b = (model.inputs(tokens=[11, 12, word, 14, 15]) for word in (20, 30))
    patches = [Patch(f"decoder.{k}.resid_pre", (2,)) for k in range(model.stacks["decoder"].n_layers)]
    patches.append(Patch("decoder.1.z", heads=(0,)))
    fast, slow = (sweep(model, a, b, patches, LogitDiff(5, 7, 4), method=m) for m in ("replay", "naive"))
    assert np.abs(fast.values["logit_diff"] - slow.values["logit_diff"]).max() < 1e-4
    with pytest.raises(SiteError, match="without a sound"):
        sweep(model, a, b, [Patch("encoder.0.resid_pre")], LogitDiff(5, 7, 4))
