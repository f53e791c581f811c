"""Questions put to a model that listens and reads, and which decoder positions hold which part of them.

The chat template of the model's own processor or tokenizer writes the prompt; without one, a plain text does. Where the
context and the question went is found by their characters in what was written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from otoscope.errors import ModelError
from otoscope.models.inputs import Inputs


@dataclass(frozen=True)
class Asked:
    """One question, ready for the model.

    Attributes:
        inputs: one item.
        groups: decoder positions of ``audio``, ``context``, ``question`` and ``answer``; empty where there is none. The
            answer's are those that its tokens are predicted from: the last one of the prompt, and one more for every
            further token of an answer that was given.
        text: what the template made of it, with one placeholder per audio position.
    """

    inputs: Inputs
    groups: Mapping[str, tuple[int, ...]]
    text: str


def render(template: str | None, tokenizer: Any, parts: Mapping[str, str], ends: tuple[str, str, str]) -> str:
    """The prompt up to the answer.

    Args:
        template: a chat template in Jinja; None for a plain text.
        tokenizer: knows the special tokens that the template names.
        parts: ``body`` (the user's words), and ``audio`` (its placeholder) and ``system`` where there are any.
        ends: what a plain text has before and after the placeholder, and at its end.

    Raises:
        ModelError: the template leaves a part out.
    """
    if template is None:
        before, after, end = ends
        audio = [before + parts["audio"] + after] if "audio" in parts else []
        return "\n".join([*filter(None, [parts.get("system")]), *audio, parts["body"]]) + end
    error: Exception | None = None
    for listed in (True, False):  # templates of processors want a list of contents, those of text models a string
        try:
            text = tokenizer.apply_chat_template(
                _messages(parts, listed, ends), chat_template=template, tokenize=False, add_generation_prompt=True
            )
        except Exception as failed:  # a template is a program of its author, and may fail in any way
            error = failed
            continue
        if all(text.count(part) == 1 if name == "audio" else part in text for name, part in parts.items()):
            return text
    raise ModelError(
        f"the chat template leaves out one of {', '.join(parts)}"
        + (f" ({type(error).__name__}: {error})" if error else "")
        + ": expected one that writes them as they are."
    )


def _messages(parts: Mapping[str, str], listed: bool, ends: tuple[str, str, str]) -> list[dict[str, Any]]:
    if listed:
        audio = [{"type": "audio", "audio": "sound"}] if "audio" in parts else []
        user: Any = [*audio, {"type": "text", "text": parts["body"]}]
        system: Any = [{"type": "text", "text": parts.get("system")}]
    else:
        user = (ends[0] + parts["audio"] + ends[1] + "\n" if "audio" in parts else "") + parts["body"]
        system = parts.get("system")
    first = [{"role": "system", "content": system}] if "system" in parts else []
    return [*first, {"role": "user", "content": user}]


def encode(tokenizer: Any, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Tokens of a prompt that was written out whole, and the characters ``[start, end)`` of each.

    Raises:
        ModelError: the tokenizer cannot tell which characters a token stands for.
    """
    special = not (tokenizer.bos_token and text.startswith(tokenizer.bos_token))
    if getattr(tokenizer, "is_fast", False):
        made = tokenizer(text, return_offsets_mapping=True, add_special_tokens=special)
        return list(made.input_ids), [tuple(span) for span in made.offset_mapping]
    ids = list(tokenizer(text, add_special_tokens=special).input_ids)
    if tokenizer.decode(ids) != text:
        raise ModelError(
            f"the tokenizer {type(tokenizer).__name__} does not give back the prompt, so the positions of its parts are "
            "not known: use a fast tokenizer (tokenizer.json)."
        )
    return ids, spelled(tokenizer, ids)


def spelled(tokenizer: Any, ids: Sequence[int]) -> list[tuple[int, int]]:
    """The characters ``[start, end)`` of each token in the text that they spell together."""
    ends = [len(tokenizer.decode(list(ids[: i + 1]))) for i in range(len(ids))]
    return list(zip([0, *ends], ends))


def groups(offsets: Sequence[tuple[int, int]], spans: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, ...]]:
    """Positions whose characters overlap each span; a token across two spans belongs to the later one."""
    owner: dict[int, str] = {}
    for name, (start, end) in spans.items():
        for i, (a, b) in enumerate(offsets):
            if max(a, start) < min(b, end):
                owner[i] = name
    return {name: tuple(i for i in sorted(owner) if owner[i] == name) for name in spans}


def spans(text: str, context: str, question: str) -> dict[str, tuple[int, int]]:
    """Characters of the context and the question in the prompt; they are the last that the user says.

    Raises:
        ModelError: the prompt does not hold them as they were given.
    """
    body = words(context, question)
    start = text.rfind(body)
    if start < 0:
        raise ModelError(f"the prompt does not hold the words '{body[:60]}' as they were given: write them otherwise.")
    middle, end = start + len(context), start + len(body)
    return {"context": (start, middle), "question": (end - len(question), end)}


def words(context: str, question: str) -> str:
    """What the user says: the context, then the question."""
    return " ".join(part for part in (context, question) if part)


def continuation(tokenizer: Any, before: str, text: str) -> tuple[int, ...]:
    """Tokens of ``text`` right after ``before``; its own where the two would merge."""
    start, both = encode(tokenizer, before)[0], encode(tokenizer, before + text)[0]
    if both[: len(start)] == start:
        return tuple(both[len(start) :])
    return tuple(tokenizer(text, add_special_tokens=False).input_ids)
