"""What a patched run is judged by: functions of the logits at a few positions.

Every metric says which output positions it reads and, where it can, which vocabulary rows, so that nothing else is
computed. Values are in nats (log-probabilities, KL) or in logits (differences).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from otoscope.errors import TaskError


class Metric(ABC):
    """A number per row from logits.

    Attributes:
        name: key in results.
        positions: output positions read; negative ones count from the end.
    """

    name: str
    positions: tuple[int, ...]

    @property
    def vocab(self) -> tuple[int, ...] | None:
        """Tokens whose logits are read; None for all of them."""
        return None

    @property
    def tokens_read(self) -> tuple[int, ...]:
        """Every token the metric names, to be checked against the vocabulary."""
        return self.vocab or ()

    @abstractmethod
    def __call__(
        self, logits: Float[Tensor, "row pos vocab"], base: Float[Tensor, "1 pos vocab"] | None = None
    ) -> Float[Tensor, " row"]:
        """Value per row. ``logits`` hold exactly :attr:`positions` and, where given, exactly :attr:`vocab`, in order."""


@dataclass(frozen=True)
class LogitDiff(Metric):
    """``logit(answer) - logit(foil)`` at one position: positive where the model prefers the answer.

    Raises:
        TaskError: answer and foil are the same token, which no logit can tell apart.
    """

    answer: int
    foil: int
    position: int = -1
    name: str = "logit_diff"

    def __post_init__(self) -> None:
        if self.answer == self.foil:
            raise TaskError(
                f"answer and foil are the same token ({self.answer}): they cannot be told apart by it; score whole labels "
                "instead, or choose words that differ in their first token."
            )

    @property
    def positions(self) -> tuple[int, ...]:  # type: ignore[override]
        return (self.position,)

    @property
    def vocab(self) -> tuple[int, ...]:
        return (self.answer, self.foil)

    def __call__(self, logits: Tensor, base: Tensor | None = None) -> Tensor:
        return logits[:, 0, 0] - logits[:, 0, 1]


@dataclass(frozen=True)
class LabelLogProb(Metric):
    """Log-probability of a whole label, token by token under teacher forcing, in nats.

    ``tokens[i]`` is scored at ``start + i``, so the inputs must hold the label's tokens after position ``start``.
    """

    tokens: tuple[int, ...]
    start: int
    name: str = "log_prob"

    @property
    def positions(self) -> tuple[int, ...]:  # type: ignore[override]
        return tuple(range(self.start, self.start + len(self.tokens)))

    @property
    def tokens_read(self) -> tuple[int, ...]:
        return self.tokens

    def __call__(self, logits: Tensor, base: Tensor | None = None) -> Tensor:
        labels = torch.tensor(self.tokens, device=logits.device).expand(logits.shape[0], -1)
        return logits.log_softmax(-1).gather(-1, labels[..., None]).squeeze(-1).sum(-1)


@dataclass(frozen=True)
class KL(Metric):
    """``KL(base || patched)`` in nats at one position: how far the whole answer distribution moved."""

    position: int = -1
    name: str = "kl"

    @property
    def positions(self) -> tuple[int, ...]:  # type: ignore[override]
        return (self.position,)

    def __call__(self, logits: Tensor, base: Tensor | None = None) -> Tensor:
        assert base is not None
        p, q = base.log_softmax(-1), logits.log_softmax(-1)
        return (p.exp() * (p - q)).sum(-1)[:, 0]


@dataclass(frozen=True)
class Top1Change(Metric):
    """1 where the most likely token differs from the unpatched run's, else 0."""

    position: int = -1
    name: str = "top1_change"

    @property
    def positions(self) -> tuple[int, ...]:  # type: ignore[override]
        return (self.position,)

    def __call__(self, logits: Tensor, base: Tensor | None = None) -> Tensor:
        assert base is not None
        return (logits.argmax(-1) != base.argmax(-1))[:, 0].to(logits.dtype)


@dataclass(frozen=True)
class Reading:
    """The union of what several metrics read, and how each finds its part in it."""

    metrics: tuple[Metric, ...]
    positions: tuple[int, ...]
    vocab: tuple[int, ...] | None

    @classmethod
    def of(cls, metrics: Metric | Sequence[Metric], n_positions: int, n_vocab: int | None = None) -> Reading:
        """Plan the reading of ``metrics`` on an output of ``n_positions`` and ``n_vocab`` tokens.

        Raises:
            TaskError: a metric reads a position or token that the output does not have, or two metrics share a name.
        """
        chosen = (metrics,) if isinstance(metrics, Metric) else tuple(metrics)
        if len({m.name for m in chosen}) < len(chosen):
            raise TaskError("two metrics share a name: give each its own with name=.")
        positions: set[int] = set()
        for metric in chosen:
            for token in metric.tokens_read:
                if token < 0 or (n_vocab is not None and token >= n_vocab):
                    most = "" if n_vocab is None else f" to {n_vocab - 1}"
                    raise TaskError(
                        f"{metric.name} reads token {token}, which is not in the vocabulary: its tokens are 0{most}."
                    )
            for p in metric.positions:
                if not -n_positions <= p < n_positions:
                    raise TaskError(
                        f"{metric.name} reads position {p}, but the output has {n_positions}: 0 to {n_positions - 1}."
                    )
                positions.add(p % n_positions)
        vocabs = [m.vocab for m in chosen]
        vocab = None if any(v is None for v in vocabs) else tuple(dict.fromkeys(t for v in vocabs for t in v or ()))
        return cls(chosen, tuple(sorted(positions)), vocab)

    def values(
        self, logits: Float[Tensor, "row pos vocab"], base: Float[Tensor, "1 pos vocab"], n_positions: int
    ) -> dict[str, Float[Tensor, " row"]]:
        """Every metric on logits that hold :attr:`positions` and :attr:`vocab`."""
        result = {}
        for metric in self.metrics:
            rows = [self.positions.index(p % n_positions) for p in metric.positions]
            part, part_base = logits[:, rows], base[:, rows]
            if metric.vocab is not None:
                columns = list(metric.vocab) if self.vocab is None else [self.vocab.index(t) for t in metric.vocab]
                part, part_base = part[..., columns], part_base[..., columns]
            result[metric.name] = metric(part, part_base)
        return result
