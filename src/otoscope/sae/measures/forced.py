"""A recording whose transcript is given: how likely each of its tokens stays when the frames of a site are edited.

Teacher forcing: every token is predicted from the true ones before it, so an edit cannot throw the rest of the text off. The
time of a token is read from the model's own cross-attention (:mod:`otoscope.methods.timing`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from otoscope.audio.clip import Clip
from otoscope.engine.metrics import LabelLogProb, Metric
from otoscope.engine.model import Model
from otoscope.engine.patch import Patch
from otoscope.engine.sweep import sweep
from otoscope.methods.timing import word_timing
from otoscope.models.inputs import Inputs
from otoscope.models.site import Site
from otoscope.sae.measures.behaviour import n_valid


class Scores(NamedTuple):
    """``log_probs`` ``[edit, token]`` in nats; ``right`` ``[edit, token]``: whether the token stays the most likely one."""

    log_probs: Float[np.ndarray, "edit token"]
    right: Bool[np.ndarray, "edit token"]


class Listening(Protocol):
    """What a measure of tokens needs: the frames of a recording, when each token was said, and the tokens under edits."""

    @property
    def x(self) -> Float[np.ndarray, "frame d"]:
        """The site's own frames."""
        ...

    @property
    def spans(self) -> Int[np.ndarray, "token 2"]:
        """First frame of each token and the first one after it."""
        ...

    def scores(self, edited: Sequence[Float[np.ndarray, "frame d"]]) -> Scores:
        """The tokens with other frames in place of the site's own."""
        ...


@dataclass(frozen=True, eq=False)
class Forced:
    """A recording with its transcript, as a Whisper hears it.

    Attributes:
        model, site: whose frames are edited.
        inputs: prompt and transcript.
        label: the transcript's tokens.
        x, spans: see :class:`Listening`.
    """

    model: Model
    site: Site
    inputs: Inputs
    label: tuple[int, ...]
    x: Float[np.ndarray, "frame d"]
    spans: Int[np.ndarray, "token 2"]

    @classmethod
    def of(cls, model: Model, site: Site | str, clip: Clip, text: str | None = None) -> Forced | None:
        """A recording with a text, by default with what the model writes; None where that is nothing. What the decoder has no
        room for is cut off.

        Raises:
            ModelError: the model is no Whisper.
            TaskError: the recording is longer than the model's window.
        """
        place = site if isinstance(site, Site) else Site.parse(site)
        said = None if text is None else model.encode(text)[len(model.prompt()) :]
        if said is not None:
            # a model that repeats itself writes more than its decoder reads
            said = said[: model.hf.config.max_target_positions - len(model.prompt()) - 1]
        timing = word_timing(model, clip, tokens=said)
        if not timing.tokens:
            return None
        label = tuple(t.token for t in timing.tokens)
        inputs = model.inputs(clip, tokens=[*model.prompt(), *label])
        n = n_valid(model, place, clip)
        clock = model.clock(place.stack, round(clip.duration * model.adapter.rate), place.layer)
        edges = np.array([[t.start, t.end] for t in timing.tokens]) * clock.rate
        spans = np.clip(np.stack([np.floor(edges[:, 0]), np.ceil(edges[:, 1])], axis=1).astype(int), 0, n)
        x = model.capture(inputs, place)[place][0, :n].float().cpu().numpy()
        return cls(model, place, inputs, label, x, spans)

    def scores(self, edited: Sequence[Float[np.ndarray, "frame d"]]) -> Scores:
        """The tokens with other frames in place of the site's own; padding is left as it is."""
        n, start = len(self.x), len(self.inputs.tokens[0]) - len(self.label) - 1  # type: ignore[index]
        frames = tuple(range(n))
        patches = [
            Patch(self.site, positions=frames, value=torch.as_tensor(x, dtype=torch.float32)[None]) for x in edited
        ]
        metrics: list[Metric] = []
        for i, token in enumerate(self.label):
            metrics += [LabelLogProb((token,), start + i, f"log_prob {i}"), _MostLikely(token, start + i, f"right {i}")]
        found = sweep(self.model, self.inputs, self.inputs, patches, metrics)
        columns = range(len(self.label))
        return Scores(
            np.stack([found.values[f"log_prob {i}"] for i in columns], axis=1),
            np.stack([found.values[f"right {i}"] for i in columns], axis=1) > 0.5,
        )


@dataclass(frozen=True)
class _MostLikely(Metric):
    """1 where a token is the most likely one at its position, else 0."""

    token: int
    position: int
    name: str

    @property
    def positions(self) -> tuple[int, ...]:  # type: ignore[override]
        return (self.position,)

    @property
    def tokens_read(self) -> tuple[int, ...]:
        return (self.token,)

    def __call__(self, logits: Tensor, base: Tensor | None = None) -> Tensor:
        return (logits[:, 0].argmax(-1) == self.token).to(logits.dtype)
