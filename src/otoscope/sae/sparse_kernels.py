"""Encoding and decoding with few active features, without a dense product but the one that finds them.

With ``k`` of ``f`` features active per frame, of the five products of a plain training step (forward through encoder and
decoder, gradients of decoder, codes and encoder) only the encoder's forward needs all features:

* decoding is a weighted sum of the rows of the decoder, ``x^_i = sum_j v_ij D_j``: an embedding bag;
* ``dL/dv_ij = <dL/dx^_i, D_j>`` at the active entries only;
* ``dL/dD_j = sum_i v_ij dL/dx^_i`` and ``dL/dE_j = sum_i dL/dv_ij (x_i - b)`` are embedding bags of the same entries
  sorted by feature, because the gradient of a pre-activation that was not chosen is 0.

The results are those of autograd on the dense products, up to the order of summation (tests/sae/test_sparse_kernels.py).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn.functional import embedding_bag

from otoscope.sae.codes import Codes

#: values of pre-activations that are held at a time while features are chosen (16 MB in float32)
BUFFER = 1 << 22
#: features in a group, of which the top k looks at the largest first
_GROUP = 8


class ByFeature(NamedTuple):
    """The entries of codes sorted by feature: ``order`` ``[active]`` their places there, ``bags`` ``[active]`` the bag
    (frame, or frame and group) of each, ``offsets`` ``[feature + 1]``."""

    order: Int[Tensor, " active"]
    bags: Int[Tensor, " active"]
    offsets: Int[Tensor, " edge"]


def by_feature(features: Int[Tensor, " active"], offsets: Int[Tensor, " edge"], n_features: int) -> ByFeature:
    """Sort entries by feature, keeping the order of frames within each (so that sums are reproducible)."""
    if features.device.type != "cpu":
        order = features.argsort(stable=True)
        n_bags = offsets.shape[0] - 1
        bags = torch.repeat_interleave(torch.arange(n_bags, device=features.device), offsets.diff())[order]
        edges = torch.bincount(features, minlength=n_features).cumsum(0)
        return ByFeature(order, bags, torch.cat([edges.new_zeros(1), edges]))
    # a counting sort; torch's own sort takes longer than all the products it serves
    places = np.arange(len(features), dtype=np.int32)
    shape = (len(offsets) - 1, n_features)
    rows = csr_array((places, features.numpy().astype(np.int32), offsets.numpy().astype(np.int32)), shape=shape)
    columns = rows.tocsc()
    order, bags, edges = (torch.from_numpy(a.astype(np.int64)) for a in (columns.data, columns.indices, columns.indptr))
    return ByFeature(order, bags, edges)


def weighted_rows(
    weight: Float[Tensor, "row d"],
    rows: Int[Tensor, " entry"],
    offsets: Int[Tensor, " edge"],
    values: Float[Tensor, " entry"],
) -> Float[Tensor, "bag d"]:
    """``out_b = sum of values_e * weight[rows_e]`` over the entries ``offsets[b]:offsets[b + 1]``."""
    return embedding_bag(rows, weight, offsets, mode="sum", per_sample_weights=values, include_last_offset=True)


class _Encode(torch.autograd.Function):
    """Chosen pre-activations, with the gradients of encoder and biases at those entries only."""

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        centred: Tensor,
        encoder: Tensor,
        encoder_bias: Tensor,
        decoder_bias: Tensor | None,
        sorted_entries: ByFeature,
    ) -> Tensor:
        ctx.save_for_backward(centred, encoder, *sorted_entries)
        ctx.subtracts = decoder_bias is not None
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        centred, encoder, order, bags, offsets = ctx.saved_tensors
        grad = grads[0][order]
        d_encoder = weighted_rows(centred, bags, offsets, grad)
        entries = torch.arange(len(grad), device=grad.device)
        d_bias = embedding_bag(entries, grad[:, None], offsets, mode="sum", include_last_offset=True)[:, 0]
        # pre = E (x - b) + c, so that every gradient of c flows to b through -E
        d_decoder_bias = -(d_bias @ encoder) if ctx.subtracts else None
        return None, None, d_encoder, d_bias, d_decoder_bias, None


class _DecoderGradient(torch.autograd.Function):
    """Passes decoded frames on, and gives the decoder its gradient."""

    @staticmethod
    def forward(ctx: Any, decoded: Tensor, decoder: Tensor, values: Tensor, sorted_entries: ByFeature) -> Tensor:
        ctx.save_for_backward(values, *sorted_entries)
        return decoded.view_as(decoded)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        values, order, bags, offsets = ctx.saved_tensors
        return grads[0], weighted_rows(grads[0].contiguous(), bags, offsets, values[order]), None, None


def encode_entries(
    codes: Codes,
    centred: Float[Tensor, "frame d"],
    encoder: Float[Tensor, "feature d"],
    encoder_bias: Float[Tensor, " feature"],
    decoder_bias: Float[Tensor, " d"] | None,
    sorted_entries: ByFeature,
) -> Float[Tensor, " active"]:
    """Pre-activations ``codes.values``, chosen without a graph, as a function of the parameters.

    Args:
        codes: the chosen entries and their pre-activations.
        centred: what the encoder read, ``x - decoder_bias`` (or ``x``), without a graph.
        encoder, encoder_bias: parameters.
        decoder_bias: the parameter, where it was subtracted from ``x``.
        sorted_entries: ``by_feature`` of the entries, by frame.
    """
    return _Encode.apply(codes.values, centred, encoder, encoder_bias, decoder_bias, sorted_entries)  # type: ignore[return-value]


def decode_entries(
    values: Float[Tensor, " active"],
    features: Int[Tensor, " active"],
    offsets: Int[Tensor, " edge"],
    decoder: Float[Tensor, "feature d"],
    sorted_entries: ByFeature | None = None,
) -> Float[Tensor, "bag d"]:
    """``sum v D`` of every bag, without bias. With ``sorted_entries`` (by bag) the decoder gets its gradient too."""
    decoded = weighted_rows(decoder.detach(), features, offsets, values)
    if sorted_entries is None:
        return decoded
    return _DecoderGradient.apply(decoded, decoder, values.detach(), sorted_entries)  # type: ignore[return-value]


def pre_activations(
    centred: Float[Tensor, "frame d"],
    encoder: Float[Tensor, "feature d"],
    encoder_bias: Float[Tensor, " feature"],
    product: torch.dtype = torch.float32,
    out: Tensor | None = None,
) -> Float[Tensor, "frame feature"]:
    """``E x + c``; the product in ``product`` where that is narrower than the parameters (mixed precision on a GPU)."""
    if product != torch.float32 and centred.dtype == torch.float32:
        return (centred.to(product) @ encoder.to(product).T).float() + encoder_bias
    if out is None:
        return torch.addmm(encoder_bias, centred, encoder.T)
    return torch.addmm(encoder_bias, centred, encoder.T, out=out)


def _chunks(n: int, n_features: int) -> list[slice]:
    rows = max(1, BUFFER // n_features)
    return [slice(i, min(i + rows, n)) for i in range(0, n, rows)]


@torch.no_grad()
def top_k(
    centred: Float[Tensor, "frame d"],
    encoder: Float[Tensor, "feature d"],
    encoder_bias: Float[Tensor, " feature"],
    k: int,
    product: torch.dtype = torch.float32,
) -> Codes:
    """The ``k`` largest pre-activations of every frame, in no order. They may be negative: ReLU is the caller's."""
    chunks = _chunks(len(centred), len(encoder))
    first = chunks[0].stop if chunks else 0
    buffer = centred.new_empty(first, len(encoder))
    values = centred.new_empty(len(centred), k)
    features = torch.empty(len(centred), k, dtype=torch.int64, device=centred.device)
    for rows in chunks:
        pre = pre_activations(centred[rows], encoder, encoder_bias, product, buffer[: rows.stop - rows.start])
        values[rows], features[rows] = _row_top_k(pre, k)
    return Codes.of_top_k(values, features)


def _row_top_k(pre: Float[Tensor, "frame feature"], k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row, looked for in the k groups of eight whose largest members are largest.

    No member of another group can be among them: k members of the chosen groups are at least as large.
    """
    n_groups = pre.shape[1] // _GROUP
    if pre.shape[1] % _GROUP or n_groups < 2 * k:
        found = pre.topk(k, sorted=False)
        return found.values, found.indices
    groups = pre.view(len(pre), _GROUP, n_groups).amax(1).topk(k, sorted=False).indices
    steps = torch.arange(0, pre.shape[1], n_groups, device=pre.device)
    members = (groups[:, :, None] + steps).view(len(pre), -1)
    found = pre.gather(1, members).topk(k, sorted=False)
    return found.values, members.gather(1, found.indices)


@torch.no_grad()
def above(
    centred: Float[Tensor, "frame d"],
    encoder: Float[Tensor, "feature d"],
    encoder_bias: Float[Tensor, " feature"],
    threshold: Float[Tensor, " feature"] | float,
    product: torch.dtype = torch.float32,
) -> Codes:
    """The pre-activations above a threshold (one, or one per feature), by frame and then by feature."""
    parts = []
    for rows in _chunks(len(centred), len(encoder)):
        pre = pre_activations(centred[rows], encoder, encoder_bias, product)
        frames, features = (pre > threshold).nonzero(as_tuple=True)
        counts = torch.bincount(frames, minlength=len(pre))
        edges = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        parts.append(Codes(pre[frames, features], features, edges))
    if not parts:
        empty = torch.zeros(0, dtype=torch.int64, device=centred.device)
        return Codes(centred.new_zeros(0), empty, torch.zeros(1, dtype=torch.int64, device=centred.device))
    return Codes.join(parts)


@torch.no_grad()
def batch_top_k(
    centred: Float[Tensor, "frame d"],
    encoder: Float[Tensor, "feature d"],
    encoder_bias: Float[Tensor, " feature"],
    k: float,
    product: torch.dtype = torch.float32,
) -> Codes:
    """The ``k * frames`` largest positive pre-activations of all frames together, by frame and then by feature.

    A few frames tell about where the cut lies; all that is above a lower one is kept, and the exact cut is made among
    those. Where the guess was too high, it is lowered until enough are there.
    """
    wanted = int(k * len(centred))
    if wanted == 0:
        return above(centred, encoder, encoder_bias, torch.inf, product)
    sample = centred[:: max(1, len(centred) // 64)]
    pre = pre_activations(sample, encoder, encoder_bias, product).flatten()
    at = min(pre.numel(), max(1, int(1.25 * k * len(sample)) + 8))
    guess = max(0.0, float(pre.kthvalue(pre.numel() - at + 1).values))
    found = above(centred, encoder, encoder_bias, guess, product)
    while guess > 0 and len(found.values) < wanted:
        guess = guess / 2 if guess > 1e-6 else 0.0
        found = above(centred, encoder, encoder_bias, guess, product)
    if len(found.values) <= wanted:
        return found
    chosen = found.values.topk(wanted, sorted=False).indices.sort().values
    counts = torch.bincount(found.frames[chosen], minlength=len(centred))
    edges = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return Codes(found.values[chosen], found.features[chosen], edges)
