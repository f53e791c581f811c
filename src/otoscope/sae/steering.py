"""What a model writes when a feature's decoder direction is added to its activations.

``x' = x + s r d_j / |d_j|`` at the frames of the sound, for every token that is written. ``d_j`` is the feature's row of the
decoder. ``s`` is the strength in units of ``r = sqrt(E|x - E x|^2)``, the spread of the activations at the site, so that features
and dictionaries compare. This equals an edit that raises the feature's code and keeps the dictionary's error,
``x + (x^(f') - x^(f))``, so nothing but the direction is inserted. The null is a random direction of the same length.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from otoscope.audio.clip import Clip
from otoscope.engine.intervene import Intervention, add
from otoscope.engine.model import Model
from otoscope.errors import ModelError, SiteError
from otoscope.models.site import Site
from otoscope.models.transcribe import transcribe
from otoscope.models.wer import normaliser, score
from otoscope.sae.dictionary import Dictionary

#: rows that are generated together
_ROWS = 8


class Change(NamedTuple):
    """A run of words: ``same`` in both transcripts, ``gained`` or ``lost`` by steering."""

    kind: Literal["same", "gained", "lost"]
    words: str


@dataclass(frozen=True)
class Push:
    """One direction, added at one strength.

    Attributes:
        direction: ``[d]``, of any length; only where it points matters.
        strength: in units of the spread; negative for the opposite direction.
    """

    direction: Float[Tensor, " d"]
    strength: float


def direction_of(dictionary: Dictionary, feature: int) -> Float[Tensor, " d"]:
    """The feature's decoder row at unit norm.

    Raises:
        ModelError: there is no such feature, or its row is 0.
    """
    n = dictionary.config.n_features
    if not 0 <= feature < n:
        raise ModelError(f"there is no feature {feature}: the features of this dictionary are 0 to {n - 1}.")
    row = dictionary.decoder[feature].detach().float()
    if not float(row.norm()) > 0:
        raise ModelError(f"feature {feature} has no decoder direction (its row is 0), so it steers nothing.")
    return row / row.norm()


def random_directions(d: int, n: int, seed: int = 0) -> Float[Tensor, "row d"]:
    """Directions drawn evenly from the sphere, of unit norm."""
    rows = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return rows / rows.norm(dim=1, keepdim=True)


def can_write(model: Model) -> bool:
    """Whether the model writes transcripts that steering can change."""
    has_head = model.family == "whisper" or hasattr(model.hf, "lm_head")
    return has_head and model.tokenizer is not None and not model.listens_and_reads and model.family != "language"


def steered(
    model: Model,
    clip: Clip,
    site: Site | str,
    spread: float,
    pushes: Sequence[Push],
    *,
    max_new_tokens: int = 128,
    language: str | None = None,
) -> list[str]:
    """What the model writes of a sound under each push.

    Args:
        model: one for which :func:`can_write` holds.
        clip: a sound no longer than the model's window.
        site: where to add; a whole site of width ``d``. In a stack whose positions are time, only frames of the sound
            are changed, and not the padding.
        spread: unit of the strengths, see :mod:`otoscope.sae.steering`.
        pushes: what to add; strength 0 leaves the model as it is.
        max_new_tokens: most tokens to write (Whisper).
        language: of a multilingual Whisper.

    Raises:
        ModelError: the model writes no transcripts.
        SiteError: the site is a single head or neuron.
    """
    site = Site.parse(site)
    if not can_write(model):
        raise ModelError(
            f"{model.name} writes no transcripts, so none can be steered: take a Whisper, or a speech encoder with a CTC "
            "head and its tokenizer."
        )
    if site.index is not None:
        raise SiteError(f"'{site}' is a part of a site: steer at the whole of it, {site.whole}.")
    clip = clip.resample(model.adapter.rate)
    positions = None
    if model.stacks[site.stack].frame_rate:
        positions = range(max(1, model.clock(site.stack, len(clip), site.layer).n_valid))
    texts: list[str] = []
    at_once = _ROWS if model.family == "whisper" else 1
    for start in range(0, len(pushes), at_once):
        some = pushes[start : start + at_once]
        rows = torch.stack([push.strength * push.direction / push.direction.norm() for push in some])
        change = add(site, rows[:, None, :], spread, positions=positions)
        texts += _written(model, clip, len(some), change, max_new_tokens, language)
    return texts


def _written(
    model: Model, clip: Clip, n: int, change: Intervention, max_new_tokens: int, language: str | None
) -> list[str]:
    if model.family != "whisper":
        with model.intervene(change):
            return [transcribe(model, [clip])[0].text]
    options: dict[str, str] = {}
    # the decoder has so many positions, of which the prompt takes some
    max_new_tokens = min(max_new_tokens, model.hf.config.max_target_positions - 8)
    if getattr(model.hf.generation_config, "lang_to_id", None):
        options = {"task": "transcribe", "language": language or "en"}
    rows = model.generate(model.inputs([clip] * n), [change], max_new_tokens=max_new_tokens, **options)
    return [model.tokenizer.decode(row, skip_special_tokens=True).strip() for row in rows]


def changed(text: str, plain: str, english: bool = True) -> float:
    """Words by which a transcript differs from the unsteered one, per word of the latter (of one, where it is empty)."""
    item = score([text], [plain], english).items[0]
    return item.errors / max(1, item.words)


def differences(text: str, plain: str, english: bool = True) -> list[Change]:
    """The transcript beside the unsteered one, as runs of words that stayed, came and went."""
    normalise = normaliser(english)
    new, old = text.split(), plain.split()
    found: list[Change] = []
    same = [[normalise(word) for word in words] for words in (old, new)]
    for kind, a, b, c, d in difflib.SequenceMatcher(None, *same, autojunk=False).get_opcodes():
        if kind == "equal":
            found.append(Change("same", " ".join(new[c:d])))
            continue
        if b > a:
            found.append(Change("lost", " ".join(old[a:b])))
        if d > c:
            found.append(Change("gained", " ".join(new[c:d])))
    return found
