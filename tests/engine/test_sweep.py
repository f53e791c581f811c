"""The sweep equals one full hooked forward per patch: every family, every point, both directions, float32 and float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from otoscope.engine.metrics import KL, LogitDiff
from otoscope.engine.patch import Patch
from otoscope.engine.sweep import sweep
from otoscope.models.site import HEAD_POINTS
from tests.tiny import FAMILIES, build, pair

EXACT = {torch.float32: 1e-4, torch.float64: 1e-9}


def patches_everywhere(model, inputs, seed=0):
    """Patches of every site: all positions, one, a short window, a set with holes, and one head or neuron."""
    rng = np.random.default_rng(seed)
    cache = model.capture(inputs, "*")
    for site in cache.sites():
        n = cache[site].shape[2 if "pattern" in site.point else 1]
        start = int(rng.integers(0, n))
        yield Patch(site)
        yield Patch(site, positions=(start,))
        yield Patch(site, positions=tuple(range(start, min(n, start + 3))))
        yield Patch(site, positions=tuple(sorted({start, int(rng.integers(0, n)), n - 1})))
        if site.point in HEAD_POINTS:
            yield Patch(site, heads=(1, 3), positions=(start,))
        elif site.stack != "frontend":
            yield Patch(site, neurons=(0, 5), positions=(start,))
        if site.point == "mlp_post":
            yield Patch(f"{site}.7")


@pytest.mark.parametrize("dtype", EXACT, ids=["float32", "float64"])
@pytest.mark.parametrize("family", FAMILIES)
def test_replay_equals_naive_hooks(family, dtype):
    model = build(family, dtype)
    clean, corrupt = pair(model)
    last = model.run(clean).logits.shape[1] - 1
    metrics = [LogitDiff(5, 7, last), LogitDiff(2, 9, last // 2, name="middle")]
    for base, donor in ((corrupt, clean), (clean, corrupt)):
        patches = list(patches_everywhere(model, clean))
        fast = sweep(model, base, donor, patches, metrics, memory_gb=1e-4)
        slow = sweep(model, base, donor, patches, metrics, method="naive")
        for name in fast.values:
            assert np.abs(fast.values[name] - slow.values[name]).max() < EXACT[dtype]
        changed = np.abs(slow.values["logit_diff"] - slow.base["logit_diff"]) > EXACT[dtype]
        assert changed.mean() > 0.3, "most patches must do something, or the test shows nothing"


@pytest.mark.parametrize("family", ["whisper", "llama", "hubert-ctc-pre"])
def test_whole_vocabulary_metrics_equal_naive(family):
    model = build(family)
    clean, corrupt = pair(model)
    patches = list(patches_everywhere(model, clean))[::5]
    fast = sweep(model, corrupt, clean, patches, KL())
    slow = sweep(model, corrupt, clean, patches, KL(), method="naive")
    assert np.abs(fast.values["kl"] - slow.values["kl"]).max() < 1e-4


def test_finished_chunks_are_kept_small_and_serve_only_the_same_question():
    model = build("llama")
    clean, corrupt = pair(model)
    patches = [Patch(f"decoder.{layer}.z", positions=(3,), heads=(1,)) for layer in range(4)]
    kept, computed = {}, []

    def step(key, compute):
        if key not in kept:
            computed.append(key)
            kept[key] = compute()
        return kept[key]

    def ask(metric, **options):
        return sweep(model, corrupt, clean, patches, metric, step=step, memory_gb=1e-5, **options)

    first = ask(KL())
    once = len(kept)
    assert len(computed) == once > 1
    assert sum(array.size for found in kept.values() for array in found.values()) == len(patches), "values, not logits"
    assert np.array_equal(ask(KL()).values["kl"], first.values["kl"])
    assert len(computed) == once
    other = ask(KL(position=-2))
    assert len(kept) == len(computed) == 2 * once
    slow = sweep(model, corrupt, clean, patches, KL(position=-2), method="naive")
    assert np.abs(other.values["kl"] - slow.values["kl"]).max() < 1e-4
    assert np.abs(other.values["kl"] - first.values["kl"]).max() > 1e-3
