"""The last layer of Whisper's encoder, computed for the frames of the sound alone.

In Whisper's window most frames are padding. The layers below the last one need them, since every frame attends to all; of
the last layer itself only keys and values are computed for them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from otoscope.engine.capture import capture_until
from otoscope.engine.model import Model
from otoscope.models.block import Block
from otoscope.models.inputs import Inputs
from otoscope.models.linear import linear
from otoscope.models.site import Site

#: points of a layer that can be computed for some of its frames alone
_PARTIAL = ("z", "attn_out", "resid_mid", "mlp_post", "mlp_out", "resid_post")


def heard_partly(model: Model, sites: Sequence[Site], inputs: Inputs) -> dict[Site, list[Tensor]] | None:
    """Values at all sites, a tensor per sound, those of the last layer for each sound's own frames only.

    Args:
        model: any; None is given back for what is no Whisper.
        sites: whole ones, in the order of computation.
        inputs: sounds.
    """
    last = sites[-1]
    if model.family != "whisper" or last.stack != "encoder":
        return None
    if any((s.stack, s.layer) == (last.stack, last.layer) and s.point not in _PARTIAL for s in sites):
        return None
    entry = Site("encoder", last.layer, "resid_pre")
    below = [s for s in sites if s.stack != "encoder" or s.layer < last.layer]
    cache = capture_until(model.adapter, inputs, [*below, entry])
    found = {site: list(cache[site]) for site in below}
    points = [s for s in sites if s not in found]
    found |= {site: [] for site in points}
    block = model.adapter.blocks("encoder")[last.layer]
    for item, n_samples in enumerate(inputs.n_samples):
        n_valid = model.clock("encoder", n_samples, last.layer).n_valid
        values = _layer(block, cache[entry][item : item + 1], n_valid)
        for site in points:
            found[site].append(values[site.point][0])
    return found


def _layer(block: Block, x: Float[Tensor, "1 frame d"], n: int) -> dict[str, Tensor]:
    """One encoder layer for its first ``n`` frames, which attend to all of them."""
    h, attn = block.attn_input(x), block.attn
    everywhere = torch.arange(x.shape[1], device=x.device)
    k, v = attn.keys(h, everywhere), attn.values(h)
    z = attn.attend(attn.queries(h[:, :n], everywhere[:n]), k, v)
    attn_out = attn.out(z)
    mid = block.after_attn(x[:, :n], attn_out)
    neurons = block.mlp_neurons(mid)
    mlp_out = linear(block.down, neurons)
    return {
        "z": z, "attn_out": attn_out, "resid_mid": mid, "mlp_post": neurons, "mlp_out": mlp_out,
        "resid_post": block.after_mlp(mid, mlp_out),
    }  # fmt: skip
