"""Where in the model an error is made: the encoder layers, and the decoder's heads, that carry it.

One donor run is needed that does not make the error: the sentence with the reference's words put into the span by a
synthetic voice (for what the encoder heard), or with a neutral text before it (for what the text does). Parts of it are
put into the run that makes the error, at the token where transcript and reference part (activation patching):

    layer   the first encoder layer whose exchange in the span moves the margin most of the way
    heads   decoder heads, alone, by the share of the way that each moves it:
            cross-attention for the sound, self-attention for the text before
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from otoscope.audio.clip import Clip
from otoscope.engine.metrics import LogitDiff
from otoscope.engine.model import Model
from otoscope.engine.patch import Patch
from otoscope.methods.error_evidence import MARGIN, Evidence, make_arms, neutral_prompt, prompt_tokens
from otoscope.models.asr_errors import WordError

#: the first layer that moves the margin this share of what the last one does is named
MOST = 0.8


@dataclass(frozen=True)
class HeadEffect:
    """One head: its site without index, its number, and the share of the margin's way that it moves."""

    site: str
    head: int
    effect: float

    @property
    def name(self) -> str:
        """Such as ``decoder.2.cross_z.3``."""
        return f"{self.site}.{self.head}"


@dataclass(frozen=True)
class Places:
    """Where an error is made.

    Attributes:
        donor: which run the parts were taken from: ``rendering`` or ``neutral text``.
        base, mended: the margin of the run that errs, and of the donor, in nats.
        layers: margin with the span's frames of each encoder layer exchanged; empty for ``neutral text``.
        layer: the first encoder layer that suffices; None where none does.
        heads: every head of the kind in question, the strongest first.
    """

    donor: str
    base: float
    mended: float
    layers: tuple[float, ...]
    layer: int | None
    heads: tuple[HeadEffect, ...]


def places_of_sound(
    model: Model, clip: Clip, error: WordError, evidence: Evidence, *, context: str = "", language: str = "en",
    seed: int = 0,
) -> Places | None:  # fmt: skip
    """Where the decoder takes the wrong word from the sound; None where no voice can say the reference's words."""
    said = " ".join(error.said)
    arms = make_arms(clip, evidence.span, said, "", seed).said
    if not arms:
        return None
    tokens = [*prompt_tokens(model, context, language), *evidence.before]
    base, donor = (model.inputs(c, tokens=tokens) for c in (clip, arms[0]))
    clock = model.clock("encoder", base.n_samples[0])
    frames = tuple(clock.frames(max(0.0, evidence.span[0] - MARGIN), evidence.span[1] + MARGIN))
    encoder, decoder = model.stacks["encoder"], model.stacks["decoder"]
    patches = [Patch(f"encoder.{layer}.resid_post", positions=frames) for layer in range(encoder.n_layers)]
    last = len(tokens) - 1
    patches += [
        Patch(f"decoder.{layer}.cross_z", positions=(last,), heads=(head,))
        for layer in range(decoder.n_layers)
        for head in range(decoder.n_heads)
    ]
    result = model.sweep(base, donor, patches, LogitDiff(evidence.written, evidence.said, last))
    values = result.values["logit_diff"]
    at, to = result.base["logit_diff"], float(result.donors["logit_diff"][0])
    layers = values[: encoder.n_layers]
    moved = at - layers
    enough = [i for i, way in enumerate(moved) if moved[-1] > 0 and way >= MOST * moved[-1]]
    return Places("rendering", at, to, tuple(map(float, layers)), enough[0] if enough else None,
                  _heads(patches[encoder.n_layers :], values[encoder.n_layers :], at, to))  # fmt: skip


def places_of_text(
    model: Model, clip: Clip, evidence: Evidence, context: str, *, language: str = "en"
) -> Places | None:
    """Where the decoder takes the wrong word from the text before; None where there is none."""
    if not context.strip():
        return None
    tokens = [*prompt_tokens(model, context, language), *evidence.before]
    base = model.inputs(clip, tokens=tokens)
    donor = base.with_tokens([*neutral_prompt(model, context, language), *evidence.before])
    decoder, last = model.stacks["decoder"], len(tokens) - 1
    patches = [
        Patch(f"decoder.{layer}.z", positions=(last,), heads=(head,))
        for layer in range(decoder.n_layers)
        for head in range(decoder.n_heads)
    ]
    result = model.sweep(base, donor, patches, LogitDiff(evidence.written, evidence.said, last))
    values = result.values["logit_diff"]
    at, to = result.base["logit_diff"], float(result.donors["logit_diff"][0])
    return Places("neutral text", at, to, (), None, _heads(patches, values, at, to))


def _heads(patches: list[Patch], values: np.ndarray, at: float, to: float) -> tuple[HeadEffect, ...]:
    # where both runs read alike there is no way to go, and no share of it
    shares = (at - values) / (at - to) if abs(at - to) > 0.1 else np.full(len(values), np.nan)
    found = [HeadEffect(str(p.site), int(p.heads[0]), float(v)) for p, v in zip(patches, shares) if p.heads]
    return tuple(sorted(found, key=lambda h: -h.effect if np.isfinite(h.effect) else 0.0))
