"""Learn a subspace whose exchange turns the answer, and test it on pairs that it was not learned on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from otoscope.engine.model import Model
from otoscope.methods.controls import rotation
from otoscope.methods.grounding import Corners
from otoscope.methods.interchange import Pair, PairSide, States, frozen, pairs, targets

Kind = Literal["learned", "whole state", "random labels", "random subspace", "untrained"]

#: training stops where a whole epoch was answered as wanted with less loss than this
_ENOUGH = 0.05


@dataclass(frozen=True)
class Training:
    """How a subspace is learned.

    Attributes:
        rank: directions exchanged; fewer where natural differences span fewer.
        span: share of the variance of natural differences whose leading directions the subspace is kept in; None leaves it
            free, and open to the illusion.
        epochs: passes over the training pairs, at most.
        rate: Adam's learning rate; the basis is the orthonormal part (QR) of a free matrix.
        batch_size: pairs per step.
        start: ``difference`` starts from the leading directions of source minus base, ``random`` from random ones.
    """

    rank: int = 32
    span: float | None = 0.999
    epochs: int = 3
    rate: float = 1e-2
    batch_size: int = 16
    start: Literal["difference", "random"] = "difference"


class Search:
    """Trains and tests subspaces on the kept states of one model, grouped by the layout of the prompts."""

    def __init__(
        self,
        model: Model,
        items: Sequence[Corners],
        used: Sequence[int],
        layers: Sequence[int],
        how: Training,
        seed: int,
    ):
        self.model, self.how, self.seed, self.top = model, how, seed, max(layers)
        groups: dict[tuple, list[int]] = {}
        for i in used:
            groups.setdefault(items[i].layout, []).append(i)
        self.groups: list[tuple[States, dict[int, int]]] = [
            (States(model.adapter, [items[i] for i in members], layers), {i: j for j, i in enumerate(members)})
            for members in groups.values()
        ]

    def run(self, side: PairSide, layer: int, kind: Kind, train: Sequence[int], test: Sequence[int]) -> dict[str, Any]:
        """Hits of the held-out pairs with and without the exchange, in the order of ``pairs(side, test)``."""
        learn, judge = pairs(side, train), pairs(side, test)
        if kind == "random labels":
            rng = np.random.default_rng((self.seed, 1))
            learn, judge = ([replace(p, target=int(rng.integers(2))) for p in one] for one in (learn, judge))
        adapter = self.model.adapter
        full = torch.eye(self.model.stacks["decoder"].d_model, device=adapter.device, dtype=adapter.dtype)
        if kind == "whole state":
            basis = full
        elif kind == "random subspace":
            basis = rotation(len(full), self.seed).to(full)[:, : self.how.rank]
        else:
            with frozen(self.model.hf):
                basis = self._learn(side, layer, learn)
        # without an exchange all layers say the same, and the last one says it soonest
        after, before = self._test(side, layer, judge, basis), self._test(side, self.top, judge, None)
        return {"hits": after[0], "plain": before[0], "effects": after[1] - before[1]}

    def _batches(self, chosen: Sequence[Pair], rng: np.random.Generator | None) -> list[tuple[States, list[int]]]:
        """Pairs by group, in batches, shuffled where ``rng`` is given; a batch lists places in ``chosen``."""
        made = []
        for states, local in self.groups:
            here = [n for n, pair in enumerate(chosen) if pair.item in local]
            order = here if rng is None else [here[i] for i in rng.permutation(len(here))]
            size = self.how.batch_size
            made += [(states, order[a : a + size]) for a in range(0, len(order), size)]
        return made if rng is None else [made[i] for i in rng.permutation(len(made))]

    def _local(self, states: States, chosen: Sequence[Pair], index: Sequence[int]) -> list[Pair]:
        local = next(local for own, local in self.groups if own is states)
        return [replace(chosen[n], item=local[chosen[n].item]) for n in index]

    def _learn(self, side: PairSide, layer: int, learn: Sequence[Pair]) -> Float[Tensor, "d_model rank"]:
        device = self.model.adapter.device
        within = self._natural(side, layer, learn)
        rank = min(self.how.rank, within.shape[1])
        free = torch.eye(within.shape[1], rank, device=device, dtype=within.dtype)
        if self.how.start == "random":
            free = rotation(within.shape[1], self.seed).to(free)[:, :rank].clone()
        free.requires_grad_(True)
        adam = torch.optim.Adam([free], lr=self.how.rate)
        rng = np.random.default_rng((self.seed, 2))
        for _ in range(self.how.epochs):
            right, losses = True, []
            for states, index in self._batches(learn, rng):
                batch = self._local(states, learn, index)
                wanted = targets(batch, device)
                with torch.enable_grad():
                    scores = states.scores(side, layer, batch, within @ torch.linalg.qr(free)[0])
                    loss = torch.nn.functional.cross_entropy(scores, wanted)
                    free.grad = torch.autograd.grad(loss, free)[0]
                adam.step()
                right = right and bool((scores.argmax(-1) == wanted).all())
                losses.append(float(loss.detach()))
            if right and max(losses) < _ENOUGH:
                break
        return within @ torch.linalg.qr(free.detach())[0]

    @torch.no_grad()
    def _natural(self, side: PairSide, layer: int, learn: Sequence[Pair]) -> Float[Tensor, "d_model span"]:
        """Leading directions of the differences between source and base, orthonormal, the largest first."""
        rows = [
            states.differences(side, layer, self._local(states, learn, index))
            for states, index in self._batches(learn, None)
        ]
        differences = torch.cat(rows).double()
        variance, axes = torch.linalg.eigh(differences.T @ differences)
        variance, axes = variance.flip(0).clamp(min=0), axes.flip(1)
        if self.how.span is None:
            return axes.to(rows[0])
        explained = variance.cumsum(0) / variance.sum().clamp(min=1e-30)
        n = int((explained < self.how.span - 1e-12).sum()) + 1
        return axes[:, : min(n, len(axes))].to(rows[0])

    @torch.no_grad()
    def _test(
        self, side: PairSide, layer: int, judge: Sequence[Pair], basis: Float[Tensor, "d_model rank"] | None
    ) -> tuple[Bool[np.ndarray, " pair"], Float[np.ndarray, " pair"]]:
        """Whether each pair answers the wanted label, and the score of that label minus the other one's."""
        hits, margins = np.zeros(len(judge), bool), np.zeros(len(judge))
        for states, index in self._batches(judge, None):
            batch = self._local(states, judge, index)
            scores = states.scores(side, layer, batch, basis)
            wanted = targets(batch, scores.device)
            hits[index] = (scores.argmax(-1) == wanted).cpu().numpy()
            margin = scores[:, 0] - scores[:, 1]
            margins[index] = torch.where(wanted == 0, margin, -margin).double().cpu().numpy()
        return hits, margins
