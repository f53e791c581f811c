"""Minimal pairs as a Whisper or an audio-LLM hears them, for :mod:`otoscope.sae.measures.disentangle`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from otoscope.engine.model import Model
from otoscope.engine.patch import Patch
from otoscope.engine.sweep import sweep
from otoscope.methods.pose import Posed
from otoscope.models.site import Site
from otoscope.sae.measures.behaviour import n_valid


@dataclass(frozen=True, eq=False)
class PosedPair:
    """A minimal pair that the model tells apart: the corrupt sound is edited, the clean one gives.

    Attributes:
        model, site: whose frames are exchanged.
        posed: the pair's inputs and its logit difference.
        frames: those of the span.
        x, donor: see :class:`otoscope.sae.measures.disentangle.Contrasted`.
    """

    model: Model
    site: Site
    posed: Posed
    frames: tuple[int, ...]
    x: Float[np.ndarray, "frame d"]
    donor: Float[np.ndarray, "frame d"]

    @classmethod
    def of(cls, model: Model, site: Site | str, posed: Posed) -> PosedPair:
        """The pair at a site, its frames those whose time lies in the span."""
        place = site if isinstance(site, Site) else Site.parse(site)
        clip, (start, end) = posed.item.pair.clean, posed.item.pair.span
        clock = model.clock(place.stack, round(clip.duration * model.adapter.rate), place.layer)
        inside = [f for f in clock.frames(start, end) if f < n_valid(model, place, clip)]
        both = [
            model.capture(inputs, place)[place][0, inside].float().cpu().numpy()
            for inputs in (posed.corrupt, posed.clean)
        ]
        return cls(model, place, posed, tuple(inside), both[0], both[1])

    @property
    def factor(self) -> str:
        """The phonological feature in which its words differ."""
        return self.posed.item.labels.get("feature", "")

    @property
    def unit(self) -> str:
        """The words, in whatever order and voice: an interval must not count them twice."""
        return "/".join(sorted((self.posed.item.answer, self.posed.item.foil)))

    def effects(self, edited: Sequence[Float[np.ndarray, "frame d"]]) -> Float[np.ndarray, " edit"]:
        """How far each edit brings the logit difference from the corrupt sound's to the clean one's."""
        patches = [Patch(self.site, positions=self.frames, value=torch.as_tensor(x).float()[None]) for x in edited]
        return sweep(self.model, self.posed.corrupt, self.posed.clean, patches, self.posed.metric).effects()
