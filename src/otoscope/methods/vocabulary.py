"""Between words and tokens: what a token reads as, and which token a word begins with."""

from __future__ import annotations

from otoscope.engine.model import Model
from otoscope.errors import ModelError, TaskError


def show(model: Model, token: int) -> str:
    """What a token reads as, its leading space kept; ``<7>`` for token 7 of a model without a tokenizer."""
    return f"<{token}>" if model.tokenizer is None else model.tokenizer.decode([token])


def vocabulary_size(model: Model) -> int:
    """How many tokens the model's head scores."""
    head = model.hf.lm_head if hasattr(model.hf, "lm_head") else model.hf.get_output_embeddings()
    return int(head.weight.shape[0])


def as_token(model: Model, token: int | str) -> int:
    """A token by its id, or the first token of a word that follows other text (so with a space before it).

    Raises:
        ModelError: a word is given, but the model has no tokenizer.
        TaskError: the word is empty, or the id is outside the vocabulary.
    """
    if isinstance(token, str):
        if model.tokenizer is None:
            raise ModelError(f"{model.name} has no tokenizer beside its weights: give token ids instead of '{token}'.")
        ids = model.tokenizer(" " + token.strip(), add_special_tokens=False).input_ids if token.strip() else []
        if not ids:
            raise TaskError(f"'{token}' holds no token: name a word that the model could write.")
        return int(ids[0])
    size = vocabulary_size(model)
    if not 0 <= token < size:
        raise TaskError(f"there is no token {token} in the vocabulary of {model.name}: its tokens are 0 to {size - 1}.")
    return int(token)
