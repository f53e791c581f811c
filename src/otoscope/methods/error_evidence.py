"""Why a recogniser wrote a wrong word: how much its sound, and how much its text, speaks for it.

Let ``m = logit(written) - logit(said)`` at the token where transcript and reference part (the margin, positive where the
error is made), read under teacher forcing with the decoder attending to encoder states that differ in one span only:

    m          the states as they are
    m_none     the span's frames from the same sentence with no word in the span (silence, noise)
    m_said     the span's frames from the same sentence with the reference's words put there by a synthetic voice
    m_written  the span's frames from the same sentence with the words that were written put there

Log odds add what the text expects and what the sound says, so the text's part is what is left without the sound, and

    support(actual) = m_none - m         what the sound in the span does for the reference's words, in nats
    support(clean)  = m_none - m_said    what a clean rendering of them would do
    place           = (m_written - m) / (m_written - m_said)
                                         which word the encoder's states are nearer to: 1 as the reference's, 0 as what
                                         was written; whatever the text prefers drops out

and where a text stands before (Whisper's prompt), ``m`` is read again without it, and with a neutral text of equal length.
Each arm is computed with several voices or fillings; their spread is the interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from otoscope.audio.clip import Clip
from otoscope.audio.corruptions import apply
from otoscope.audio.corruptions.speech import MAX_STRETCH
from otoscope.audio.synth import say
from otoscope.engine.hearing import hearing
from otoscope.engine.model import Model
from otoscope.errors import AudioError
from otoscope.methods.parting import Parting, partings, span_of
from otoscope.methods.whisper_writing import whisper_prompt
from otoscope.models.asr_errors import Comparison, WordError
from otoscope.models.writer import Writer
from otoscope.tasks.voices import voices

#: seconds on either side of the span whose frames are exchanged with it: an attention's time is no sharper
MARGIN = 0.04
#: a span is a gap where it is so much fainter than the rest (dB)
FAINT = -20.0
#: voices that say the words
N_VOICES = 3
_NEUTRAL = "This is a recording of a person who is speaking in a room, and it was made some time ago."


@dataclass(frozen=True)
class Evidence:
    """What was measured of one error.

    Attributes:
        span: seconds of the sound where the words were said.
        before: text tokens that both sides share.
        written, said: the tokens that both sides part into; ``written_text`` and ``said_text`` read them.
        margin: ``m``, in nats.
        none, rendered_said, rendered_written: the margins of the three arms, one per filling or voice; the last two are
            empty where there are no words to say.
        without_context, neutral_context: the margin without the text before, and with a neutral one; None where there is
            none.
        alone: the margin where nothing but the span is heard and no word was written before.
    """

    span: tuple[float, float]
    before: tuple[int, ...]
    written: int
    said: int
    written_text: str
    said_text: str
    margin: float
    none: tuple[float, ...]
    rendered_said: tuple[float, ...]
    rendered_written: tuple[float, ...]
    without_context: float | None = None
    neutral_context: float | None = None
    alone: float | None = None

    @property
    def support(self) -> float:
        """What the sound does for the reference's words, in nats."""
        return mean(self.none) - self.margin

    @property
    def clean_support(self) -> float:
        """What a clean rendering would do, in nats; NaN where none could be made."""
        return mean(self.none) - mean(self.rendered_said)

    @property
    def place(self) -> float:
        """Which word the states are nearer to: 1 the reference's, 0 the written one; NaN where the voices tell nothing."""
        width = mean(self.rendered_written) - mean(self.rendered_said)
        return (mean(self.rendered_written) - self.margin) / width if width > 1 else float("nan")

    def to_json(self) -> dict[str, Any]:
        """Its fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Evidence:
        """The evidence of :meth:`to_json`."""
        given: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in fields.items()}
        return cls(**given)


def mean(values: Sequence[float]) -> float:
    """The mean; NaN of nothing."""
    return float(np.mean(values)) if len(values) else float("nan")


@dataclass(frozen=True, eq=False)
class Arms:
    """The sounds that an error's evidence is heard from: sentences that are alike outside the span.

    Attributes:
        none, said, written: clips per arm.
        alone: the span by itself.
    """

    none: tuple[Clip, ...]
    said: tuple[Clip, ...]
    written: tuple[Clip, ...]
    alone: Clip

    @property
    def clips(self) -> list[Clip]:
        """All of them, in the order of the fields."""
        return [*self.none, *self.said, *self.written, self.alone]


def make_arms(clip: Clip, span: tuple[float, float], said: str, written: str, seed: int = 0) -> Arms:
    """The sentence with its span emptied, and with words put there by synthetic voices at the span's own loudness, or, where
    the span is a gap, at that of the rest.

    Args:
        clip: the sentence.
        span: seconds.
        said, written: words; empty for none.
        seed: of the noise.
    """
    none = [apply("silence", clip, span, seed).clip]
    if np.any(none[0].samples != clip.samples):
        none.append(apply("noise_replacement", clip, span, seed).clip)
    start, end = max(0.0, span[0] - MARGIN), min(clip.duration, span[1] + MARGIN)
    alone = clip.slice(start, end).replace(text=None, words=(), phones=())
    loud = _audible(clip, span, seed)
    return Arms(tuple(none), tuple(_with_words(loud, span, said)), tuple(_with_words(loud, span, written)), alone)


def _audible(clip: Clip, span: tuple[float, float], seed: int) -> Clip:
    """The clip, its span filled with noise at the level of the rest where it is far below it.

    Words put into a span are as loud as what was there; into a gap they would come too faint to be heard, or not at all.
    """
    start, end = round(span[0] * clip.rate), round(span[1] * clip.rate)
    inside, outside = clip.samples[start:end], np.delete(clip.samples, slice(start, end))
    level = float(np.sqrt(np.mean(outside.astype(float) ** 2))) if len(outside) else 0.0
    if not len(inside) or np.sqrt(np.mean(inside.astype(float) ** 2)) >= level * 10 ** (FAINT / 20):
        return clip
    filled = clip.samples.copy()
    filled[start:end] = level * np.random.default_rng(seed).standard_normal(len(inside))
    return clip.replace(samples=filled)


def _with_words(clip: Clip, span: tuple[float, float], words: str) -> list[Clip]:
    words = "".join(c if c.isalnum() or c in " '" else " " for c in words).strip()
    if not words:
        return []
    made = []
    for voice in voices()[:N_VOICES]:
        try:
            donor = rendering(words, voice.name, voice.engine, round(span[1] - span[0], 2))
            made.append(apply("splice", clip, span, donor=donor).clip)
        except AudioError:  # a word that a voice cannot say so fast, or at all
            continue
    return made


@lru_cache(maxsize=512)
def rendering(words: str, voice: str, engine: str, seconds: float) -> Clip:
    """Words spoken by a synthetic voice, without the pauses around them, about as long as they have to be.

    Raises:
        AudioError: the voice cannot say them.
    """
    spoken = _trimmed(say(words, voice, engine))
    # the voice itself speaks faster better than a stretcher does
    ratio = spoken.duration / seconds
    if not 1 / MAX_STRETCH * 1.1 <= ratio <= MAX_STRETCH / 1.1:
        spoken = _trimmed(say(words, voice, engine, speed=min(4.0, max(0.25, ratio))))
    return spoken


def _trimmed(spoken: Clip) -> Clip:
    return spoken.slice(spoken.words[0].start, spoken.words[-1].end)


@torch.no_grad()
def encode(model: Model, clips: Sequence[Clip]) -> Float[Tensor, "clip frame d_model"]:
    """What the decoder attends to, for each sound."""
    return model.hf.model.encoder(model.inputs(list(clips), tokens=model.prompt()).features).last_hidden_state


@torch.no_grad()
def margins(
    model: Model, states: Float[Tensor, "row frame d_model"], tokens: Sequence[int], written: int, said: int
) -> Float[np.ndarray, " row"]:
    """The margin after ``tokens`` (prompt included) for decoders that attend to each row of states, in nats."""
    from transformers.modeling_outputs import BaseModelOutput

    given = torch.tensor([list(tokens)], device=states.device).expand(len(states), -1)
    out = model.hf(encoder_outputs=BaseModelOutput(last_hidden_state=states), decoder_input_ids=given, use_cache=False)  # type: ignore[arg-type]
    pair = out.logits[:, -1, [written, said]].double()
    return (pair[:, 0] - pair[:, 1]).cpu().numpy()


def exchanged(
    model: Model, base: Float[Tensor, "frame d_model"], donors: Float[Tensor, "row frame d_model"], clip: Clip,
    span: tuple[float, float],
) -> Float[Tensor, "row frame d_model"]:  # fmt: skip
    """The base's states with the span's frames from each donor."""
    clock = model.clock("encoder", round(clip.duration * model.adapter.rate))
    at = list(clock.frames(max(0.0, span[0] - MARGIN), span[1] + MARGIN))
    mixed = base.expand(len(donors), -1, -1).clone()
    mixed[:, at] = donors[:, at]
    return mixed


def gather_evidence(
    model: Model,
    clip: Clip,
    found: Comparison,
    error: WordError,
    words: Sequence[Sequence[int]],
    *,
    writer: Writer | None = None,
    context: str = "",
    language: str = "en",
    seed: int = 0,
    settled: Callable[[Evidence], bool] | None = None,
) -> Evidence | None:
    """Measure one error; None where both sides cannot be told apart by any token.

    Args:
        model: a Whisper, as it was when it wrote.
        clip: the sound, at the model's rate.
        found: the comparison of reference and transcript.
        error: one of its errors.
        words: tokens of each word that was written.
        writer: the decoder in front of the clip, where there is one.
        context: the text before it that the model was given.
        language: of a multilingual model.
        seed: of the noise.
        settled: whether a verdict hangs on nothing more than was measured so far: what is left is not measured then, and
            ``alone``, which no verdict hangs on, never.
    """
    ways = partings(model, found, error, words)
    if not ways:
        return None
    writer = Writer(model.hf, encode(model, [clip])) if writer is None else writer
    base, prompt = writer.states[0], prompt_tokens(model, context, language)
    # a spelling that goes on with the transcript for longest parts from it in words, not in case
    margin, way = min(((_margin(writer, prompt, w), w) for w in ways), key=lambda pair: (-len(pair[1].before), pair[0]))
    if error.kind == "deletion" or error.said:
        placed = [*_shared(error, words, way), *way.said_rest]
    else:
        placed = []
    with hearing(model.adapter, writer.states):
        span = span_of(model, clip, error, words, placed, language)
    bare = whisper_prompt(model, language)
    freed = {}
    if context.strip():
        neutral = neutral_prompt(model, context, language)
        freed = {f"{name}_context": _margin(writer, p, way) for name, p in (("without", bare), ("neutral", neutral))}
    parted = Evidence(
        span, way.before, way.written, way.said, _read(model, way.written), _read(model, way.said), margin,
        (), (), (), **freed,
    )  # fmt: skip
    if settled is not None and settled(parted):
        return parted
    arms = make_arms(clip, span, " ".join(error.said), " ".join(error.written), seed)

    def read(clips: Sequence[Clip]) -> tuple[float, ...]:
        if not clips:
            return ()
        inside = exchanged(model, base, encode(model, clips), clip, span)
        return tuple(map(float, margins(model, inside, [*prompt, *way.before], way.written, way.said)))

    both = read([*arms.none, *arms.said])
    heard = replace(parted, none=both[: len(arms.none)], rendered_said=both[len(arms.none) :])
    if settled is not None and settled(heard):
        return heard
    whole = replace(heard, rendered_written=read(arms.written))
    if settled is not None:
        return whole
    by_itself = (
        Writer(model.hf, encode(model, [arms.alone])).logits([*bare, *_shared(error, words, way)], -1)[0].double()
    )
    return replace(whole, alone=float(by_itself[way.written] - by_itself[way.said]))


def _margin(writer: Writer, prompt: Sequence[int], way: Parting) -> float:
    row = writer.logits([*prompt, *way.before], -1)[0].double()
    return float(row[way.written] - row[way.said])


def _shared(error: WordError, words: Sequence[Sequence[int]], way: Parting) -> tuple[int, ...]:
    """Tokens of the place itself that both sides still share."""
    n_first = sum(len(word) for word in words[: error.written_at[0]])
    return way.before[n_first:]


def _read(model: Model, token: int) -> str:
    return model.tokenizer.decode([token]).strip() or "(end)"


def prompt_tokens(model: Model, context: str, language: str = "en") -> list[int]:
    """The prompt, after the text before where there is one."""
    bare = whisper_prompt(model, language)
    if not context.strip():
        return bare
    return [*model.adapter._previous(context.strip()), *bare]  # type: ignore[attr-defined]


def neutral_prompt(model: Model, context: str, language: str = "en") -> list[int]:
    """The prompt with as many tokens of a neutral text before it."""
    tokens = prompt_tokens(model, context, language)
    neutral = model.tokenizer(" " + _NEUTRAL, add_special_tokens=False).input_ids
    n_before = len(tokens) - len(whisper_prompt(model, language))
    if not n_before:
        return tokens
    return [tokens[0], *(neutral[i % len(neutral)] for i in range(n_before - 1)), *tokens[n_before:]]
