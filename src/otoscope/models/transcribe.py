"""What a model hears, as text: greedy Whisper, or the best CTC path, with the time it took."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from otoscope.audio.clip import Clip
from otoscope.errors import ModelError
from otoscope.models.quiet import quiet

#: Whisper hears no more at once; CTC models take as much time for it as they take for the rest together
_WINDOW_SECONDS = 30.0


class Listener(Protocol):
    """What is needed of a model; :class:`otoscope.Model` and every adapter have it."""

    @property
    def name(self) -> str: ...
    @property
    def hf(self) -> Any: ...
    @property
    def tokenizer(self) -> Any: ...
    @property
    def feature_extractor(self) -> Any: ...


@dataclass(frozen=True)
class Transcript:
    """What was heard in one clip."""

    text: str
    tokens: tuple[int, ...]
    """without prompt, end and blanks"""
    seconds_of_sound: float
    seconds_of_computing: float
    """the clip's share of its batches, from samples to text"""
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Window:
    clip: int
    samples: np.ndarray


def transcribe(
    model: Listener,
    clips: Sequence[Clip],
    batch_size: int = 8,
    language: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Transcript]:
    """Transcribe clips of any length and rate.

    Whisper decodes greedily with its standard suppressed tokens and without fallbacks; CTC models take the most likely
    label of each frame, then merge repeats and drop blanks (Graves et al. 2006). A clip longer than 30 s is cut into
    equal consecutive windows, with a notice.

    Args:
        model: a Whisper, or a HuBERT, wav2vec2 or WavLM with a CTC head.
        clips: the sounds.
        batch_size: windows at a time (Whisper; CTC models get one at a time, since padding may change their answer).
        language: such as ``en``, for a multilingual Whisper; None lets it detect the language of each window.
        progress: called with the number of windows done and their total.

    Returns:
        one transcript per clip, in order.

    Raises:
        ModelError: the model does not transcribe, has no tokenizer, or does not know the language.
    """
    hear = _hearer(model, language)
    batch_size = batch_size if _is_whisper(model) else 1
    rate = _rate(model)
    n_max = _window_samples(model, rate)
    windows = [_Window(i, piece) for i, clip in enumerate(clips) for piece in _cut(clip.resample(rate), n_max)]
    # windows of like length share a batch, because a batch decodes until its longest sentence is done
    order = sorted(range(len(windows)), key=lambda i: len(windows[i].samples))
    heard: dict[int, tuple[list[int], float]] = {}
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        began = time.perf_counter()
        with quiet(), torch.no_grad():
            tokens = hear([windows[i].samples for i in batch])
        seconds = (time.perf_counter() - began) / len(batch)
        heard.update({i: (ids, seconds) for i, ids in zip(batch, tokens, strict=True)})
        if progress:
            progress(len(heard), len(windows))
    return [
        _joined(model, clip, [heard[j] for j, window in enumerate(windows) if window.clip == i])
        for i, clip in enumerate(clips)
    ]


def _joined(model: Listener, clip: Clip, parts: list[tuple[list[int], float]]) -> Transcript:
    texts = [_decode(model.tokenizer, ids) for ids, _ in parts]
    notices = ()
    if len(parts) > 1:
        notices = (
            f"{clip.duration:.1f} s is longer than the model hears at once: transcribed in {len(parts)} consecutive "
            "windows, so a word may be cut where they meet",
        )
    return Transcript(
        text=" ".join(text for text in texts if text),
        tokens=tuple(token for ids, _ in parts for token in ids),
        seconds_of_sound=clip.duration,
        seconds_of_computing=sum(seconds for _, seconds in parts),
        notices=notices,
    )


def _hearer(model: Listener, language: str | None) -> Callable[[list[np.ndarray]], list[list[int]]]:
    """The function from a batch of windows to their tokens."""
    if model.tokenizer is None and (_is_whisper(model) or hasattr(model.hf, "lm_head")):
        raise ModelError(f"'{model.name}' has no tokenizer beside its weights, so its tokens have no text.")
    if _is_whisper(model):
        options = language_options(model, language)
        return lambda sounds: _hear_whisper(model, sounds, options)
    if language is not None:
        raise ModelError(f"'{model.name}' has one language only: leave '{language}' out.")
    if model.feature_extractor is not None and hasattr(model.hf, "lm_head"):
        return lambda sounds: [_hear_ctc(model, sound) for sound in sounds]
    raise ModelError(f"'{model.name}' does not transcribe: expected a Whisper, or a speech encoder with a CTC head.")


def _is_whisper(model: Listener) -> bool:
    return model.hf.config.model_type == "whisper"


def language_options(model: Listener, language: str | None) -> dict[str, Any]:
    """Options of ``generate`` under which a Whisper transcribes that language; None lets it detect the language.

    With ``en``, it starts from the tokens of ``model.prompt()``, so that what it writes can be read again after them.

    Raises:
        ModelError: the model does not know the language.
    """
    known = getattr(model.hf.generation_config, "lang_to_id", None)
    if not known:
        if language not in (None, "en"):
            raise ModelError(f"'{model.name}' knows English only, not '{language}': use a multilingual Whisper.")
        return {}
    if language is None:
        return {"task": "transcribe"}
    if f"<|{language}|>" not in known:
        codes = " ".join(token[2:-2] for token in known)
        raise ModelError(f"'{model.name}' does not know the language '{language}': expected one of {codes}.")
    return {"task": "transcribe", "language": language}


def suppressed_tokens(hf: Any) -> list[int] | None:
    """What a Whisper may not write without timestamps: its standard list, and the timestamps themselves.

    A sound model never writes them once told not to, but an ablated one may, and transformers' ``generate`` then seeks
    back to the time it names, for ever.
    """
    config = hf.generation_config
    standard = list(config.suppress_tokens or ())
    first = getattr(config, "no_timestamps_token_id", None)
    timestamps = range(0) if first is None else range(first + 1, hf.config.vocab_size)
    return sorted({*standard, *timestamps}) or None


def _hear_whisper(model: Listener, sounds: list[np.ndarray], options: dict[str, str]) -> list[list[int]]:
    weights = next(model.hf.parameters())
    made = model.feature_extractor(sounds, sampling_rate=_rate(model), return_tensors="pt", return_attention_mask=True)
    positions = 2 * model.hf.config.max_source_positions  # a configuration may have a shorter window than 30 s
    rows = model.hf.generate(
        input_features=made.input_features[..., :positions].to(weights.device, weights.dtype),
        attention_mask=made.attention_mask[..., :positions].to(weights.device),
        do_sample=False,
        num_beams=1,
        suppress_tokens=suppressed_tokens(model.hf),
        **options,
    )
    special = set(model.tokenizer.all_special_ids)
    return [[token for token in row if token not in special] for row in rows.tolist()]


def _hear_ctc(model: Listener, sound: np.ndarray) -> list[int]:
    weights = next(model.hf.parameters())
    values = model.feature_extractor(sound, sampling_rate=_rate(model), return_tensors="pt").input_values
    best = model.hf(values.to(weights.device, weights.dtype)).logits[0].argmax(-1)
    blank = model.hf.config.pad_token_id
    return [token for token in torch.unique_consecutive(best).tolist() if token != blank]


def _decode(tokenizer: Any, ids: list[int]) -> str:
    from transformers import Wav2Vec2CTCTokenizer

    # repeats are merged already; merging again would make "hello" "helo"
    options = {"group_tokens": False} if isinstance(tokenizer, Wav2Vec2CTCTokenizer) else {}
    return tokenizer.decode(ids, skip_special_tokens=True, **options).strip()


def _rate(model: Listener) -> int:
    return getattr(model.feature_extractor, "sampling_rate", 16000)


def _window_samples(model: Listener, rate: int) -> int:
    n_max = int(_WINDOW_SECONDS * rate)
    if not _is_whisper(model):
        return n_max
    heard = 2 * model.hf.config.max_source_positions * model.feature_extractor.hop_length
    return min(n_max, heard, model.feature_extractor.n_samples)


def _cut(clip: Clip, n_max: int) -> list[np.ndarray]:
    """Equal windows of at most ``n_max`` samples: a short rest would have Whisper invent words for it."""
    return np.array_split(np.asarray(clip.samples), math.ceil(len(clip) / n_max))
