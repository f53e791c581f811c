"""How Whisper is asked to write: the prompt, greedy decoding from a sound or from encoder states, and what is text."""

from __future__ import annotations

from typing import Any

from otoscope.audio.clip import Clip
from otoscope.engine.model import Model
from otoscope.errors import ModelError, TaskError


def check_whisper(model: Model, clip: Clip, what: str) -> None:
    """Refuse another family, and a sound that Whisper would only hear the beginning of.

    Raises:
        ModelError: the model is no Whisper.
        TaskError: the sound is longer than the model's window.
    """
    if model.family != "whisper":
        raise ModelError(
            f"{what} needs a decoder that attends to an encoder, and {model.name} has none: load a Whisper."
        )
    clock = model.clock("encoder", 1)
    window = clock.n_frames / clock.rate
    if clip.duration > window + 0.5 / clock.rate:
        raise TaskError(
            f"{clip.who} lasts {clip.duration:.1f} s and {model.name} hears {window:.0f} s at once: cut it with clip.slice()."
        )


def whisper_prompt(model: Model, language: str = "en") -> list[int]:
    """The tokens Whisper starts from for a language.

    Raises:
        ModelError: a multilingual model does not know the language.
    """
    known = getattr(model.hf.generation_config, "lang_to_id", None) or {}
    if known and f"<|{language}|>" not in known:
        raise ModelError(f"{model.name} does not know the language '{language}': give a code such as en, de or zh.")
    return model.adapter.prompt(language)  # type: ignore[attr-defined]


def greedy(model: Model, source: dict[str, Any], language: str, max_new_tokens: int) -> list[list[int]]:
    """Greedy transcripts of ``input_features`` or ``encoder_outputs``, as token rows without the prompt."""
    prompt = whisper_prompt(model, language)
    settings: dict[str, Any] = {
        "do_sample": False,
        "num_beams": 1,
        "max_new_tokens": room(model, prompt, max_new_tokens),
    }
    if getattr(model.hf.generation_config, "is_multilingual", False):
        settings |= {"language": language, "task": "transcribe"}
    return [[int(token) for token in row] for row in model.hf.generate(**source, **settings)]


def text_tokens(model: Model, tokens: list[int]) -> tuple[int, ...]:
    """The tokens that are text: those before the end token, without timestamps and other specials."""
    end = model.hf.generation_config.eos_token_id
    text = list(tokens[: tokens.index(end)] if end in tokens else tokens)
    # Whisper's vocabularies hold the text below the end token and the specials from it on
    return tuple(token for token in text if model.tokenizer is None or token < end)


def room(model: Model, prompt: list[int], max_new_tokens: int) -> int:
    """``max_new_tokens``, or less where the decoder has no room for so many after the prompt."""
    return min(max_new_tokens, model.hf.config.max_target_positions - len(prompt))
