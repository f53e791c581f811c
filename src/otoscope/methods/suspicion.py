"""Which words of a transcript are most likely wrong or invented, where nobody knows what was said.

Four signals per word, each of which has a reason to be there when a word is wrong:

    doubt        1 - the least probability that any token of the word had when it was written
    unsteady     share of rewritings (the sound under faint noise; the text before left out) that have another word there
    padding      attention of the decoder's alignment heads that a token spends behind the end of the recording, the most
                 of the word's tokens: a word that is read off the padding was not heard
    repetition   the word goes on with a loop: a phrase that has just been written is written again

and one for the whole text, the compression ratio of Whisper's own rule (Radford et al. 2022, section 4.5): bytes of the
text per byte of its zlib form; loops compress well.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from otoscope.audio.clip import Clip
from otoscope.audio.corruptions import apply
from otoscope.engine.hearing import hearing
from otoscope.engine.model import Model
from otoscope.methods.error_evidence import encode, prompt_tokens
from otoscope.methods.error_remedies import write_on
from otoscope.methods.timing import alignment_heads, word_timing
from otoscope.methods.whisper_writing import whisper_prompt
from otoscope.models.asr_errors import compare, says_again, spelled, token_words

#: level of the faint noise, dB below the sound
FAINT = 20.0
N_NOISES = 2
#: a signal of at least this much flags the word; fixed before any measurement on held-out speakers
THRESHOLDS = {"doubt": 0.6, "unsteady": 0.5, "padding": 0.5, "repetition": 1.0}
#: Whisper's own threshold of the compression ratio
COMPRESSION = 2.4


@dataclass(frozen=True)
class Suspect:
    """One word and its signals.

    Attributes:
        text: the word.
        start, end: seconds.
        signals: name -> value from 0 to 1.
    """

    text: str
    start: float
    end: float
    signals: dict[str, float]

    @property
    def reasons(self) -> tuple[str, ...]:
        """The signals that flag it, the furthest above its threshold first."""
        above = {name: self.signals[name] - bar for name, bar in THRESHOLDS.items() if self.signals[name] >= bar}
        return tuple(sorted(above, key=lambda name: -above[name]))

    @property
    def score(self) -> float:
        """For ranking: the sum of its signals."""
        return float(sum(self.signals.values()))


@dataclass(frozen=True)
class Suspicion:
    """A transcript without a reference.

    Attributes:
        words: every word, in order.
        compression: compression ratio of the text.
        rewritings: what was written for the changed sounds, by what was changed.
    """

    words: tuple[Suspect, ...]
    compression: float
    rewritings: dict[str, str]

    @property
    def flagged(self) -> tuple[Suspect, ...]:
        """The words that some signal flags, the most suspect first."""
        return tuple(sorted((w for w in self.words if w.reasons), key=lambda w: -w.score))


def suspicion(
    model: Model,
    clip: Clip,
    tokens: Sequence[int],
    base: Float[Tensor, "frame d_model"],
    *,
    context: str = "",
    language: str = "en",
    seed: int = 0,
) -> Suspicion:
    """Signals of every word that was written.

    Args:
        model: a Whisper, as it was when it wrote.
        clip: the sound, at the model's rate.
        tokens: the text tokens that were written.
        base: the encoder's output for the clip.
        context: the text before it that the model was given.
        language: of a multilingual model.
        seed: of the noise.
    """
    words = token_words(model.tokenizer, tokens)
    texts = spelled(model.tokenizer, words)
    if not words:
        return Suspicion((), 0.0, {})
    prompt = prompt_tokens(model, context, language)
    rewritten = _rewritings(model, clip, base, prompt, context, language, seed)
    changed = np.zeros((len(rewritten), len(words)))
    for row, text in zip(changed, rewritten.values()):
        kept = {written for written, _ in compare(texts, text, language == "en").matches}
        row[[i for i in range(len(words)) if i not in kept and any(c.isalnum() for c in texts[i])]] = 1
    with hearing(model.adapter, base[None]):
        timing = word_timing(model, clip, tokens=tokens, language=language)
    log_p, looks = _reading(model, clip, base, prompt, tokens)
    keys = [[text.lower().strip(".,;:!?")] for text in texts]
    loops = [any(says_again(keys, (start, i + 1)) for start in range(max(0, i - 12), i + 1)) for i in range(len(keys))]
    made, at = [], 0
    for i, (word, text) in enumerate(zip(words, texts)):
        own = slice(at, at + len(word))
        times = timing.tokens[own]
        signals = {
            "doubt": 1 - float(np.exp(log_p[own].min())), "unsteady": float(changed[:, i].mean()),
            "padding": float(looks[own].max()), "repetition": float(loops[i]),
        }  # fmt: skip
        made.append(Suspect(text, times[0].start, times[-1].end, signals))
        at += len(word)
    return Suspicion(tuple(made), compression_ratio(" ".join(texts)), rewritten)


def compression_ratio(text: str) -> float:
    """Bytes of a text per byte of its zlib form."""
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw)) if raw else 0.0


def _rewritings(
    model: Model, clip: Clip, base: Tensor, prompt: Sequence[int], context: str, language: str, seed: int
) -> dict[str, str]:
    found: dict[str, str] = {}
    if np.any(clip.samples):  # noise has no level relative to silence
        noisy = [apply("white_noise", clip, None, seed + i, snr_db=FAINT).clip for i in range(N_NOISES)]
        for i, row in enumerate(write_on(model, encode(model, noisy), prompt)):
            found[f"white noise {FAINT:g} dB below the sound, seed {seed + i}"] = model.tokenizer.decode(row).strip()
    if context.strip():
        row = write_on(model, base[None], whisper_prompt(model, language))[0]
        found["without the text before"] = model.tokenizer.decode(row).strip()
    return found


@torch.no_grad()
def _reading(
    model: Model, clip: Clip, base: Tensor, prompt: Sequence[int], tokens: Sequence[int]
) -> tuple[Float[np.ndarray, " token"], Float[np.ndarray, " token"]]:
    """Log-probability of every token, and the attention that its alignment heads spend on padding."""
    heads, _ = alignment_heads(model)
    inputs = model.inputs(clip, tokens=[*prompt, *tokens])
    with hearing(model.adapter, base[None]):
        out = model.run(
            inputs, (), [f"decoder.{layer}.cross_pattern" for layer in sorted({layer for layer, _ in heads})]
        )
    rows = slice(len(prompt) - 1, -1)
    log_p = out.logits[0, rows].float().log_softmax(-1)[range(len(tokens)), list(tokens)]
    n_valid = model.clock("encoder", inputs.n_samples[0]).n_valid
    spent = [
        out.cache[f"decoder.{layer}.cross_pattern"][0, head, rows, n_valid:].float().sum(-1) for layer, head in heads
    ]
    return log_p.cpu().numpy(), torch.stack(spent).mean(0).cpu().numpy()
