"""Word timing from Whisper's cross-attention: when each token and each word was said.

Some decoder heads look at the moment of the sound that the next token comes from. Their attention, normalised and
smoothed, is a picture of tokens against time, and the best monotone path through it gives every token a time (OpenAI
Whisper, ``timing.py``; the same recipe, own implementation):

1. rows: the queries that *predict* each text token and the end; columns: the frames inside the recording only;
2. each head standardised over tokens, median-filtered over time (width 7), then the mean over heads;
3. dynamic time warping; a token starts where the path enters its row and ends where the next one starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from otoscope.audio.clip import Clip, Span
from otoscope.engine.model import Model
from otoscope.errors import SiteError, TaskError
from otoscope.methods.dtw import dtw, entries
from otoscope.methods.vocabulary import show
from otoscope.methods.whisper_writing import check_whisper, greedy, room, text_tokens, whisper_prompt

Head = tuple[int, int]

#: punctuation that belongs to the word before it even where a space stands between them
_CLOSING = tuple(".,:;!?%)]}»…-–—。，、！？")


@dataclass(frozen=True)
class TokenTime:
    """A token and its time.

    Attributes:
        token: its id.
        text: what it reads as.
        start, end: seconds from the beginning of the clip.
        log_prob: its teacher-forced log-probability in nats.
    """

    token: int
    text: str
    start: float
    end: float
    log_prob: float


@dataclass(frozen=True)
class WordTiming:
    """When each token and word was said.

    Attributes:
        tokens: the text tokens in order.
        words: words with punctuation attached, in seconds; empty for a model without a tokenizer.
        heads: (layer, head) of the decoder whose cross-attention was read.
        heads_from: where they come from: ``generation_config``, ``upper half of the layers`` or ``given``.
        attention: the smoothed picture that the path runs through ``[token + 1, frame]``, standard deviations; its
            last row is that of the end token. Frames are those inside the recording.
        seconds: duration of the recording.
    """

    tokens: tuple[TokenTime, ...]
    words: tuple[Span, ...]
    heads: tuple[Head, ...]
    heads_from: str
    attention: Float[np.ndarray, "row frame"]
    seconds: float

    def table(self) -> list[dict[str, Any]]:
        """One row per token, of plain numbers and text, ready for CSV or JSON."""
        return [
            {"token": t.token, "text": t.text, "start": t.start, "end": t.end, "log_prob": t.log_prob}
            for t in self.tokens
        ]


@torch.no_grad()
def word_timing(
    model: Model,
    clip: Clip,
    text: str | None = None,
    *,
    tokens: Sequence[int] | None = None,
    heads: Sequence[Head] | None = None,
    language: str = "en",
    filter_width: int = 7,
) -> WordTiming:
    """Give every token of a transcript its time.

    Args:
        model: Whisper.
        clip: one sound of at most the model's window (30 s).
        text: what to align; by default what the model writes (greedy).
        tokens: the same as text tokens, without prompt and end.
        heads: (layer, head) pairs to read; by default the model's alignment heads, or, where its generation
            configuration names none, all heads of the upper half of the layers.
        language: the language a multilingual model is told.
        filter_width: frames of the median filter (odd).

    Raises:
        ModelError: the model is no Whisper, or a text is given and it has no tokenizer.
        SiteError: a head that the model does not have.
        TaskError: the sound is longer than the window, or the text is longer than the decoder.
    """
    check_whisper(model, clip, "word timing")
    if filter_width < 1 or filter_width % 2 == 0:
        raise TaskError(f"the median filter's width is {filter_width}: give an odd number of frames, such as 7.")
    chosen, heads_from = alignment_heads(model, heads)
    prompt = whisper_prompt(model, language)
    said = _said(model, clip, text, tokens, language)
    most = room(model, prompt, len(said))
    if len(said) > most:
        raise TaskError(
            f"the text has {len(said)} tokens and the decoder of {model.name} has room for {most}: align less at once."
        )
    inputs = model.inputs(clip, tokens=[*prompt, *said])
    clock = model.clock("encoder", inputs.n_samples[0])
    if not said:
        return WordTiming((), (), chosen, heads_from, np.zeros((1, clock.n_valid)), clip.duration)

    layers = sorted({layer for layer, _ in chosen})
    output = model.run(inputs, (), [f"decoder.{layer}.cross_pattern" for layer in layers])
    # the query at position p predicts the token at p + 1, so the rows start one before the text
    rows = slice(len(prompt) - 1, None)
    patterns = torch.stack(
        [output.cache[f"decoder.{layer}.cross_pattern"][0, head, rows, : clock.n_valid] for layer, head in chosen]
    )
    picture = smooth(patterns.double().cpu().numpy(), filter_width)
    path_rows, path_columns, _ = dtw(-picture)
    starts = [min(clock.time(int(frame)), clip.duration) for frame in entries(path_rows, path_columns)]
    log_p = output.logits[0, rows].float().log_softmax(-1)
    timed = tuple(
        TokenTime(token, show(model, token), starts[i], starts[i + 1], float(log_p[i, token]))
        for i, token in enumerate(said)
    )
    return WordTiming(timed, _words(model, timed), chosen, heads_from, picture, clip.duration)


def alignment_heads(model: Model, heads: Sequence[Head] | None = None) -> tuple[tuple[Head, ...], str]:
    """The (layer, head) pairs to read, and where they come from.

    Raises:
        SiteError: no head, or one that the model does not have.
    """
    spec = model.stacks["decoder"]
    if heads is not None:
        found, source = heads, "given"
    elif getattr(model.hf.generation_config, "alignment_heads", None):
        found, source = model.hf.generation_config.alignment_heads, "generation_config"
    else:
        upper = range(spec.n_layers // 2, spec.n_layers)
        found, source = [(layer, head) for layer in upper for head in range(spec.n_heads)], "upper half of the layers"
    chosen = tuple((int(layer), int(head)) for layer, head in found)
    for layer, head in chosen:
        if not (0 <= layer < spec.n_layers and 0 <= head < spec.n_heads):
            raise SiteError(
                f"{model.name} has no decoder head ({layer}, {head}): layers are 0 to {spec.n_layers - 1}, heads 0 to "
                f"{spec.n_heads - 1}."
            )
    if not chosen:
        raise SiteError("no head to read the time from: name at least one (layer, head), or leave heads= out.")
    return chosen, source


def smooth(patterns: Float[np.ndarray, "head row frame"], width: int = 7) -> Float[np.ndarray, "row frame"]:
    """Cross-attention of several heads as one picture of tokens against time, in standard deviations.

    Standardised over tokens per head and frame, median-filtered over time with mirrored edges, averaged over heads. A
    frame that all tokens attend alike says nothing: it becomes 0. Attention that a row spends on padding is not given
    back to the frames of the recording: a row that looks away from the sound (the end token's) should stay faint there.
    """
    mean, std = patterns.mean(-2, keepdims=True), patterns.std(-2, keepdims=True)
    # attention has single precision at best, so what varies less than that is rounding, not looking
    scaled = np.divide(patterns - mean, std, out=np.zeros_like(patterns), where=std > 1e-6 * mean)
    half = width // 2
    if scaled.shape[-1] > half:
        padded = np.pad(scaled, ((0, 0), (0, 0), (half, half)), mode="reflect")
        scaled = np.median(np.lib.stride_tricks.sliding_window_view(padded, width, axis=-1), axis=-1)
    return scaled.mean(0)


def _said(model: Model, clip: Clip, text: str | None, tokens: Sequence[int] | None, language: str) -> tuple[int, ...]:
    if tokens is not None:
        return tuple(int(token) for token in tokens)
    if text is not None:
        return tuple(model.encode(text)[len(model.prompt()) :])
    written = greedy(model, {"input_features": model.inputs(clip, tokens=model.prompt()).features}, language, 448)[0]
    return text_tokens(model, written)


def _words(model: Model, tokens: Sequence[TokenTime]) -> tuple[Span, ...]:
    """Tokens joined to words: a word begins with a space, and punctuation joins it without stretching its time.

    The time of a punctuation mark is the pause beside the word, which is not part of the word.
    """
    if model.tokenizer is None:
        return ()
    words: list[Span] = []
    opening = ""  # punctuation that waits for the word it stands before
    gap = True  # a space, or the beginning, came last
    pending: list[TokenTime] = []
    for token in tokens:
        pending.append(token)
        piece = model.tokenizer.decode([t.token for t in pending])
        if "\ufffd" in piece and token is not tokens[-1]:
            continue  # a character is spread over several tokens and can be read once the last of them is here
        start, end, pending = pending[0].start, pending[-1].end, []
        gap = gap or piece[:1].isspace()
        text = piece.strip()
        if not any(character.isalnum() for character in text):
            if words and (not gap or text.startswith(_CLOSING)):
                words[-1] = Span(words[-1].start, words[-1].end, words[-1].text + text)
            else:
                opening += text
        elif gap:
            words.append(Span(start, end, opening + text))
            opening, gap = "", False
        else:
            words[-1] = Span(words[-1].start, end, words[-1].text + text)
    return tuple(words)
