"""Whole labels as answers: every token of a label counts, so two labels may begin alike.

A label of one token is scored where the prompt ends. A label of several tokens is scored under teacher forcing: all its
tokens but the last are appended to the prompt (its *tail*). Appended text changes nothing before it in a causal model, so
labels share a sweep whenever one tail begins with the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from otoscope.engine.metrics import LabelLogProb, Metric
from otoscope.engine.model import Model
from otoscope.engine.patch import Patch
from otoscope.errors import TaskError
from otoscope.models.inputs import Inputs

#: tokens of a label, as the answer right after the prompt
Label = tuple[int, ...]


@dataclass(frozen=True)
class TokenLogit(Metric):
    """Logit of one token. Differences of it are differences of log-probability, without the sum over the vocabulary."""

    token: int
    position: int
    name: str = "logit"

    @property
    def positions(self) -> tuple[int, ...]:  # type: ignore[override]
        return (self.position,)

    @property
    def vocab(self) -> tuple[int, ...]:
        return (self.token,)

    def __call__(self, logits: Tensor, base: Tensor | None = None) -> Tensor:
        return logits[:, 0, 0]


@dataclass(frozen=True)
class Tail:
    """Text after the prompt under which some labels can be scored.

    Attributes:
        tokens: what is appended.
        labels: which labels, by their place in the list, are scored under it.
    """

    tokens: Label
    labels: tuple[int, ...]


@dataclass(frozen=True)
class LabelScores:
    """Scores of every label: log-probabilities in nats, or logits where all labels are single tokens.

    Attributes:
        patched: per patch, ``[patch, label]``.
        base: of the unpatched base run, ``[label]``.
        donors: of the donors, ``[donor, label]``.
    """

    patched: Float[np.ndarray, "patch label"]
    base: Float[np.ndarray, " label"]
    donors: Float[np.ndarray, "donor label"]


def check_labels(labels: Sequence[Label]) -> None:
    """Refuse labels that whole-label scores cannot tell apart fairly.

    Raises:
        TaskError: fewer than two labels, an empty one, two equal ones, or one that another begins with.
    """
    if len(labels) < 2:
        raise TaskError(f"an answer is chosen among at least two labels, not {len(labels)}: give more options.")
    if any(not label for label in labels):
        raise TaskError("a label has no tokens, so it cannot be an answer: give every label a text.")
    for i, a in enumerate(labels):
        for b in labels[:i]:
            short, long = sorted((a, b), key=len)
            if long[: len(short)] == short:
                how = "are the same tokens" if len(long) == len(short) else "begin alike until one of them ends"
                raise TaskError(
                    f"two labels {how} ({list(short)}), so the shorter is never less likely than the longer: choose other "
                    "words, or end both with a token such as a full stop."
                )


def tails(labels: Sequence[Label]) -> list[Tail]:
    """As few tails as whole-label scores of all ``labels`` need, each with the labels it serves."""
    found: list[tuple[Label, list[int]]] = []
    for i in sorted(range(len(labels)), key=lambda i: -len(labels[i])):
        needed = labels[i][:-1]
        home = next((served for tokens, served in found if tokens[: len(needed)] == needed), None)
        if home is None:
            found.append((needed, [i]))
        else:
            home.append(i)
    return [Tail(tokens, tuple(sorted(served))) for tokens, served in found]


def with_tail(inputs: Inputs, start: int, tail: Sequence[int]) -> Inputs:
    """The inputs cut after position ``start`` and continued by ``tail``."""
    tokens = inputs.tokens
    if tokens is None:
        raise TaskError(
            "these inputs have no decoder tokens, so no answer can be read after them: make them with ask()."
        )
    added = torch.tensor([list(tail)], dtype=tokens.dtype, device=tokens.device).expand(tokens.shape[0], -1)
    return replace(inputs, tokens=torch.cat((tokens[:, : start + 1], added), 1))


def label_metrics(labels: Sequence[Label], tail: Tail, start: int) -> list[Metric]:
    """One metric per label of ``tail``, named ``label 0``, ``label 1`` and so on."""
    if all(len(label) == 1 for label in labels):
        return [TokenLogit(labels[i][0], start, f"label {i}") for i in tail.labels]
    return [LabelLogProb(labels[i], start, f"label {i}") for i in tail.labels]


def sweep_labels(
    model: Model,
    base: Inputs,
    donors: Sequence[Inputs],
    patches: Callable[[int], Sequence[Patch]],
    labels: Sequence[Label],
    start: int,
    **options: Any,
) -> LabelScores:
    """Answer patches by the scores of whole labels; one sweep per tail, which is one in all for single-token labels.

    Args:
        model: the model.
        base, donors: one item each, of equal lengths.
        patches: from the number of appended tokens to what is patched; the same number of patches each time.
        labels: the options.
        start: position whose output is the answer's first token.
        options: passed to the sweep (``memory_gb``, ``method``).

    Raises:
        TaskError: labels that cannot be told apart, or inputs of unequal lengths.
        KeyboardInterrupt: the sweep was interrupted.
    """
    check_labels(labels)
    parts: list[LabelScores] = []
    for tail in tails(labels):
        asked = list(patches(len(tail.tokens)))
        answered = model.sweep(
            with_tail(base, start, tail.tokens), [with_tail(d, start, tail.tokens) for d in donors], asked,
            label_metrics(labels, tail, start), **options,
        )  # fmt: skip
        if answered.interrupted:
            raise KeyboardInterrupt
        part = LabelScores(*(np.full((*shape, len(labels)), np.nan) for shape in ((len(asked),), (), (len(donors),))))
        for i in tail.labels:
            part.patched[:, i] = answered.values[f"label {i}"]
            part.base[i] = answered.base[f"label {i}"]
            part.donors[:, i] = answered.donors[f"label {i}"]
        parts.append(part)

    def joined(name: str) -> np.ndarray:
        whole = getattr(parts[0], name)
        for part in parts[1:]:
            whole = np.where(np.isnan(whole), getattr(part, name), whole)
        return whole

    return LabelScores(joined("patched"), joined("base"), joined("donors"))


def place_labels(
    rows: Sequence[tuple[int, Tail]], labels: Sequence[Sequence[Label]]
) -> tuple[Int[Tensor, " read"], Int[Tensor, " read"], Int[Tensor, " read"], Int[Tensor, " read"]]:
    """Where the tokens of labels are read in a batch: row, offset from the answer's start, token, and cell of the result.

    Args:
        rows: per row of the batch, the item it belongs to and its tail.
        labels: per item, its options; a cell is ``item * n + label`` with ``n`` the largest number of options.
    """
    n = max(len(one) for one in labels)
    found = [
        (row, offset, token, item * n + label)
        for row, (item, tail) in enumerate(rows)
        for label in tail.labels
        for offset, token in enumerate(labels[item][label])
    ]
    row, offset, token, cell = torch.tensor(found).T
    return row, offset, token, cell
