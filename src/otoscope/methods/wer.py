"""Word error rate with interventions in force: under teacher forcing, and writing freely.

Teacher forcing asks, word by word, whether the model would still write the reference given its true beginning:

    ``WER_tf = words with a token that is not the argmax given the true prefix / words of the reference``.

Free running lets the model write on from its own mistakes and counts substitutions, deletions and insertions (jiwer,
after Whisper's normaliser). The first says where knowledge was lost; the second what a listener would notice, loops and
dropped sentences included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from otoscope.audio.clip import Clip
from otoscope.engine.intervene import Intervention
from otoscope.engine.model import Model
from otoscope.errors import ModelError, TaskError
from otoscope.models.inputs import Inputs
from otoscope.models.transcribe import suppressed_tokens, transcribe
from otoscope.models.wer import WerResult, score


class ForcedItem(NamedTuple):
    """One utterance under teacher forcing."""

    spelled: tuple[str, ...]
    """the words of the reference"""
    right: tuple[bool, ...]
    """per word: whether each of its tokens was the most likely one"""
    token_errors: int
    tokens: int

    @property
    def errors(self) -> int:
        """Words that the model would not have written."""
        return len(self.right) - sum(self.right)

    @property
    def words(self) -> int:
        """Words in the reference."""
        return len(self.right)


class ForcedResult(NamedTuple):
    """A set of utterances under teacher forcing."""

    wer: float
    """wrong words per word of the references; NaN where there are none"""
    errors: int
    words: int
    items: tuple[ForcedItem, ...]


def teacher_forced_wer(
    model: Model,
    clips: Clip | Sequence[Clip],
    references: str | Sequence[str],
    interventions: Sequence[Intervention] = (),
    language: str = "en",
) -> ForcedResult:
    """Share of the references' words that the model would not write given their true beginnings.

    The argmax leaves out what greedy decoding may not write either (Whisper's suppressed tokens), so the reference that a
    plain transcription wrote scores 0. Nothing is normalised: spell the reference as the model would, with its case and
    punctuation, which belongs to the word it touches. The end of the text is not scored.

    Args:
        model: a Whisper.
        clips: one sound or several, each no longer than the model hears at once.
        references: what was said, one text per clip.
        interventions: in force while the model reads; one clip is run at a time, so values hold one item.
        language: for the prompt of a multilingual Whisper.

    Returns:
        sums and items; ``bootstrap([[i.errors, i.words] for i in result.items], ratio_of_sums)`` gives the interval.

    Raises:
        ModelError: the model is no Whisper, or has no tokenizer.
        TaskError: clips and references differ in number; a clip or a reference is too long.
    """
    sounds, texts = _paired(clips, references)
    if model.family != "whisper":
        raise ModelError(f"{model.name} does not write token by token: teacher forcing expects a Whisper.")
    if model.tokenizer is None:
        raise ModelError(f"{model.name} has no tokenizer beside its weights, so its tokens have no text.")
    items = tuple(_forced(model, clip, text, interventions, language) for clip, text in zip(sounds, texts))
    errors, words = sum(item.errors for item in items), sum(item.words for item in items)
    return ForcedResult(errors / words if words else float("nan"), errors, words, items)


def free_running_wer(
    model: Model,
    clips: Clip | Sequence[Clip],
    references: str | Sequence[str],
    interventions: Sequence[Intervention] = (),
    language: str | None = None,
    batch_size: int = 8,
) -> WerResult:
    """Word error rate of the transcripts that the model writes with ``interventions`` in force.

    Without interventions it is the plain transcription's. A clip longer than the model hears at once is cut into windows,
    and the interventions act in each of them.

    Args:
        model: a Whisper, or a speech encoder with a CTC head.
        clips: one sound or several.
        references: what was said, one text per clip; normalised before they are compared.
        interventions: in force at every step; windows in seconds count from the start of each clip.
        language: of a multilingual Whisper; None lets it detect the language, with the interventions in force.
        batch_size: windows decoded together.

    Returns:
        sums and items; ``bootstrap([[i.errors, i.words] for i in result.items], ratio_of_sums)`` gives the interval.

    Raises:
        ModelError: the model does not transcribe.
        TaskError: clips and references differ in number.
        SiteError: an intervention names a place or window that is not there.
    """
    sounds, texts = _paired(clips, references)
    # all windows of a Whisper have the same frames; those of other models are as long as their clip
    groups = [sounds] if model.family == "whisper" else [[clip] for clip in sounds]
    heard = []
    for group in filter(None, groups):
        longest = max(round(clip.duration * model.adapter.rate) for clip in group)
        with model.intervene(*interventions, inputs=Inputs(n_samples=(longest,))):
            heard += transcribe(model, group, batch_size, language)
    return score([transcript.text for transcript in heard], texts, english=language in (None, "en"))


def _paired(clips: Clip | Sequence[Clip], references: str | Sequence[str]) -> tuple[list[Clip], list[str]]:
    sounds = [clips] if isinstance(clips, Clip) else list(clips)
    texts = [references] if isinstance(references, str) else list(references)
    if len(sounds) != len(texts):
        raise TaskError(
            f"{len(sounds)} clips cannot be scored against {len(texts)} references: give one text per clip."
        )
    return sounds, texts


def _forced(
    model: Model, clip: Clip, reference: str, interventions: Sequence[Intervention], language: str
) -> ForcedItem:
    prompt: list[int] = model.adapter.prompt(language)  # type: ignore[attr-defined]
    words = _words(model, reference)
    label = [token for word in words for token in word]
    if not label:
        return ForcedItem((), (), 0, 0)
    most = model.hf.config.max_target_positions
    if len(prompt) + len(label) > most:
        raise TaskError(
            f"the reference of {clip.name or 'the clip'} has {len(label)} tokens where {model.name} writes at most "
            f"{most - len(prompt)}: cut the recording into shorter ones."
        )
    window = model.clock("encoder", 1)
    if clip.duration > window.n_frames / window.rate:
        raise TaskError(
            f"{clip.name or 'the clip'} lasts {clip.duration:.1f} s where {model.name} hears {window.n_frames / window.rate:g} s "
            "at once: cut it into shorter ones."
        )
    inputs = model.inputs(clip, tokens=[*prompt, *label])
    logits = model.run(inputs, interventions).logits[0, len(prompt) - 1 : -1].clone()
    logits[:, suppressed_tokens(model.hf) or []] = -torch.inf
    logits[0, list(model.hf.generation_config.begin_suppress_tokens or ())] = -torch.inf
    hits = (logits.argmax(-1).cpu() == torch.tensor(label)).tolist()
    right, at = [], 0
    for word in words:
        right.append(all(hits[at : at + len(word)]))
        at += len(word)
    spelled = tuple(model.tokenizer.decode(word).strip() for word in words)
    return ForcedItem(spelled, tuple(right), hits.count(False), len(hits))


def _words(model: Model, text: str) -> list[list[int]]:
    """Tokens of each word, spaces before words as Whisper writes them; a word starts where a token starts with one."""
    spaced = "".join(f" {word}" for word in text.split())
    words: list[list[int]] = []
    tokens = model.tokenizer(spaced, add_special_tokens=False).input_ids
    for token, spelling in zip(tokens, model.tokenizer.convert_ids_to_tokens(tokens)):
        if spelling.startswith("Ġ") or not words:
            words.append([])
        words[-1].append(token)
    return words
