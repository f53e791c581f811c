"""What to measure: the first place where the model's answers to two sounds part, and the two tokens it parts into."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from otoscope.audio.clip import Clip
from otoscope.engine.metrics import LogitDiff
from otoscope.engine.model import Model
from otoscope.errors import ModelError, TaskError
from otoscope.models.inputs import Inputs
from otoscope.models.transcribe import language_options


@dataclass(frozen=True)
class Contrast:
    """A measurable difference between the answers to a clean and a corrupt sound.

    Attributes:
        tokens: decoder tokens both answers share, prompt included (empty for a CTC model).
        position: output position that is read: the last token, or a frame of a CTC model.
        answer, foil: the token after a clean and after a corrupt sound.
        answer_text, foil_text: the same, readable.
        clean_text, corrupt_text: what the model writes for each sound.
    """

    tokens: tuple[int, ...]
    position: int
    answer: int
    foil: int
    answer_text: str
    foil_text: str
    clean_text: str
    corrupt_text: str

    @property
    def metric(self) -> LogitDiff:
        """Logit of the answer minus logit of the foil: positive where the model heard the clean sound."""
        return LogitDiff(self.answer, self.foil, self.position)

    def inputs(self, model: Model, clip: Clip) -> Inputs:
        """The model's inputs for a sound, with the shared tokens."""
        return model.inputs(clip, tokens=self.tokens) if self.tokens else model.inputs(clip)


def contrast(model: Model, clean: Clip, corrupt: Clip, answer: str | None = None, foil: str | None = None) -> Contrast:
    """Transcribe both sounds and find the first token where they part.

    Args:
        model: Whisper, or a CTC model.
        clean, corrupt: two sounds of equal length.
        answer, foil: words to compare instead of what the model wrote there, each by its first token after the shared
            text (Whisper only).

    Raises:
        TaskError: the model writes the same for both, or answer and foil begin with the same token.
        ModelError: the model writes nothing (a headless encoder, a language model).
    """
    if model.family == "whisper":
        found = _seq2seq(model, clean, corrupt, bool(answer and foil))
        if answer and foil:
            first, second = (_first_token(model, word) for word in (answer, foil))
            if first == second:
                raise TaskError(
                    f"'{answer}' and '{foil}' begin with the same token ('{_show(model, first)}'), so that token cannot "
                    "tell them apart: name two words that begin differently."
                )
            found = replace(found, answer=first, foil=second, answer_text=answer, foil_text=foil)
        return found
    if model.family == "language" or not hasattr(model.hf, "lm_head"):
        raise ModelError(
            f"{model.name} writes no transcript, so two sounds cannot be compared by it: load a Whisper or a CTC model."
        )
    return _ctc(model, clean, corrupt)


def _seq2seq(model: Model, clean: Clip, corrupt: Clip, given: bool) -> Contrast:
    prompt = model.prompt()
    special = set(getattr(model.tokenizer, "all_special_ids", ()))
    # a language that was detected may be another one than that of the prompt after which the answer is read
    english = language_options(model, "en")
    written = []
    for clip in (clean, corrupt):
        tokens = model.generate(model.inputs(clip), **english)[0]
        written.append([t for t in tokens if t not in special])
    end = model.hf.config.eos_token_id
    first, second = ([*w, end] for w in written)
    parts = next((i for i, (a, b) in enumerate(zip(first, second)) if a != b), None)
    texts = [model.tokenizer.decode(w).strip() for w in written]
    if parts is None:
        if not given:
            raise TaskError(
                f"{model.name} writes '{texts[0]}' for both sounds, so there is no difference to localise: choose sounds "
                "that it hears differently, or name two words with --answer and --foil."
            )
        parts = max(0, len(first) - 2)
    tokens = (*prompt, *first[:parts])
    a, b = first[parts], second[parts]
    return Contrast(tokens, len(tokens) - 1, a, b, _show(model, a), _show(model, b), texts[0], texts[1])


def _ctc(model: Model, clean: Clip, corrupt: Clip) -> Contrast:
    """The frame, among those where the best tokens differ, where the two sounds are told apart most."""
    with torch.no_grad():
        a, b = (model.run(model.inputs(clip)).logits[0] for clip in (clean, corrupt))
    best_a, best_b = a.argmax(-1), b.argmax(-1)
    blank = int(getattr(model.hf.config, "pad_token_id", 0) or 0)
    texts = [_collapse(model, best, blank) for best in (best_a, best_b)]
    differs = (best_a != best_b).nonzero().flatten()
    if not len(differs):
        raise TaskError(f"{model.name} writes '{texts[0]}' for both sounds, so there is no difference to localise.")
    gap = (a[differs, best_a[differs]] - a[differs, best_b[differs]]) - (
        b[differs, best_a[differs]] - b[differs, best_b[differs]]
    )
    frame = int(differs[gap.argmax()])
    answer, foil = int(best_a[frame]), int(best_b[frame])
    return Contrast((), frame, answer, foil, _show(model, answer), _show(model, foil), texts[0], texts[1])


def _collapse(model: Model, best: torch.Tensor, blank: int) -> str:
    tokens = [int(t) for t in torch.unique_consecutive(best) if int(t) != blank]
    return model.tokenizer.decode(tokens) if model.tokenizer is not None else " ".join(map(str, tokens))


def _first_token(model: Model, word: str) -> int:
    return model.tokenizer(" " + word.strip(), add_special_tokens=False).input_ids[0]


def _show(model: Model, token: int) -> str:
    if model.tokenizer is None:
        return str(token)
    return model.tokenizer.decode([token]).strip() or f"token {token}"
