"""What a model answers, out of a set of labels: the log-probability of each whole label, or the label it writes itself.

The probability of a label is that of its tokens, one after the other, right after the prompt:

    ``log p(label) = sum_i log p(token_i | prompt, token_1 ... token_(i-1))``.

It is the probability that the answer *begins* with the label. A label that is the beginning of another one ("sea" and
"sea lion") would get the other's probability as well, so such a label is scored with the end of the answer after it: no
two labels of a set can then come true together, and their probabilities sum to at most 1. Other labels are scored without
an end, which makes the difference of two labels of one token each the difference of their logits. ``ends="all"`` scores
the end of every label; several tokens may end an answer, and then their probabilities are added.

The prompt is run once for all labels. What the labels add is computed as a tree: beginnings that labels share are
computed once, all branches stand side by side after the prompt's keys and values, and each token sees its own branch only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from otoscope.audio.clip import Clip
from otoscope.engine.capture import Cache, capture_until
from otoscope.engine.intervene import Intervention
from otoscope.engine.model import Model
from otoscope.errors import ModelError, TaskError
from otoscope.models.adapter import Adapter
from otoscope.models.inputs import Inputs
from otoscope.models.linear import fast_linears
from otoscope.models.prompt import Asked
from otoscope.models.site import Site
from otoscope.tasks.conflict import plain

#: a question that was asked already, or its clip (or None), question and context
Prompt = Asked | tuple[Clip | None, str, str]
Ends = Literal["where needed", "all"]


def score_labels(
    model: Model,
    prompts: Prompt | Sequence[Prompt],
    labels: Sequence[str],
    *,
    ends: Ends = "where needed",
    batch_size: int = 16,
    interventions: Sequence[Intervention] = (),
) -> Float[np.ndarray, "item label"]:
    """Log-probability of each label as the answer to each prompt, in nats.

    Prompts of equal length share a batch. With labels of one token, one forward of the prompts is all there is.

    Args:
        model: one that can be asked.
        prompts: one or several questions without an answer, from ``model.ask`` or ``ConflictItem.ask``, or (clip,
            question, context).
        labels: the options, the same for all prompts.
        ends: which labels are scored with the end of the answer after them (see the module).
        batch_size: prompts run together.
        interventions: changes in force; each item is then run alone, once per label, so values hold one item.

    Raises:
        ModelError: the model cannot be asked, or names no token that ends an answer where one is needed.
        TaskError: a label is empty, two are the same to the model, a prompt holds an answer, or both are too long.
    """
    asked = _asked(model, prompts)
    tree = _Tree.of(model, labels, ends)
    found = np.full((len(asked), len(labels)), np.nan)
    if interventions:
        for i, one in enumerate(asked):
            found[i] = [_scored_alone(model, one.inputs, path, interventions) for path in tree.paths]
        return found
    for members in _batches(asked, batch_size):
        found[members] = tree.score(model.adapter, Inputs.stack([asked[i].inputs for i in members]))
    return found


def answers(
    model: Model,
    prompts: Prompt | Sequence[Prompt],
    *,
    max_new_tokens: int = 16,
    batch_size: int = 16,
    interventions: Sequence[Intervention] = (),
) -> list[str]:
    """What the model writes by itself, greedily, one text per prompt, without special tokens.

    Args:
        model, prompts: as for :func:`score_labels`.
        max_new_tokens: where an answer is cut off.
        batch_size: prompts of equal length answered together.
        interventions: changes in force at every step; each item is then answered alone, so values hold one item.

    Raises:
        ModelError: the model cannot be asked, or does not generate.
        TaskError: a prompt holds an answer.
    """
    asked = _asked(model, prompts)
    written = [""] * len(asked)
    for members in _batches(asked, 1 if interventions else batch_size):
        inputs = Inputs.stack([asked[i].inputs for i in members])
        rows = model.generate(inputs, interventions, max_new_tokens=max_new_tokens)
        assert inputs.tokens is not None
        for i, row, prompt in zip(members, rows, inputs.tokens.tolist()):
            new = row[len(prompt) :] if row[: len(prompt)] == prompt else row
            written[i] = model.tokenizer.decode(new, skip_special_tokens=True).strip()
    return written


def answer(model: Model, asked: Prompt, *, max_new_tokens: int = 16) -> str:
    """What the model writes after one prompt: :func:`answers` of it alone."""
    return answers(model, [asked], max_new_tokens=max_new_tokens)[0]


def match(text: str, labels: Sequence[str]) -> str:
    """The label that a text is, case, punctuation and spaces aside; empty where it is none of them.

    The whole text must be the label: "Seven." is "seven", and "It is seven." is not.
    """
    return next((label for label in labels if plain(label) == plain(text)), "")


def end_tokens(model: Model) -> tuple[int, ...]:
    """Tokens that end an answer, as the model's own configuration names them; none where it names none."""
    tokenizer = getattr(model.tokenizer, "eos_token_id", None)
    for config in (getattr(model.hf, "generation_config", None), model.hf.config):
        named = getattr(config, "eos_token_id", None)
        if named is not None:
            return tuple(named) if isinstance(named, list | tuple) else (int(named),)
    return () if tokenizer is None else (int(tokenizer),)


@dataclass(frozen=True)
class _Path:
    """A label as what must come true: its tokens in turn, and then, where ``end`` names any, one of these."""

    tokens: tuple[int, ...]
    end: tuple[int, ...]

    @property
    def steps(self) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
        """What is given, and what may follow it, for every factor of the probability."""
        for i, token in enumerate(self.tokens):
            yield self.tokens[:i], (token,)
        if self.end:
            yield self.tokens, self.end


@dataclass(frozen=True)
class _Tree:
    """The beginnings of all labels after which a next token is predicted, the empty one (the prompt) left out."""

    paths: tuple[_Path, ...]
    nodes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, model: Model, labels: Sequence[str], ends: Ends) -> _Tree:
        if ends not in ("where needed", "all"):
            raise TaskError(f"ends is {ends!r}; give 'where needed' or 'all'.")
        spelled = [model.label_tokens(label) for label in labels]
        for i, tokens in enumerate(spelled):
            if not tokens:
                raise TaskError(f"The label '{labels[i]}' has no tokens in {model.name}; leave it out.")
            if (same := spelled.index(tokens)) != i:
                raise TaskError(
                    f"The labels '{labels[same]}' and '{labels[i]}' are the same tokens in {model.name}, so no score can "
                    "tell them apart; give each once."
                )
        paths = []
        for label, tokens in zip(labels, spelled):
            begins_another = any(other[: len(tokens)] == tokens and other != tokens for other in spelled)
            needed = ends == "all" or begins_another
            if needed and not end_tokens(model):
                raise ModelError(
                    f"{model.name} names no token that ends an answer, which the label '{label}' needs; set eos_token_id in "
                    "its generation config, or leave out labels that begin with another one."
                )
            paths.append(_Path(tokens, end_tokens(model) if needed else ()))
        given = dict.fromkeys(before for path in paths for before, _ in path.steps if before)
        return cls(tuple(paths), tuple(given))

    @torch.no_grad()
    def score(self, adapter: Adapter, inputs: Inputs) -> Float[np.ndarray, "item label"]:
        """Log-probability of every path after each item of a batch."""
        self._check_room(adapter, inputs)
        n = adapter.stacks["decoder"].n_layers
        top = Site("decoder", n - 1, "resid_post")
        streams = [Site("decoder", layer, "resid_pre") for layer in range(n)] if self.nodes else []
        heard = [Site("encoder", adapter.stacks["encoder"].n_layers - 1, "resid_post")] if self._cross(adapter) else []
        with fast_linears(adapter.hf):
            cache = capture_until(adapter, inputs, [top, *streams, *heard])
        first = adapter.unembed(adapter.final("decoder", cache[top][:, -1:]))
        log_probs: dict[tuple[int, ...], Tensor] = {(): _log_probs(first[:, 0])}
        if self.nodes:
            frames = adapter.final("encoder", cache[heard[0]]) if heard else None
            after = _log_probs(self._branches(adapter, cache, frames))
            log_probs |= {node: after[:, i] for i, node in enumerate(self.nodes)}
        scores = [
            sum(log_probs[before][:, list(next_)].logsumexp(-1) for before, next_ in path.steps) for path in self.paths
        ]
        return torch.stack(scores, 1).double().cpu().numpy()  # type: ignore[arg-type]

    def _check_room(self, adapter: Adapter, inputs: Inputs) -> None:
        most = getattr(adapter.hf.config, "max_target_positions", None)
        needed = (0 if inputs.tokens is None else inputs.tokens.shape[1]) + max(
            (len(node) for node in self.nodes), default=0
        )
        if most is not None and needed > most:
            raise TaskError(
                f"Prompt and longest label have {needed} tokens and {adapter.name} reads {most}; shorten the context or the "
                "labels."
            )

    def _cross(self, adapter: Adapter) -> bool:
        return bool(self.nodes) and adapter.blocks("decoder")[0].cross is not None

    def _branches(
        self, adapter: Adapter, cache: Cache, frames: Float[Tensor, "item frame d"] | None
    ) -> Float[Tensor, "item node vocab"]:
        """Logits after every node: one pass over all nodes of all labels, after the prompt's own keys and values."""
        items, length, _ = cache[Site("decoder", 0, "resid_pre")].shape
        before = torch.arange(length, device=adapter.device)
        positions = length + torch.tensor([len(node) - 1 for node in self.nodes], device=adapter.device)
        mask = torch.cat((before.new_ones(len(self.nodes), length, dtype=torch.bool), self._sees(adapter)), 1)
        x = self._embedded(adapter, positions).expand(items, -1, -1)
        for layer, block in enumerate(adapter.blocks("decoder")):
            a, h = block.attn, block.attn_input(x)
            prompt = block.attn_input(cache[Site("decoder", layer, "resid_pre")])
            k = torch.cat((a.keys(prompt, before), a.keys(h, positions)), 2)
            v = torch.cat((a.values(prompt), a.values(h)), 2)
            mid = block.after_attn(x, a.out(a.attend(a.queries(h, positions), k, v, mask)))
            if block.cross is not None:
                assert frames is not None
                assert block.norm_cross is not None
                c, everywhere = block.cross, torch.arange(frames.shape[1], device=x.device)
                q = c.queries(block.norm_cross(mid), positions)
                mid = mid + c.out(c.attend(q, c.keys(frames, everywhere), c.values(frames)))
            x = block.mlp(mid)
        return adapter.unembed(adapter.final("decoder", x))

    def _sees(self, adapter: Adapter) -> Bool[Tensor, "node node"]:
        """Whether a node's token sees another's: those of its own branch up to itself."""
        flags = [[node[: len(other)] == other for other in self.nodes] for node in self.nodes]
        return torch.tensor(flags, device=adapter.device)

    def _embedded(self, adapter: Adapter, positions: Int[Tensor, " node"]) -> Float[Tensor, "1 node d_model"]:
        """What the first layer reads for the last token of each node, at its own position (Whisper's are learnt)."""
        last = torch.tensor([node[-1] for node in self.nodes], device=adapter.device)
        anywhere = adapter.embed(last[:, None].expand(-1, int(positions.max()) + 1))
        return anywhere[torch.arange(len(last)), positions][None]


@torch.no_grad()
def _scored_alone(model: Model, inputs: Inputs, path: _Path, interventions: Sequence[Intervention]) -> float:
    """The same by one whole forward over prompt and label, as interventions at any site need it."""
    assert inputs.tokens is not None
    start = inputs.tokens.shape[1] - 1
    whole = inputs.with_tokens([*inputs.tokens[0].tolist(), *path.tokens])
    log_probs = _log_probs(model.run(whole, interventions).logits[0])
    return float(sum(log_probs[start + len(before), list(next_)].logsumexp(-1) for before, next_ in path.steps))


def _log_probs(logits: Float[Tensor, "*rows vocab"]) -> Float[Tensor, "*rows vocab"]:
    """In single precision at least: sixteen bits would round a probability to a few percent."""
    return (logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits).log_softmax(-1)


def _asked(model: Model, prompts: Prompt | Sequence[Prompt]) -> list[Asked]:
    single = isinstance(prompts, Asked) or (
        isinstance(prompts, tuple) and len(prompts) == 3 and isinstance(prompts[1], str)
    )
    listed: Any = [prompts] if single else prompts
    return [one if isinstance(one, Asked) else model.ask(*one) for one in listed]


def _batches(asked: Sequence[Asked], batch_size: int) -> Iterator[list[int]]:
    """Indices of prompts of equal length, at most ``batch_size`` at a time.

    Raises:
        TaskError: a prompt has no tokens, or holds an answer already.
    """
    groups: dict[tuple, list[int]] = {}
    for i, one in enumerate(asked):
        inputs = one.inputs
        if inputs.tokens is None or one.groups.get("answer", ()) not in ((), (inputs.tokens.shape[1] - 1,)):
            raise TaskError(
                "A prompt holds an answer already; ask without answer=, so that labels can be scored after it."
            )
        shapes = [getattr(t, "shape", None) for t in (inputs.tokens, inputs.features, inputs.feature_mask)]
        shapes += [inputs.extra[name].shape for name in sorted(inputs.extra)]
        groups.setdefault(tuple(shapes), []).append(i)
    for members in groups.values():
        for start in range(0, len(members), batch_size):
            yield members[start : start + batch_size]
