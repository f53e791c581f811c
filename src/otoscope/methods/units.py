"""Activity of every neuron and head of a Whisper, and where every head looks.

A neuron's activity is its value after the non-linearity (``mlp_post``). A head's is how much it writes: the norm of its part of the
attention's output, ``|z_h W_O^h|``.

Where a head looks is a share of its attention, beside the share that equal attention to everything would give (chance).
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from otoscope.engine.capture import Cache, capture_until
from otoscope.engine.model import Model
from otoscope.errors import ModelError
from otoscope.methods.unit_selectivity import standard_ranks
from otoscope.models.inputs import Inputs
from otoscope.models.site import Site

#: points whose units are looked at, in the order of the listing
ENCODER, DECODER = ("z", "mlp_post"), ("z", "cross_z", "mlp_post")
#: frames on either side of a query that count as "where it is", and up to which as "just before" or "just after"
_HERE, _NEAR = 2, 12


def unit_sites(model: Model, stack: str) -> list[Site]:
    """The sites whose units are heads or neurons, layer by layer.

    Raises:
        ModelError: the model is no Whisper.
    """
    if model.family != "whisper":
        raise ModelError(f"{model.name} is no Whisper: the atlas is of Whisper's encoder and decoder.")
    points = ENCODER if stack == "encoder" else DECODER
    return [Site(stack, layer, point) for layer in range(model.stacks[stack].n_layers) for point in points]


def names_of(model: Model, site: Site) -> list[str]:
    """Names of a site's units, ``encoder.2.mlp_post.117``."""
    return [f"{site}.{i}" for i in range(model.stacks[site.stack].width(site.point))]


@torch.no_grad()
def activity(
    model: Model, inputs: Inputs, sites: list[Site], positions: Int[np.ndarray, " row"]
) -> dict[Site, Float[np.ndarray, "row unit"]]:
    """Activity of all units of ``sites`` at some positions of one item.

    Args:
        model: a Whisper.
        inputs: one item.
        sites: from ``unit_sites``, of one stack.
        positions: frames or tokens.
    """
    found: Cache = capture_until(model.adapter, inputs, sites)
    kept = torch.as_tensor(np.asarray(positions))
    return {site: written(model, site, found[site][0][kept]).float().cpu().numpy() for site in sites}


def written(model: Model, site: Site, value: Float[Tensor, "row ..."]) -> Float[Tensor, "row unit"]:
    """Activity of each unit from the value at its site: a neuron's own, or the norm of what a head writes."""
    if site.point == "mlp_post":
        return value
    block = model.adapter.blocks(site.stack)[site.layer]
    attention = block.cross if site.point == "cross_z" else block.attn
    assert attention is not None
    weight: Tensor = attention.o.weight  # type: ignore[assignment]
    n_heads, d_head = value.shape[1:]
    # |z W|^2 = z (W W') z', so the width of the stream never enters
    per_head = weight.T.reshape(n_heads, d_head, -1)
    gram = per_head @ per_head.transpose(1, 2)
    return torch.einsum("rhd,hde,rhe->rh", value, gram, value).clamp_min(0).sqrt()


def encoder_looks(
    pattern: Float[np.ndarray, "head query key"],
    n_valid: int,
    silent: Bool[np.ndarray, " valid"],
    phone: Int[np.ndarray, " valid"],
) -> dict[str, Float[np.ndarray, " head"]]:
    """Excess attention of encoder heads, from the frames inside the recording, to places named in words.

    Args:
        pattern: attention of every frame to every frame.
        n_valid: frames inside the recording.
        silent: which of those are pauses.
        phone: which phone each of those is in, -1 for none; every instance of a phone has the same number.
    """
    seen = pattern[:, :n_valid].astype(np.float64)
    n = seen.shape[-1]
    offset = np.arange(n)[None, :] - np.arange(n_valid)[:, None]
    other = np.zeros((n_valid, n), bool)
    other[:, :n_valid] = (
        (phone[:, None] == phone[None, :]) & (phone[:, None] >= 0) & (np.abs(offset[:, :n_valid]) > _NEAR)
    )
    padding, pause = np.zeros(n, bool), np.zeros(n, bool)
    padding[n_valid:] = True
    pause[:n_valid] = silent
    places: dict[str, Bool[np.ndarray, "valid key"]] = {
        "its own frame": np.abs(offset) <= _HERE,
        "just before": (offset < -_HERE) & (offset >= -_NEAR),
        "just after": (offset > _HERE) & (offset <= _NEAR),
        "padding": np.broadcast_to(padding, (n_valid, n)),
        "pauses": np.broadcast_to(pause, (n_valid, n)),
        "the same phone elsewhere": other,
    }
    return {name: excess(seen, there) for name, there in places.items()}


def excess(
    seen: Float[np.ndarray, "head query key"],
    there: Bool[np.ndarray, "query key"],
    among: Bool[np.ndarray, "query key"] | None = None,
) -> Float[np.ndarray, " head"]:
    """``(share - chance) / (1 - chance)``, mean over the queries that have such a place; NaN where none has.

    Args:
        seen: attention.
        there: the place.
        among: what may be attended to at all; everything by default.
    """
    may = np.ones_like(there) if among is None else among
    chance = (there & may).sum(axis=1) / may.sum(axis=1)
    queries = (chance > 0) & (chance < 1)
    if not queries.any():
        return np.full(len(seen), np.nan)
    share = (seen * (there & may)).sum(axis=2)[:, queries]
    chance = chance[queries]
    return ((share - chance) / (1 - chance)).mean(axis=1)


def decoder_looks(
    pattern: Float[np.ndarray, "head query key"], start: int, tokens: Int[np.ndarray, " pos"]
) -> dict[str, Float[np.ndarray, " head"]]:
    """Excess self-attention of decoder heads, from the text's positions, to places named in words.

    Args:
        pattern: attention of every token to the tokens before it and itself.
        start: first position of the text; what comes before is the prompt.
        tokens: of every position.
    """
    n = pattern.shape[1]
    causal = np.tril(np.ones((n, n), bool))
    index = np.arange(n)
    offset = index[None, :] - index[:, None]
    same = (tokens[:, None] == tokens[None, :]) & (offset < 0) & (index[None, :] >= start)
    after_same = np.zeros_like(same)
    after_same[:, 1:] = same[:, :-1]
    places = {
        "the first token": np.broadcast_to(index == 0, (n, n)),
        "the rest of the prompt": np.broadcast_to((index > 0) & (index < start), (n, n)),
        "itself": offset == 0,
        "the token before": (offset == -1) & (index[None, :] >= start),
        "the same token earlier": same,
        "what followed the same token": after_same & (offset < 0),
    }
    return {name: excess(pattern[:, start:], there[start:], causal[start:]) for name, there in places.items()}


def cross_looks(
    pattern: Float[np.ndarray, "head query frame"],
    n_valid: int,
    silent: Bool[np.ndarray, " valid"],
    word: Bool[np.ndarray, "query valid"],
) -> dict[str, Float[np.ndarray, " head"]]:
    """Excess cross-attention of decoder heads, from the positions that write the text.

    Args:
        pattern: attention of those positions to every frame.
        n_valid: frames inside the recording.
        silent: which of those are pauses.
        word: per position, the frames of the word that it writes.

    Returns:
        also ``monotonic``: Spearman correlation of the position with the mean frame it looks at, among valid frames.
    """
    seen = pattern.astype(np.float64)
    n = seen.shape[-1]
    padding, pause, last = (np.zeros(n, bool) for _ in range(3))
    padding[n_valid:] = True
    pause[:n_valid] = silent
    last[max(0, n_valid - _NEAR) : n_valid + _NEAR] = True
    own = np.zeros((seen.shape[1], n), bool)
    own[:, :n_valid] = word
    everywhere = (seen.shape[1], n)
    places = {
        "the word being written": own,
        "padding": np.broadcast_to(padding, everywhere),
        "pauses": np.broadcast_to(pause, everywhere),
        "the end of the recording": np.broadcast_to(last, everywhere),
    }
    made = {name: excess(seen, there) for name, there in places.items()}
    return made | {"monotonic": _monotonic(seen[:, :, :n_valid])}


def _monotonic(seen: Float[np.ndarray, "head query valid"]) -> Float[np.ndarray, " head"]:
    if seen.shape[1] < 3:
        return np.full(len(seen), np.nan)
    total = np.maximum(seen.sum(axis=2), 1e-12)
    middle = (seen * np.arange(seen.shape[2])).sum(axis=2) / total
    ranks = standard_ranks(middle.T)
    order = standard_ranks(np.arange(seen.shape[1], dtype=float)[:, None])
    return (ranks.T @ order / len(ranks))[:, 0]
