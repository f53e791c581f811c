"""Planted errors: a real sentence that a recogniser writes rightly is made to go wrong at one word, for a known reason.

*acoustic* the word's sound is spoilt, the model and the text are as they were:

    noise      the word replaced by white noise at its own level
    silence    the word replaced by silence
    mixed      white noise laid over the word, 10 dB louder than it
    word       another word in its place, from the same speaker where one fits

*prior* the sound is clean, and what the model expects is spoilt:

    context    a text before the sentence (Whisper's prompt) that has another word in the place of this one
    bias       the other word's row of the unembedding moved along the mean final state (:mod:`otoscope.tasks.faults`),
               just so far that it is written

The other word is one that the model itself holds likely there. A plant counts only where the model then writes the word
wrongly and (almost) all others as before, so that the reason of the error is known; and a plant that changes nothing is
a *control*: the same treatment, and no error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from otoscope.audio.clip import Clip
from otoscope.audio.corruptions import apply
from otoscope.engine.model import Model
from otoscope.errors import AudioError, TaskError
from otoscope.models.asr_errors import Comparison, compare, spelled, token_words
from otoscope.models.writer import Writer
from otoscope.tasks.faults import Fault, planted
from otoscope.tasks.planted import FUNCTION_WORDS

How = Literal["noise", "silence", "mixed", "word", "context", "bias"]
ACOUSTIC: tuple[How, ...] = ("noise", "silence", "mixed", "word")
PRIOR: tuple[How, ...] = ("context", "bias")

#: level of the noise that is laid over a word, dB relative to it
SNR = -10.0
#: how much the biased token is preferred, nats; each is tried until the word changes
PUSHES = (0.5, 1.5, 3.0)
#: how often the misleading text is said before the sentence; each is tried until the word changes
REPEATS = (1, 2, 3)
#: other words that are tried per place
N_OTHERS = 3
#: another word may be this much longer or shorter than the one it replaces
_STRETCH = 1.5
#: a longer text before the sentence leaves no room for the sentence
_MOST_CONTEXT = 200
#: tokens that a word may have after its first
_LONGEST_WORD = 4
#: seconds that a word to be spoilt lasts at least
_SHORTEST = 0.2


@dataclass(frozen=True, eq=False)
class Sentence:
    """A clip as a model hears it.

    Attributes:
        clip: with its text and word times.
        encoded: the encoder's output ``[1, frame, d_model]``.
        writer: the decoder in front of it.
        context: the text before it that the model was given.
        tokens: the text tokens that were written.
        words: the same, word by word.
        found: reference and transcript compared.
    """

    clip: Clip
    encoded: Float[Tensor, "1 frame d_model"]
    writer: Writer
    context: str
    tokens: tuple[int, ...]
    words: tuple[tuple[int, ...], ...]
    found: Comparison

    @cached_property
    def text(self) -> str:
        """What was written."""
        return " ".join(self.found.written)

    def usable(self) -> list[int]:
        """Places of reference words that can be spoilt: content words, written rightly, with no error beside them."""
        right = {said for said, _ in self.found.matches}
        # an insertion touches two words that are right, and would be one place with an error of either
        beside = {i for e in self.found.errors for i in range(e.said_at[0] - 1, e.said_at[1] + 1)}
        last = len(self.found.said) - 1
        if len(self.clip.words) != len(self.found.said):  # times are not those of these words
            return []
        return [
            i
            for i, word in enumerate(self.found.said)
            if 0 < i < last
            and i not in beside
            and {i - 1, i, i + 1} <= right
            and _key(word) not in FUNCTION_WORDS
            and len(_key(word)) > 2
            and self.clip.words[i].duration >= _SHORTEST
        ]


@torch.no_grad()
def hear(
    model: Model, clip: Clip, context: str = "", like: Sentence | None = None, same_sound: bool = False
) -> Sentence:
    """What the model writes for a clip with a text.

    Args:
        model: a Whisper.
        clip: at the model's rate, with its text.
        context: a text before it.
        like: a sentence that is expected to be written alike, which saves time and changes nothing.
        same_sound: whether it has the very sound of ``like``.
    """
    inputs = model.ask(clip, context=context).inputs
    if like is not None and same_sound:
        writer = like.writer
    else:
        writer = Writer(model.hf, model.hf.model.encoder(inputs.features).last_hidden_state)
    most = model.hf.config.max_target_positions // 2 - 4
    given = model.prompt() if inputs.tokens is None else inputs.tokens[0].tolist()
    tokens = tuple(writer.write(given, like.tokens if like else (), most))
    words = tuple(map(tuple, token_words(model.tokenizer, tokens)))
    found = compare(clip.text or "", spelled(model.tokenizer, words))
    return Sentence(clip, writer.states, writer, context, tokens, words, found)


@dataclass(frozen=True, eq=False)
class PlantedError:
    """One planted error, or a plant that changed nothing.

    Attributes:
        how: see the module.
        sentence: what the model hears and writes now.
        word: place of the word among those of the reference.
        span: its seconds.
        other: the word that a prior fault is to have written instead; empty for an acoustic one.
        fault, towards: of a biased row, as :func:`otoscope.tasks.faults.planted` takes them.
        changed: whether the word is written wrongly now.
    """

    how: How
    sentence: Sentence
    word: int
    span: tuple[float, float]
    other: str = ""
    fault: Fault | None = None
    towards: Float[Tensor, " d_model"] | None = None
    changed: bool = True

    @property
    def prior(self) -> bool:
        """Whether the text misleads, not the sound."""
        return self.how in PRIOR

    @property
    def name(self) -> str:
        """Readable and unique within a set."""
        return f"{self.sentence.clip.name} {self.word} {self.how}"

    @contextmanager
    def in_force(self, model: Model) -> Iterator[None]:
        """The model as it was when it wrote the error."""
        with nullcontext() if self.fault is None else planted(model, self.fault, self.towards):
            yield


def plant(
    model: Model,
    healthy: Sentence,
    word: int,
    how: How,
    *,
    donors: Sequence[Clip] = (),
    context: str = "",
    seed: int = 0,
) -> PlantedError | None:
    """Try to have a word of a sentence written wrongly.

    Args:
        model: a Whisper.
        healthy: the sentence as the model hears it.
        word: place of the word, one of ``healthy.usable()``.
        how: what to spoil.
        donors: clips with word times, for ``word``.
        context: a harmless text before the sentence (acoustic faults).
        seed: of noise and of the donor word.

    Returns:
        the error; a control, where the word is written rightly after all; None where the attempt spoils the rest of the
        sentence, or where there is nothing to try with.

    Raises:
        TaskError: an unknown ``how``, or a word that cannot be used.
    """
    if how not in get_args(How):
        raise TaskError(f"There is no way '{how}' to plant an error: choose one of {', '.join(get_args(How))}.")
    if word not in healthy.usable():
        raise TaskError(f"word {word} of {healthy.clip.who} cannot be spoilt: choose one of {healthy.usable()}.")
    if how in ACOUSTIC:
        return _acoustic(model, healthy, word, how, donors, context, seed)
    kept: PlantedError | None = None
    attempts = _context if how == "context" else _bias
    for tried in attempts(model, healthy, word):
        kept = tried if kept is None or tried.changed else kept
        if kept.changed:
            break
    return kept


def _acoustic(
    model: Model, healthy: Sentence, word: int, how: How, donors: Sequence[Clip], context: str, seed: int
) -> PlantedError | None:
    clip, at = healthy.clip, healthy.clip.words[word]
    span = (at.start, at.end)
    try:
        if how == "word":
            spoilt = _other_word(clip, word, donors, seed)
        elif how == "mixed":
            spoilt = apply("white_noise", clip, span, seed, snr_db=SNR).clip
        else:
            spoilt = apply("noise_replacement" if how == "noise" else "silence", clip, span, seed).clip
    except (AudioError, TaskError):  # no donor fits, or the span is silent
        return None
    heard = hear(model, spoilt.replace(text=clip.text, words=clip.words, name=clip.name), context, healthy)
    return _judged(PlantedError(how, heard, word, span), healthy)


def _other_word(clip: Clip, word: int, donors: Sequence[Clip], seed: int) -> Clip:
    """The clip with a donor's word of about the same length in the place of one of its own.

    Raises:
        TaskError: no donor's word fits.
    """
    at, said = clip.words[word], {_key(w.text) for w in clip.words}
    fitting = [
        (donor, w)
        for donor in donors
        for w in donor.words[1:-1]
        if _key(w.text) not in said | FUNCTION_WORDS and 1 / _STRETCH <= w.duration / at.duration <= _STRETCH
    ]
    fitting = [pair for pair in fitting if clip.speaker and pair[0].speaker == clip.speaker] or fitting
    if not fitting:
        raise TaskError(f"no word fits into the place of '{at.text}': give more donors.")
    donor, w = fitting[int(np.random.default_rng(seed).integers(len(fitting)))]
    return apply("splice", clip, (at.start, at.end), seed, donor=donor, start=w.start, end=w.end).clip


def _judged(tried: PlantedError, healthy: Sentence) -> PlantedError | None:
    """The plant with what it did; None where it did more than it should."""
    errors = [e for e in tried.sentence.found.errors if not e.said_at[0] <= tried.word < max(e.said_at[1], 1)]
    own = [e for e in tried.sentence.found.errors if e not in errors]
    # a neighbour may go wrong with the word, as both stand in one place
    crowded = any(len(e.said) > 3 or len(e.written) > 4 for e in own)
    # another spelling of the same letters ("mean time") is no other word, and nothing tells its reason
    alike = any(e.same_letters for e in own)
    if len(errors) > len(healthy.found.errors) or crowded or alike:
        return None
    return replace(tried, changed=bool(own))


def _context(model: Model, healthy: Sentence, word: int) -> Iterator[PlantedError]:
    at = healthy.clip.words[word]
    j = dict(healthy.found.matches)[word]
    for _, other in _others(model, healthy, j):
        own = healthy.found.written[j]
        misled = list(healthy.found.written)
        misled[j] = other + own[len(own.rstrip(".,;:!?")) :]
        text = " ".join(misled)
        for times in REPEATS:
            context = " ".join([text] * times)
            if len(model.tokenizer(context).input_ids) > _MOST_CONTEXT:
                break
            heard = hear(model, healthy.clip, context, healthy, same_sound=True)
            tried = _judged(PlantedError("context", heard, word, (at.start, at.end), other), healthy)
            if tried is not None:
                yield tried


def _bias(model: Model, healthy: Sentence, word: int) -> Iterator[PlantedError]:
    at = healthy.clip.words[word]
    j = dict(healthy.found.matches)[word]
    states, logits = _final_states(model, healthy)
    mean = states.mean(0)
    towards = mean / mean.norm()
    place = sum(len(w) for w in healthy.words[:j])
    best = logits[range(place + 1), list(healthy.tokens[: place + 1])]
    along = states[: place + 1] @ towards
    for token, other in _others(model, healthy, j):
        gaps = best - logits[: place + 1, token]
        if along[place] <= 0:
            continue
        for push in PUSHES:
            strength = float((gaps[place] + push) / along[place])
            if bool((strength * along > gaps)[:place].any()):  # an earlier word would change as well
                break
            fault = Fault("unembed", "bias", "decoder", -1, (token,), strength)
            with planted(model, fault, towards):
                heard = hear(model, healthy.clip, "", healthy, same_sound=True)
            tried = _judged(PlantedError("bias", heard, word, (at.start, at.end), other, fault, towards), healthy)
            if tried is not None:
                yield tried


@torch.no_grad()
def _final_states(model: Model, healthy: Sentence) -> tuple[Float[Tensor, "pos d_model"], Float[Tensor, "pos vocab"]]:
    """The decoder's last states, after the final norm, from which each text token is predicted; and their logits."""
    prompt = model.prompt()
    at, tokens = len(prompt) - 1, [*prompt, *healthy.tokens]
    return healthy.writer.final_states(tokens)[at:], healthy.writer.logits(tokens, at)


@torch.no_grad()
def _others(model: Model, healthy: Sentence, j: int) -> list[tuple[int, str]]:
    """Other words that the model holds likely in the place of the j-th, each with its first token."""
    before = [token for word in healthy.words[:j] for token in word]
    prompt, own = model.prompt(), set(map(_key, healthy.found.written))
    found: list[tuple[int, str]] = []
    for token in healthy.writer.logits([*prompt, *before], -1)[0].topk(40).indices.tolist():
        word = _completed(model, healthy.writer, [*prompt, *before], token)
        if word and _key(word) not in own and _key(word) not in {_key(other) for _, other in found}:
            found.append((token, word))
        if len(found) == N_OTHERS:
            break
    return found


def _completed(model: Model, writer: Writer, before: list[int], first: int) -> str:
    """The word that the model would write after its first token; empty where that token begins no word."""
    start = model.tokenizer.convert_ids_to_tokens([first])[0]
    if not start.startswith("Ġ") or not start[1:].isalpha():
        return ""
    tokens = [first]
    for _ in range(_LONGEST_WORD):
        following = int(writer.logits([*before, *tokens], -1)[0].argmax())
        piece = model.tokenizer.convert_ids_to_tokens([following])[0]
        if piece.startswith("Ġ") or not piece.isalpha():  # the mark of a new word is a letter itself
            word = model.tokenizer.decode(tokens).strip()
            return word if len(word) > 2 else ""
        tokens.append(following)
    return ""


def _key(word: str) -> str:
    return "".join(c for c in word.lower().replace("’", "'") if c.isalnum() or c == "'").strip("'")
