"""The encoder lens: what Whisper would write if its encoder stopped after layer l.

The encoder's final norm is applied to ``resid_post`` of layer l, and the whole decoder reads the result in place of
the encoder's output (Beyond Transcription, arXiv 2508.15882). Two measures per layer: the transcript that greedy
decoding writes, and the teacher-forced log-probability of the transcript that the *whole* model writes, which stays
informative where the transcript is already noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from otoscope.audio.clip import Clip
from otoscope.engine.model import Model
from otoscope.methods.whisper_writing import check_whisper, greedy, room, text_tokens, whisper_prompt
from otoscope.models.wer import score


@dataclass(frozen=True)
class EncoderLens:
    """What the decoder makes of every encoder layer.

    Attributes:
        model: its name.
        tokens: per layer, the tokens it writes, without specials.
        texts: per layer, what they read as; None without a tokenizer.
        ended: per layer, whether it came to an end before ``max_new_tokens`` (a loop does not).
        log_prob: log-probability, in nats, of the last layer's transcript and its end token ``[layer]``.
        n_scored: how many tokens ``log_prob`` sums over.
        wer: word error rate against the reference, after Whisper's text normaliser ``[layer]``; None without one.
        wer_to_final: the same against the last layer's transcript; NaN where that is empty.
        reference: the reference transcript, if there is one.
    """

    model: str
    tokens: tuple[tuple[int, ...], ...]
    texts: tuple[str, ...] | None
    ended: tuple[bool, ...]
    log_prob: Float[np.ndarray, " layer"]
    n_scored: int
    wer: Float[np.ndarray, " layer"] | None
    wer_to_final: Float[np.ndarray, " layer"] | None
    reference: str | None

    def table(self) -> list[dict[str, Any]]:
        """One row per layer, of plain numbers and text, ready for CSV or JSON (None where there is no number)."""
        return [
            {
                "layer": layer,
                "text": self.texts[layer] if self.texts is not None else " ".join(map(str, self.tokens[layer])),
                "ended": self.ended[layer],
                "wer": _number(self.wer, layer),
                "wer_to_final": _number(self.wer_to_final, layer),
                "log_prob": float(self.log_prob[layer]),
                "log_prob_per_token": float(self.log_prob[layer]) / self.n_scored,
            }
            for layer in range(len(self.tokens))
        ]


@torch.no_grad()
def encoder_lens(
    model: Model, clip: Clip, reference: str | None = None, *, language: str = "en", max_new_tokens: int = 128
) -> EncoderLens:
    """Let the decoder read every encoder layer.

    Args:
        model: Whisper.
        clip: one sound of at most the model's window (30 s).
        reference: what was said, for the WER; by default the clip's own text.
        language: the language a multilingual model is told; the same for every layer, so that none has to guess it.
        max_new_tokens: where to stop a transcript that does not end by itself (at most what the decoder has room for).

    Raises:
        ModelError: the model is no Whisper.
        TaskError: the sound is longer than the model's window.
    """
    check_whisper(model, clip, "the encoder lens")
    prompt = whisper_prompt(model, language)
    inputs = model.inputs(clip, tokens=prompt)
    n_layers = model.stacks["encoder"].n_layers
    cache = model.capture(inputs, "encoder.*.resid_post")
    states = torch.cat([model.adapter.final("encoder", cache[f"encoder.{i}.resid_post"]) for i in range(n_layers)])
    rows = greedy(model, {"encoder_outputs": BaseModelOutput(last_hidden_state=states)}, language, max_new_tokens)  # type: ignore[arg-type]
    end = model.hf.generation_config.eos_token_id
    tokens = tuple(text_tokens(model, row) for row in rows)
    scored = [*tokens[-1], end]
    texts = None if model.tokenizer is None else tuple(model.tokenizer.decode(list(t)).strip() for t in tokens)
    reference = reference if reference is not None else clip.text
    return EncoderLens(
        model=model.name,
        tokens=tokens,
        texts=texts,
        # transformers pads shorter rows with the end token and cuts it off the longest one
        ended=tuple(end in row or len(row) < room(model, prompt, max_new_tokens) for row in rows),
        log_prob=np.array([_score(model, states[i : i + 1], prompt, scored) for i in range(n_layers)]),
        n_scored=len(scored),
        wer=None if reference is None or texts is None else _wers(language, reference, texts),
        wer_to_final=None if texts is None else _wers(language, texts[-1], texts),
        reference=reference,
    )


def _score(model: Model, state: Float[Tensor, "1 frame d_model"], prompt: list[int], tokens: list[int]) -> float:
    """Log-probability in nats of ``tokens`` after the prompt, for a decoder that reads ``state``."""
    given = torch.tensor([[*prompt, *tokens[:-1]]], device=state.device)
    logits = model.hf(encoder_outputs=BaseModelOutput(last_hidden_state=state), decoder_input_ids=given).logits  # type: ignore[arg-type]
    log_p = logits[0, len(prompt) - 1 :].float().log_softmax(-1)
    return float(log_p.gather(-1, torch.tensor(tokens, device=state.device)[:, None]).sum())


def _wers(language: str, reference: str, texts: tuple[str, ...]) -> Float[np.ndarray, " layer"]:
    return np.array([score([text], [reference], english=language == "en").wer for text in texts])


def _number(values: np.ndarray | None, layer: int) -> float | None:
    return None if values is None or np.isnan(values[layer]) else float(values[layer])
