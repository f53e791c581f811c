"""The logit lens: what a decoder would write if it stopped after layer l.

The final norm and the unembedding are applied to ``resid_post`` of every layer at every position:

    p_l(t) = softmax(W_U norm_final(resid_post_l[t]))

(nostalgebraist 2020; for Whisper: Beyond Transcription, arXiv 2508.15882). The *saturation layer* of a position is the
earliest layer from which on the most likely token never changes again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from otoscope.engine.intervene import Intervention
from otoscope.engine.model import Model
from otoscope.errors import ModelError, TaskError
from otoscope.methods.vocabulary import as_token, show
from otoscope.models.inputs import Inputs

#: positions unembedded at once; bounds memory at a few rows of the vocabulary per layer
_CHUNK = 32

#: how far the last layer's lens may be from the model's own logits, relative to the largest of them
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}

Choice = int | str | Sequence[int]


@dataclass(frozen=True)
class Reading:
    """How one token fares at every layer and position; arrays are ``[layer, pos]``.

    Attributes:
        token: the token that is read, per position ``[pos]``.
        logit: its logit.
        log_prob: its log-probability in nats.
        rank: how many tokens have a larger logit; 0 for the most likely one.
    """

    token: Int[np.ndarray, " pos"]
    logit: Float[np.ndarray, "layer pos"]
    log_prob: Float[np.ndarray, "layer pos"]
    rank: Int[np.ndarray, "layer pos"]

    @property
    def prob(self) -> Float[np.ndarray, "layer pos"]:
        """Its probability."""
        return np.exp(self.log_prob)


@dataclass(frozen=True)
class LogitLens:
    """What every layer would say at every position. ``positions`` are those of the decoder's input tokens.

    Attributes:
        model: its name.
        tokens: the input token at each position ``[pos]``; the lens at a position reads what comes *after* it.
        top1: the most likely token ``[layer, pos]``.
        top1_prob: its probability ``[layer, pos]``.
        entropy: entropy of the layer's distribution in nats ``[layer, pos]``.
        kl: ``KL(final || layer)`` in nats ``[layer, pos]``, the final distribution being the model's own.
        saturation: earliest layer from which on ``top1`` no longer changes ``[pos]``.
        answer: the answer's readings; by default the answer is the final most likely token at each position.
        foil: the foil's readings, or None.
        agreement: largest absolute difference between the last layer's lens and the model's logits.
        texts: what each token that occurs reads as.
    """

    model: str
    tokens: Int[np.ndarray, " pos"]
    top1: Int[np.ndarray, "layer pos"]
    top1_prob: Float[np.ndarray, "layer pos"]
    entropy: Float[np.ndarray, "layer pos"]
    kl: Float[np.ndarray, "layer pos"]
    saturation: Int[np.ndarray, " pos"]
    answer: Reading
    foil: Reading | None
    agreement: float
    texts: dict[int, str]

    @property
    def logit_diff(self) -> Float[np.ndarray, "layer pos"]:
        """Logit of the answer minus logit of the foil.

        Raises:
            TaskError: no foil was given.
        """
        if self.foil is None:
            raise TaskError("there is no foil to compare the answer with: call logit_lens with foil=.")
        return self.answer.logit - self.foil.logit

    def table(self) -> list[dict[str, Any]]:
        """One row per layer and position, of plain numbers and text, ready for CSV or JSON."""
        rows = []
        for layer, pos in np.ndindex(*self.top1.shape):
            row: dict[str, Any] = {
                "layer": layer,
                "position": pos,
                "after": self.texts[int(self.tokens[pos])],
                "top1": int(self.top1[layer, pos]),
                "top1_text": self.texts[int(self.top1[layer, pos])],
                "top1_prob": float(self.top1_prob[layer, pos]),
                "entropy": float(self.entropy[layer, pos]),
                "kl": float(self.kl[layer, pos]),
                "saturated": bool(layer >= self.saturation[pos]),
            }
            for name, reading in (("answer", self.answer), ("foil", self.foil)):
                if reading is not None:
                    row[name] = int(reading.token[pos])
                    row[f"{name}_text"] = self.texts[int(reading.token[pos])]
                    row[f"{name}_logit"] = float(reading.logit[layer, pos])
                    row[f"{name}_prob"] = float(reading.prob[layer, pos])
                    row[f"{name}_rank"] = int(reading.rank[layer, pos])
            rows.append(row)
        return rows


@torch.no_grad()
def logit_lens(
    model: Model,
    inputs: Inputs,
    answer: Choice | None = None,
    foil: Choice | None = None,
    interventions: Sequence[Intervention] = (),
) -> LogitLens:
    """Read every layer of the decoder through the final norm and the unembedding.

    Args:
        model: Whisper or a language model.
        inputs: one item with its tokens (for Whisper, the sound and what is already written, prompt included).
        answer: token id, word (its first token is read), or one token id per position; by default the model's own
            most likely token at each position.
        foil: a second token to read, in the same forms.
        interventions: changes in force during the run, to see from which layer on they show.

    Raises:
        ModelError: the model has no decoder, or its logits are not the unembedding of its last layer.
        TaskError: more than one item, no tokens, or answer and foil are the same token.
    """
    if "decoder" not in model.stacks:
        raise ModelError(
            f"{model.name} has no decoder to read by the logit lens: use ctc_lens for a model with a CTC head."
        )
    if inputs.batch != 1 or inputs.tokens is None:
        raise TaskError(
            f"the logit lens reads one item with its tokens, and these inputs hold {inputs.batch} item(s), "
            f"{'without' if inputs.tokens is None else 'with'} tokens: pass inputs.item(i), made with text= or tokens=."
        )
    n_layers, n_pos = model.stacks["decoder"].n_layers, inputs.tokens.shape[1]
    sites = [f"decoder.{layer}.resid_post" for layer in range(n_layers)]
    output = model.run(inputs, interventions, sites)
    final = output.logits[0]
    chosen = _per_position(model, answer, n_pos, "answer")
    chosen = final.argmax(-1).cpu().numpy() if chosen is None else chosen
    other = _per_position(model, foil, n_pos, "foil")
    if other is not None and np.array_equal(chosen, other):
        raise TaskError(
            f"answer and foil are the same token ('{show(model, int(other[0]))}'), so the lens cannot tell them apart: "
            "choose words that differ in their first token."
        )

    top1 = np.zeros((n_layers, n_pos), dtype=np.int64)
    top1_prob, entropy, kl = (np.zeros((n_layers, n_pos)) for _ in range(3))
    readings = [_empty(tokens, n_layers) for tokens in (chosen, other) if tokens is not None]
    agreement = 0.0
    for layer, site in enumerate(sites):
        states = output.cache[site]
        for start in range(0, n_pos, _CHUNK):
            at = slice(start, start + _CHUNK)
            logits = model.adapter.unembed(model.adapter.final("decoder", states[:, at]))[0]
            if layer == n_layers - 1:
                agreement = max(agreement, float((logits - final[at]).abs().max()))
            # half precision is too coarse for sums over the vocabulary
            logits = logits if logits.dtype == torch.float64 else logits.float()
            log_p, log_final = logits.log_softmax(-1), final[at].to(logits).log_softmax(-1)
            best = log_p.max(-1)
            top1[layer, at] = best.indices.cpu()
            top1_prob[layer, at] = best.values.exp().cpu()
            entropy[layer, at] = -(log_p.exp() * log_p).sum(-1).cpu()
            # rounding can leave a distance of 0 a hair below it
            kl[layer, at] = (log_final.exp() * (log_final - log_p)).sum(-1).clamp(min=0).cpu()
            for reading in readings:
                index = torch.as_tensor(reading.token[at], device=logits.device)[:, None]
                logit = logits.gather(-1, index)
                reading.logit[layer, at] = logit[:, 0].cpu()
                reading.log_prob[layer, at] = log_p.gather(-1, index)[:, 0].cpu()
                reading.rank[layer, at] = (logits > logit).sum(-1).cpu()

    if agreement > _TOLERANCE.get(final.dtype, 5e-2) * max(1.0, float(final.abs().max())):
        raise ModelError(
            f"the logits of {model.name} are not the unembedding of its last layer (they differ by {agreement:.2g}), so a "
            "lens would misread every layer: use a model without scaling or capping of its logits."
        )
    tokens = inputs.tokens[0].cpu().numpy()
    seen = {int(t) for ids in (tokens, top1.ravel(), *(r.token for r in readings)) for t in ids}
    return LogitLens(
        model.name, tokens, top1, top1_prob, entropy, kl, saturation_layer(top1), readings[0],
        readings[1] if other is not None else None, agreement, {t: show(model, t) for t in sorted(seen)},
    )  # fmt: skip


def saturation_layer(top1: Int[np.ndarray, "layer pos"]) -> Int[np.ndarray, " pos"]:
    """Earliest layer from which on the most likely token is the final one at every later layer."""
    as_final = (top1 == top1[-1])[::-1]
    return top1.shape[0] - np.cumprod(as_final, axis=0).sum(axis=0)


def _empty(tokens: np.ndarray, n_layers: int) -> Reading:
    shape = (n_layers, len(tokens))
    return Reading(tokens, np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=np.int64))


def _per_position(model: Model, choice: Choice | None, n_pos: int, name: str) -> np.ndarray | None:
    if choice is None:
        return None
    if isinstance(choice, int | np.integer | str):
        return np.full(n_pos, as_token(model, choice if isinstance(choice, str) else int(choice)))
    tokens = np.array([as_token(model, int(t)) for t in choice], dtype=np.int64)
    if len(tokens) != n_pos:
        raise TaskError(
            f"{name} names {len(tokens)} tokens for {n_pos} positions: give one token for all of them, or one for each."
        )
    return tokens
