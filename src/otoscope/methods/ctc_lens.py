"""The CTC lens: what the CTC head would write if the encoder stopped after layer l.

The head (after the encoder's final norm, where layers are pre-LN) is applied to ``resid_post`` of every layer. Per
layer: the most likely token of every frame, the text they collapse to, and the log-probability that CTC (Graves et al.
2006), summed over all alignments, gives to one and the same answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch.nn.functional import ctc_loss

from otoscope.audio.clip import Clip
from otoscope.engine.model import Model
from otoscope.errors import ModelError, TaskError
from otoscope.methods.vocabulary import as_token
from otoscope.models.inputs import Inputs


@dataclass(frozen=True)
class CTCLens:
    """What the head reads in every layer; frames are those of the sound, without padding.

    Attributes:
        model: its name.
        times: centre of each frame in seconds ``[frame]``.
        top1: most likely token ``[layer, frame]``.
        top1_prob: its probability ``[layer, frame]``.
        entropy: entropy in nats ``[layer, frame]``.
        tokens: per layer, ``top1`` with repetitions and blanks removed.
        texts: per layer, what they read as; None without a tokenizer.
        answer: the tokens whose log-probability is followed.
        log_prob: ``log P(answer | layer)`` in nats, over all alignments ``[layer]``.
        blank_share: share of frames whose most likely token is the blank ``[layer]``.
        agreement: largest absolute difference between the last layer's lens and the model's logits.
    """

    model: str
    times: Float[np.ndarray, " frame"]
    top1: Int[np.ndarray, "layer frame"]
    top1_prob: Float[np.ndarray, "layer frame"]
    entropy: Float[np.ndarray, "layer frame"]
    tokens: tuple[tuple[int, ...], ...]
    texts: tuple[str, ...] | None
    answer: tuple[int, ...]
    log_prob: Float[np.ndarray, " layer"]
    blank_share: Float[np.ndarray, " layer"]
    agreement: float

    def table(self) -> list[dict[str, Any]]:
        """One row per layer, of plain numbers and text, ready for CSV or JSON."""
        return [
            {
                "layer": layer,
                "text": self.texts[layer] if self.texts is not None else " ".join(map(str, self.tokens[layer])),
                "log_prob": float(self.log_prob[layer]),
                "log_prob_per_token": float(self.log_prob[layer]) / max(1, len(self.answer)),
                "blank_share": float(self.blank_share[layer]),
                "entropy": float(self.entropy[layer].mean()),
            }
            for layer in range(len(self.log_prob))
        ]


@torch.no_grad()
def ctc_lens(model: Model, sound: Clip | Inputs, answer: str | tuple[int, ...] | None = None) -> CTCLens:
    """Read every encoder layer through the CTC head.

    Args:
        model: HuBERT, wav2vec2 or WavLM with a CTC head.
        sound: one clip, or the inputs made of it.
        answer: text or tokens whose log-probability is followed; by default what the whole model writes.

    Raises:
        ModelError: the model has no CTC head, or no tokenizer for an answer given as text.
        TaskError: more than one item, or an answer that has no room in the frames of this sound.
    """
    if model.family == "language" or "decoder" in model.stacks or not hasattr(model.hf, "lm_head"):
        raise ModelError(f"{model.name} has no CTC head to read its layers by: load a ...ForCTC model.")
    inputs = model.inputs(sound) if isinstance(sound, Clip) else sound
    if inputs.batch != 1:
        raise TaskError(
            f"the CTC lens reads one sound at a time, and these inputs hold {inputs.batch}: pass inputs.item(i)."
        )
    n_layers = model.stacks["encoder"].n_layers
    sites = [f"encoder.{layer}.resid_post" for layer in range(n_layers)]
    output = model.run(inputs, (), sites)
    clock = model.clock("encoder", inputs.n_samples[0])
    valid = slice(0, clock.n_valid)
    blank = int(model.hf.config.pad_token_id)

    log_p = []
    agreement = 0.0
    for site in sites:
        logits = model.adapter.unembed(model.adapter.final("encoder", output.cache[site]))[0, valid]
        agreement = float((logits - output.logits[0, valid]).abs().max())
        log_p.append((logits if logits.dtype == torch.float64 else logits.float()).log_softmax(-1))
    log_probs = torch.stack(log_p)
    best = log_probs.max(-1)
    top1 = best.indices.cpu().numpy()
    tokens = tuple(collapse(frames, blank) for frames in top1)
    wanted = tokens[-1] if answer is None else _tokens(model, answer, blank)
    _check_room(wanted, clock.n_valid)
    target = torch.tensor([wanted], dtype=torch.long)
    losses = [
        ctc_loss(lp[:, None].cpu(), target, torch.tensor([lp.shape[0]]), torch.tensor([len(wanted)]), blank, "sum")
        for lp in log_probs
    ]
    return CTCLens(
        model=model.name,
        times=np.array([clock.time(frame) for frame in range(clock.n_valid)]),
        top1=top1,
        top1_prob=best.values.exp().cpu().numpy(),
        entropy=-(log_probs.exp() * log_probs).sum(-1).cpu().numpy(),
        tokens=tokens,
        texts=None if model.tokenizer is None else tuple(_read(model, t) for t in tokens),
        answer=wanted,
        log_prob=-np.array([float(loss) for loss in losses]),
        blank_share=(top1 == blank).mean(axis=1),
        agreement=agreement,
    )


def collapse(frames: Int[np.ndarray, " frame"], blank: int) -> tuple[int, ...]:
    """CTC's reading of a row of tokens: repetitions joined, then blanks dropped."""
    return tuple(int(token) for token, _ in groupby(frames) if token != blank)


def _read(model: Model, tokens: tuple[int, ...]) -> str:
    # the tokens are collapsed already; collapsing again would swallow double letters
    return model.tokenizer.decode(list(tokens), group_tokens=False)


def _tokens(model: Model, answer: str | tuple[int, ...], blank: int) -> tuple[int, ...]:
    if isinstance(answer, str):
        if model.tokenizer is None:
            raise ModelError(f"{model.name} has no tokenizer beside its weights: give the answer as token ids.")
        return tuple(model.tokenizer(answer).input_ids)
    if blank in answer:
        raise TaskError(f"the answer holds the blank token {blank}, which CTC never writes: leave it out.")
    return tuple(as_token(model, int(token)) for token in answer)


def _check_room(answer: tuple[int, ...], n_frames: int) -> None:
    repeats = sum(a == b for a, b in zip(answer, answer[1:]))
    if len(answer) + repeats > n_frames:
        raise TaskError(
            f"an answer of {len(answer)} tokens needs at least {len(answer) + repeats} frames and this sound has {n_frames}: "
            "give a shorter answer or a longer sound."
        )
