"""Candidate remedies of one wrong word: the sentence written again with one thing changed, and whether that mends it.

    head     one decoder head silenced, or twice as strong
    context  the text before the sentence left out
    prior    at the token where both sides part, what the text alone expects is taken off (contrastive decoding, as in
             Leng et al. 2024, VCD, eq. 3 with alpha = 1): the logits are ``2 l - l_none``, where ``l_none`` is read with no
             word in the span
    sound    the encoder's frames in the span are those of a synthetic rendering of the reference's words

They are listed from the smallest change to the largest. ``head``, ``context`` and ``prior`` need no reference, so they can
be kept in use; ``sound`` cannot, it shows that a clearer recording would have been understood.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from otoscope.audio.clip import Clip
from otoscope.engine.intervene import Intervention, scale
from otoscope.engine.model import Model
from otoscope.methods.error_evidence import Evidence, encode, exchanged, make_arms, prompt_tokens
from otoscope.methods.whisper_writing import whisper_prompt
from otoscope.models.asr_errors import WordError, compare
from otoscope.models.transcribe import suppressed_tokens

#: how strongly what the text alone expects is taken off
ALPHA = 1.0


@dataclass(frozen=True)
class Remedy:
    """The sentence with one thing changed.

    Attributes:
        kind: see the module.
        what: the change, readable.
        text: what is written then.
        mends: whether the place of the error is right then.
        errors: places of the sentence that are wrong then.
    """

    kind: str
    what: str
    text: str
    mends: bool
    errors: int


def remedies(
    model: Model,
    clip: Clip,
    reference: str,
    error: WordError,
    evidence: Evidence,
    base: Float[Tensor, "frame d_model"],
    *,
    context: str = "",
    heads: Sequence[tuple[str, int, float]] = (),
    language: str = "en",
    seed: int = 0,
) -> list[Remedy]:
    """Write the sentence again under each candidate.

    Args:
        model: a Whisper, as it was when it wrote.
        clip: the sound.
        reference: what was said.
        error: the place that is to be mended.
        evidence: of that error.
        base: the encoder's output for the clip.
        context: the text before it.
        heads: (site, head, factor) of decoder heads to weaken or strengthen.
        language: of a multilingual model.
        seed: of the noise.
    """
    prompt = prompt_tokens(model, context, language)
    made: list[Remedy] = []

    def add(kind: str, what: str, tokens: Sequence[int]) -> None:
        text = model.tokenizer.decode(list(tokens)).strip()
        found = compare(reference, text, language == "en")
        left = [e for e in found.errors if _overlap(e.said_at, error.said_at)]
        made.append(Remedy(kind, what, text, not left, len(found.errors)))

    for site, head, factor in heads:
        change: Intervention = scale(site, factor, heads=(head,))
        with model.intervene(change):
            written = write_on(model, base[None], prompt)[0]
        layer = site.split(".")[1]
        kind = "cross-attention" if "cross" in site else "self-attention"
        add(
            "head",
            f"{kind} head {head} of decoder layer {layer} {'silenced' if factor == 0 else f'times {factor:g}'}",
            written,
        )
    if context.strip():
        add("context", "the text before left out", write_on(model, base[None], whisper_prompt(model, language))[0])
    arms = make_arms(clip, evidence.span, " ".join(error.said), "", seed)
    states = exchanged(model, base, encode(model, [arms.none[0], *arms.said[:1]]), clip, evidence.span)
    tokens = [*prompt, *evidence.before]
    step = _without_prior(model, base, states[0], tokens, allowed(model, not evidence.before))
    rest = write_on(model, base[None], [*tokens, step])[0] if step != _end(model) else []
    add("prior", "what the text alone expects taken off at that token", [*evidence.before, step, *rest])
    if len(states) > 1:
        add(
            "sound",
            "the span's frames from a synthetic voice that says the reference",
            write_on(model, states[1:], prompt)[0],
        )
    return made  # fmt: skip


def _overlap(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether two ranges share a word, or an empty one lies in or at the border of the other."""
    if a[0] == a[1] or b[0] == b[1]:
        return a[0] <= b[1] and b[0] <= a[1]
    return a[0] < b[1] and b[0] < a[1]


@torch.no_grad()
def _without_prior(model: Model, base: Tensor, none: Tensor, tokens: Sequence[int], mask: Tensor) -> int:
    logits = last_logits(model, torch.stack([base, none]), tokens)
    return int(((1 + ALPHA) * logits[0] - ALPHA * logits[1] + mask).argmax())


@torch.no_grad()
def last_logits(
    model: Model, states: Float[Tensor, "row frame d_model"], tokens: Sequence[int]
) -> Float[Tensor, "row vocab"]:
    """Logits after ``tokens`` for decoders that attend to each row of states."""
    from transformers.modeling_outputs import BaseModelOutput

    given = torch.tensor([list(tokens)], device=states.device).expand(len(states), -1)
    out = model.hf(encoder_outputs=BaseModelOutput(last_hidden_state=states), decoder_input_ids=given, use_cache=False)  # type: ignore[arg-type]
    return out.logits[:, -1].float()


def allowed(model: Model, first: bool) -> Float[Tensor, " vocab"]:
    """What greedy decoding adds to logits: minus infinity where a token may not be written."""
    mask = torch.zeros(model.hf.config.vocab_size, device=model.adapter.device)
    mask[suppressed_tokens(model.hf) or []] = -torch.inf
    if first:
        mask[list(model.hf.generation_config.begin_suppress_tokens or ())] = -torch.inf
    return mask


def _end(model: Model) -> int:
    return int(model.hf.generation_config.eos_token_id)


@torch.no_grad()
def write_on(model: Model, states: Float[Tensor, "row frame d_model"], tokens: Sequence[int]) -> list[list[int]]:
    """Greedy decoding from encoder states after ``tokens`` (prompt included); text tokens per row, without the end.

    As transformers' ``generate`` with the standard suppressed tokens, but it starts from any beginning of a text.
    """
    from transformers.modeling_outputs import BaseModelOutput

    prompt = set(model.prompt())
    end, room = _end(model), model.hf.config.max_target_positions - len(tokens)
    given = torch.tensor([list(tokens)], device=states.device).expand(len(states), -1)
    heard: Any = BaseModelOutput(last_hidden_state=states)  # type: ignore[arg-type]
    cache: Any = None
    rows: list[list[int]] = [[] for _ in states]
    ended = torch.zeros(len(states), dtype=torch.bool, device=states.device)
    for step in range(room):
        out = model.hf(encoder_outputs=heard, decoder_input_ids=given, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        first = step == 0 and tokens[-1] in prompt
        best = (out.logits[:, -1].float() + allowed(model, first)).argmax(-1)
        ended |= best == end
        if bool(ended.all()):
            break
        for row, token in zip(rows, best.tolist()):
            row.append(token)
        given = best[:, None]
    return [row[: row.index(end)] if end in row else row for row in rows]
