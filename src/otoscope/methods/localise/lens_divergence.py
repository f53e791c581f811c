"""Lens divergence: how differently a place writes the answer, by itself, in the two runs.

What a decoder's head or MLP adds to the residual stream at the position that is read goes straight through the final norm
and the unembedding, as the logit lens reads it (direct logit attribution; Elhage et al. 2021; :mod:`otoscope.methods.lens`):

    score = | direct(donor) - direct(base) |,   direct(c) = (w_answer - w_foil) . (g * centre(c) / s)

with the norm's scale ``s`` frozen at the base run, so that the parts add up to the whole. Paths through later layers are
not seen. An encoder writes into another stream that no lens of the decoder reads: its places, and a connector's, are NaN.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from otoscope.engine.model import Model
from otoscope.methods.localise.case import Case
from otoscope.methods.localise.places import LOGITS, Place
from otoscope.methods.localise.registry import method
from otoscope.models.site import Site


@method(
    "lens-divergence",
    arms=("repair", "pairs", "circuit"),
    summary="change of what a place writes straight to the logits",
)
@torch.no_grad()
def lens_divergence(case: Case) -> Float[np.ndarray, "item place"]:
    """Change of the direct logit difference; in the circuit arm the fall of it, with its sign."""
    rows = np.full((case.n_items, len(case.places)), np.nan)
    for i in range(case.n_items):
        base, donor = case.base_values(i), case.donor_values(i)
        at, vocab = case.metric(i).position, case.metric(i).vocab
        n = case.model.stacks["decoder"].n_layers
        end = base[Site("decoder", n - 1, "resid_post")][:, [at]]
        for j, place in enumerate(case.places):
            if place.site == LOGITS:
                pair = (donor[LOGITS] - base[LOGITS])[0, 0].double()
                change = float(pair[0] - pair[1])
            elif place.site.stack != "decoder":
                continue
            else:
                moved = donor[place.site][:, [at]] - base[place.site][:, [at]]
                change = direct(case.model, written(case.model, place, moved, at), end, vocab)
            rows[i, j] = 0.0 - change if case.arm == "circuit" else abs(change)
    return rows


@torch.no_grad()
def written(model: Model, place: Place, value: Tensor, at: int) -> Float[Tensor, "1 1 d_model"]:
    """What a decoder's place adds to the residual stream at position ``at``, without biases; linear in ``value``.

    Args:
        model: the model.
        place: heads, an MLP's output, or the stream itself, or channels or positions of them.
        value: the whole site's value at that position, ``[1, 1, ...]``.
        at: the position.
    """
    site = place.site
    if place.positions is not None and at not in place.positions:
        value = torch.zeros_like(value)
    if place.channels is not None:
        kept = torch.zeros_like(value)
        kept[..., list(place.channels)] = value[..., list(place.channels)]
        value = kept
    if site.point.startswith("resid"):
        return value
    block = model.adapter.blocks("decoder")[site.layer]
    if site.point in ("z", "cross_z"):
        attention = block.attn if site.point == "z" else block.cross
        assert attention is not None
        heads = range(value.shape[2]) if place.heads is None else place.heads
        kept = torch.zeros_like(value)
        kept[:, :, list(heads)] = value[:, :, list(heads)]
        value = attention.out(kept) - attention.out(torch.zeros_like(kept))
    return value * block.residual


@torch.no_grad()
def direct(
    model: Model,
    part: Float[Tensor, "1 1 d_model"],
    end: Float[Tensor, "1 1 d_model"],
    vocab: tuple[int, ...] | None,
) -> float:
    """Logit of the answer minus logit of the foil that ``part`` of the last stream ``end`` makes, the final norm's scale
    being that of ``end``."""
    adapter = model.adapter
    nothing = adapter.final("decoder", torch.zeros_like(end))  # the norm's bias
    # a norm that subtracts the mean knows no constant; one that does not gives it a value
    centred = torch.allclose(adapter.final("decoder", torch.ones_like(end)), nothing, atol=1e-5)
    size, whole = (_rms(x, centred) for x in (part, end))
    if size == 0 or whole == 0:
        return 0.0
    # the part is brought to the size of the whole, where the norm's scale is that of the whole, and back
    there = adapter.final("decoder", part * (whole / size)) - nothing
    # in float64 from here, since a part is often a small share of the whole
    tokens = torch.tensor(vocab, device=end.device)
    zero = adapter.unembed(torch.zeros_like(there), tokens)[0, 0].double()
    pair = (adapter.unembed(there, tokens)[0, 0].double() - zero) * (size / whole)
    return float(pair[0] - pair[1])


def _rms(x: Tensor, centred: bool) -> float:
    x = x.double()
    x = x - x.mean(-1, keepdim=True) if centred else x
    return float(x.pow(2).mean().sqrt())
