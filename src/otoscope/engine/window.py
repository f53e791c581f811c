"""Self-attention after a short window of frames was changed: updated, not recomputed.

The queries outside the window and the keys inside and outside it keep their products, so the softmax of every query is
its old sum without the window's old keys and with their new ones. Sums are kept in float64, so nothing is lost when the
window held most of a query's weight; where it held all but 1e-8 of it, the caller is told to recompute.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from otoscope.models.block import Block


class WindowedLayer:
    """One bidirectional layer around a base stream, ready for windows to be changed in it."""

    def __init__(self, block: Block, base: Float[Tensor, "1 frame d_model"]):
        self.block, self.base = block, base
        self.positions = torch.arange(base.shape[1], device=base.device)
        h = block.attn_input(base)
        a = block.attn
        self.q = a.queries(h, self.positions)[0]
        self.k = a.keys(h, self.positions)[0]
        self.v = a.values(h)[0]
        scores = self.q @ self.k.transpose(-1, -2) * a.scale
        self.top = scores.amax(-1, keepdim=True)
        self.weights = scores.sub_(self.top).exp_()
        self.total = self.weights.sum(-1, keepdim=True, dtype=torch.float64)
        # the product itself is long; its rounding (1e-7 of the largest terms) is that of any attention in this dtype
        self.mixed = torch.stack([w.double() @ v.double() for w, v in zip(self.weights, self.v)])

    def run(
        self, changed: Float[Tensor, "window d_model"], window: Int[Tensor, " window"]
    ) -> Float[Tensor, "frame d_model"] | None:
        """The layer's output when ``changed`` stands at the frames ``window``; None where an update would lose precision."""
        block, a = self.block, self.block.attn
        h = block.attn_input(changed[None])
        q_new = a.queries(h, window)[0]
        k_new, v_new = a.keys(h, window)[0], a.values(h)[0]
        old = self.weights[:, :, window].double()
        new = (self.q @ k_new.transpose(-1, -2) * a.scale - self.top).double().exp()
        total = self.total - old.sum(-1, keepdim=True) + new.sum(-1, keepdim=True)
        if not bool((total > 1e-8 * self.total).all()) or not bool(torch.isfinite(total).all()):
            return None
        mixed = self.mixed - old @ self.v[:, window].double() + new @ v_new.double()
        z = (mixed / total).to(changed.dtype)
        k, v = self.k.clone(), self.v.clone()
        k[:, window], v[:, window] = k_new, v_new
        z[:, window] = a.attend(q_new[None], k[None], v[None])[0].transpose(0, 1)
        x = self.base[0].clone()
        x[window] = changed
        return block.mlp(block.after_attn(x[None], a.out(z.transpose(0, 1)[None])))[0]
