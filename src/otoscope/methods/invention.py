"""Words where nobody speaks: how often a Whisper invents them, and what its own no-speech rule leaves of them.

A sound without speech has invented words when its transcript holds any letter or digit. The rule (Radford et al. 2022,
section 4.5) drops a transcript when the probability of the no-speech token at the start exceeds 0.6 *and* the mean
log-probability of its tokens is below -1. Rates depend on which of the two is counted, so both are given.

The encoder is run once per sound; edits of the decoder are tried on its kept output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from otoscope.audio.clip import Clip
from otoscope.engine.intervene import Intervention
from otoscope.engine.model import Model
from otoscope.errors import ModelError
from otoscope.methods.whisper_writing import room, text_tokens, whisper_prompt
from otoscope.models.quiet import quiet
from otoscope.models.transcribe import suppressed_tokens

#: thresholds of Whisper's own rule
NO_SPEECH, LOG_PROB = 0.6, -1.0
#: sounds that are decoded together
BATCH = 8
#: tokens that are written for a sound without speech: enough to know whether there is a word
SHORT = 24
#: tokens that are written for speech at most: so many, and so many per second, about twice what fast speech needs
BASE, PER_SECOND = 16, 8
_NAMES = ("<|nospeech|>", "<|nocaptions|>")


@dataclass(frozen=True)
class Written:
    """What was written for one sound.

    Attributes:
        text: the transcript.
        no_speech: probability of the no-speech token at the start; NaN where the model has none.
        log_prob: mean log-probability of the tokens, the end included.
    """

    text: str
    no_speech: float
    log_prob: float

    @property
    def dropped(self) -> bool:
        """Whether Whisper's rule drops it."""
        return self.no_speech > NO_SPEECH and self.log_prob < LOG_PROB


class Ears:
    """Sounds as a Whisper's encoder left them, computed when first asked for and kept in half precision.

    Args:
        model: the Whisper.
        clips: the sounds, at most as long as the model hears at once.
        language: of a multilingual model.
    """

    def __init__(self, model: Model, clips: Sequence[Clip], language: str = "en"):
        check_writes(model)
        self.model, self.language = model, language
        self.clips = [clip.resample(model.adapter.rate) for clip in clips]
        self._kept: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.clips)

    @torch.no_grad()
    def encoded(self, which: Sequence[int]) -> Float[Tensor, "sound frame d_model"]:
        """The encoder's output for some sounds."""
        hf = self.model.hf
        missing = [i for i in which if i not in self._kept]
        for start in range(0, len(missing), BATCH):
            batch = missing[start : start + BATCH]
            made = self.model.feature_extractor(
                [self.clips[i].samples for i in batch], sampling_rate=self.model.adapter.rate, return_tensors="pt"
            ).input_features[..., : 2 * hf.config.max_source_positions]
            states = hf.get_encoder()(made.to(self.model.adapter.device, self.model.adapter.dtype)).last_hidden_state
            self._kept.update({i: state.half().cpu() for i, state in zip(batch, states)})
        kept = torch.stack([self._kept[i] for i in which])
        return kept.to(self.model.adapter.device, self.model.adapter.dtype)

    def padding(self, i: int) -> Bool[np.ndarray, " frame"]:
        """Which frames of the encoder lie behind the end of a sound."""
        clock = self.model.clock("encoder", len(self.clips[i].samples))
        times = np.arange(self.model.hf.config.max_source_positions) / clock.rate
        return times >= self.clips[i].duration


def check_writes(model: Model) -> None:
    """Refuse a model that is no Whisper, or has no tokenizer.

    Raises:
        ModelError: which.
    """
    if model.family != "whisper":
        raise ModelError(f"words where nobody speaks are studied in a Whisper, and {model.name} is '{model.family}'.")
    if model.tokenizer is None:
        raise ModelError(f"{model.name} has no tokenizer beside its weights, so its tokens are no words.")


@torch.no_grad()
def write(
    ears: Ears, which: Sequence[int], edits: Sequence[Intervention] = (), *, max_new_tokens: int | None = None,
    begin_suppress: Sequence[int] | None = None,
) -> list[list[int]]:  # fmt: skip
    """Greedy transcripts, as tokens of text, with edits of the decoder in force."""
    from transformers.modeling_outputs import BaseModelOutput

    model, hf = ears.model, ears.model.hf
    prompt = whisper_prompt(model, ears.language)
    options: dict[str, Any] = {
        "do_sample": False, "num_beams": 1, "suppress_tokens": suppressed_tokens(hf),
    }  # fmt: skip
    if begin_suppress is not None:
        options["begin_suppress_tokens"] = list(begin_suppress)
    if getattr(hf.generation_config, "is_multilingual", False):
        options |= {"language": ears.language, "task": "transcribe"}
    found: dict[int, list[int]] = {}
    # sounds of like length share a batch, because a batch decodes until its longest text is done
    order = sorted(range(len(which)), key=lambda i: ears.clips[which[i]].duration)
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        states = ears.encoded([which[i] for i in batch])
        longest = max(ears.clips[which[i]].duration for i in batch)
        options["max_new_tokens"] = room(model, prompt, max_new_tokens or BASE + round(PER_SECOND * longest))
        with quiet(), model.intervene(*edits):
            rows = hf.generate(encoder_outputs=BaseModelOutput(states), **options)
        for i, row in zip(batch, rows.tolist()):
            found[i] = list(text_tokens(model, [t for t in row if t not in prompt]))
    return [found[i] for i in range(len(which))]


@torch.no_grad()
def judged(
    ears: Ears, which: Sequence[int], edits: Sequence[Intervention] = (), *, max_new_tokens: int | None = None,
    begin_suppress: Sequence[int] | None = None,
) -> list[Written]:  # fmt: skip
    """Transcripts with what Whisper's own rule judges them by, all with the edits in force."""
    model, hf = ears.model, ears.model.hf
    texts = write(ears, which, edits, max_new_tokens=max_new_tokens, begin_suppress=begin_suppress)
    prompt, end = whisper_prompt(model, ears.language), hf.generation_config.eos_token_id
    silent = no_speech_token(model)
    made = []
    for i, tokens in zip(which, texts):
        row = torch.tensor([[*prompt, *tokens]], device=model.adapter.device)
        with model.intervene(*edits):
            logits = hf(decoder_input_ids=row, encoder_outputs=(ears.encoded([i]),)).logits[0].float()
        logs = logits.log_softmax(-1)
        wanted = [*tokens, end]
        at = logs[len(prompt) - 1 :].gather(1, torch.tensor(wanted, device=logs.device)[:, None])
        start = logs[0, silent].exp().item() if silent is not None else float("nan")
        made.append(Written(model.tokenizer.decode(tokens).strip(), start, float(at.mean())))
    return made


@torch.no_grad()
def padding_attention(ears: Ears, which: Sequence[int]) -> Float[np.ndarray, " sound"]:
    """Share of the cross-attention behind the end of each sound at the start of the text, mean over layers and heads."""
    model, prompt = ears.model, whisper_prompt(ears.model, ears.language)
    shares = []
    for i in which:
        behind, found = torch.from_numpy(ears.padding(i)), []

        def look(x: Tensor, _: Tensor, behind: Tensor = behind, found: list[float] = found) -> Tensor:
            found.append(float(x[0, :, -1, behind.to(x.device)].sum(-1).mean()))
            return x

        with model.intervene(Intervention("decoder.*.cross_pattern", look, name="read")):
            model.hf(
                decoder_input_ids=torch.tensor([prompt], device=model.adapter.device),
                encoder_outputs=(ears.encoded([i]),),
            )
        shares.append(float(np.mean(found)))
    return np.array(shares)


def no_speech_token(model: Model) -> int | None:
    """The token whose probability at the start says that nobody speaks."""
    known = model.tokenizer.get_vocab() if model.tokenizer is not None else {}
    return next((known[name] for name in _NAMES if name in known), None)


def has_words(text: str) -> bool:
    """Whether a transcript holds a letter or a digit; a lone comma is no word."""
    return any(letter.isalnum() for letter in text)
