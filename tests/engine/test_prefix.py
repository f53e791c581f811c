"""What a plain run already knows is not computed again: prefixes of the base and of donors, in causal stacks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from otoscope.engine.metrics import KL, LogitDiff
from otoscope.engine.patch import Patch
from otoscope.engine.sweep import sweep
from otoscope.models.block import Block
from tests.engine.test_sweep import EXACT
from tests.tiny import build, sound

N = 12
#: where the two donors' tokens differ from the base's
SPANS = ((3, 7), (8, 10))
POSITIONS = {
    "the difference": (3, 4, 5, 6),
    "from the very start": tuple(range(7)),
    "more than the difference": (2, 3, 4, 5, 6, 7),
    "its first half": (3, 4),
    "its second half": (5, 6),
    "a hole in it": (3, 4, 6),
    "a hole in it, filled after it": (3, 5, 9, 10),
    "the other difference": (8, 9),
    "both": (3, 4, 5, 6, 8, 9),
    "the end": (11,),
    "everything": None,
}


def corners(model, clips=(None, None, None)):
    """A base and two donors, each with other tokens in its own span."""
    rng = np.random.default_rng(0)
    base = rng.integers(4, 50, N)
    tokens = [base]
    for a, b in SPANS:
        tokens.append(base.copy())
        tokens[-1][a:b] = (base[a:b] + 1 + rng.integers(0, 20, b - a)) % 46 + 4
    return [model.inputs(clip, tokens=t.tolist()) for clip, t in zip(clips, tokens)]


def questions(model):
    """Every span at every layer, of the whole stream and of what is less than that."""
    for layer in range(model.stacks["decoder"].n_layers):
        for positions in POSITIONS.values():
            for donor in range(2):
                for point in ("resid_pre", "resid_mid", "resid_post", "attn_out"):
                    yield Patch(f"decoder.{layer}.{point}", positions=positions, donor=donor)
                yield Patch(f"decoder.{layer}.z", positions=positions, donor=donor, heads=(1, 2))
                yield Patch(f"decoder.{layer}.resid_pre", positions=positions, donor=donor, neurons=(0, 5))
        yield Patch(f"decoder.{layer}.resid_pre", positions=(3, 4, 5, 6), value=torch.ones(1, N, 24))
        yield Patch(f"decoder.{layer}.resid_pre", positions=(3, 4, 5, 6), value=torch.ones(1, 4, 24))


def agree(model, inputs, patches, reads, dtype=torch.float32):
    """Largest difference between the replay and naive hooks, for several read positions at once."""
    metrics = [m for p in reads for m in (LogitDiff(5, 7, p, name=f"diff {p}"), KL(p, name=f"kl {p}"))]
    fast = sweep(model, inputs[0], inputs[1:], patches, metrics)
    slow = sweep(model, inputs[0], inputs[1:], patches, metrics, method="naive")
    for name in fast.values:
        assert np.abs(fast.values[name] - slow.values[name]).max() < EXACT[dtype], name
    return slow


@pytest.mark.parametrize("dtype", EXACT, ids=["float32", "float64"])
@pytest.mark.parametrize(
    ("family", "reads"),
    [("llama", reads) for reads in ((1,), (4,), (5, 8), (N - 1,))] + [("qwen3", (0, 6, 7, N - 1))],
    ids=str,
)
def test_prefixes_equal_naive_hooks(family, reads, dtype):
    model = build(family, dtype)
    agree(model, corners(model), list(questions(model)), reads, dtype)


@pytest.mark.parametrize("dtype", EXACT, ids=["float32", "float64"])
@pytest.mark.parametrize("sounds", [(1, 1, 1), (1, 1, 2), (1, 2, 3)], ids=["same", "one same", "all differ"])
def test_a_decoder_that_listens_elsewhere_takes_a_donors_prefix_only_of_the_same_sound(sounds, dtype):
    model = build("whisper", dtype)
    inputs = corners(model, [sound(i) for i in sounds])
    slow = agree(model, inputs, list(questions(model)), (4, N - 1), dtype)
    assert np.abs(slow.values["diff 11"] - slow.base["diff 11"]).max() > 0.1


@pytest.fixture
def computed(monkeypatch):
    """Positions whose MLP a replay computes, one entry per layer and batch."""
    counts: list[int] = []
    mlp = Block.mlp
    monkeypatch.setattr(Block, "mlp", lambda self, mid: (counts.append(mid.shape[0] * mid.shape[1]), mlp(self, mid))[1])
    return counts


def test_after_a_donors_span_only_later_positions_are_computed(computed):
    model = build("llama")
    layers = model.stacks["decoder"].n_layers

    def cost(positions, donor=0, read=N - 1):
        computed.clear()
        patches = [Patch(f"decoder.{k}.resid_pre", positions=positions, donor=donor) for k in range(layers)]
        sweep(model, *corners(model)[:1], corners(model)[1:], patches, LogitDiff(5, 7, read))
        return sum(computed)

    def rows(n, entering):
        """``n`` positions per row in every layer from the one it enters, but the read one alone in the last."""
        return sum(n * (layers - 1 - k) + 1 for k in entering)

    # at layer 0 the patched run is the donor's own, so no row is needed for it
    assert cost((3, 4, 5, 6)) == rows(N - 7, range(1, layers))
    assert cost((8, 9), donor=1) == rows(N - 10, range(1, layers))
    assert cost(tuple(range(7))) == rows(N - 7, range(1, layers))
    # the second half of the difference stays the base's: the donor's prefix ends before it
    assert cost((3, 4)) == rows(N - 5, range(layers))
    # the first half stays the base's: no donor's prefix, the base's ends at the first changed position
    assert cost((5, 6)) == rows(N - 5, range(layers))
    # nothing that is read comes after the span: the donor's logits answer
    assert cost((3, 4, 5, 6), read=6) == 0
    assert cost(None) == 0
    # nothing that is read sees the span: the base's logits answer
    assert cost((8, 9), donor=1, read=7) == 0


def test_rows_of_one_donor_and_span_share_a_batch(computed):
    model = build("llama")
    layers = model.stacks["decoder"].n_layers
    inputs = corners(model)
    patches = [Patch(f"decoder.{k}.resid_pre", positions=(3, 4, 5, 6)) for k in range(1, layers)]
    patches += [Patch(f"decoder.{k}.resid_post", positions=(0, 2, 3, 4, 5, 6)) for k in range(layers - 1)]
    sweep(model, inputs[0], inputs[1:], patches, LogitDiff(5, 7, N - 1))
    assert len(computed) == layers - 1, "one call per layer, not one per row"


def test_a_donors_answer_is_observed_like_a_replayed_one():
    model = build("llama")
    inputs = corners(model)
    layers = model.stacks["decoder"].n_layers
    seen = {}

    def observe(patch, states):
        seen[patch.label] = states
        return float(states.shape[0])

    patches = [
        Patch("decoder.0.resid_pre", (3, 4, 5, 6), label="known"),
        Patch("decoder.2.resid_pre", (3, 4), label="run"),
    ]
    found = sweep(model, inputs[0], inputs[1:], patches, LogitDiff(5, 7, N - 1), observe=observe)
    assert found.observed.tolist() == [1, 1]
    end = model.capture(inputs[1], f"decoder.{layers - 1}.resid_post")[f"decoder.{layers - 1}.resid_post"]
    assert torch.allclose(seen["known"], end[0, -1:], atol=1e-5)
    assert seen["run"].shape == seen["known"].shape
