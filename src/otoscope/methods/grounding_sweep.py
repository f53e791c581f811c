"""What :mod:`otoscope.methods.grounding` asks of one item.

Three sweeps per item, one for each base run: (sound A, context B) for the noise direction of both sides, (B, B) for the
denoise direction of the sound, (A, A) for that of the text. An *arm* is one line of answers over the layers, named
``direction/side/variant``, such as ``noise/audio/all tokens``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from otoscope.engine.capture import capture_until
from otoscope.engine.model import Model
from otoscope.engine.patch import Patch
from otoscope.engine.plain import PlainRuns
from otoscope.methods.controls import randomly_turned
from otoscope.methods.label_sweep import sweep_labels
from otoscope.models.inputs import Inputs
from otoscope.models.prompt import Asked
from otoscope.models.site import Site

if TYPE_CHECKING:
    from otoscope.methods.grounding import Corners

Side = Literal["audio", "text", "after"]
Direction = Literal["noise", "denoise"]

ALL = "all tokens"
EQUAL = "equal tokens"
RANDOM_DONOR, RANDOM_DIRECTION, SAME = "random donor", "random direction", "same input"
CONTROLS = (RANDOM_DONOR, RANDOM_DIRECTION, SAME)

#: rotations drawn for the control "random direction"; items take turns, so that no single draw decides the mean
ROTATIONS = 4


@dataclass(frozen=True)
class Answers:
    """What one item answered.

    Attributes:
        margin: arm -> ``m`` of the patched run per layer, ``[layer]``: score of the sound's label minus the text's label.
        answer: arm -> what it answered per layer: 0 the sound's label, 1 the text's label, 2 another one.
        corners: ``m`` of the plain runs (A, B), (B, B), (A, A).
        corner_answers: what they answered.
    """

    margin: dict[str, Float[np.ndarray, " layer"]]
    answer: dict[str, Int[np.ndarray, " layer"]]
    corners: Float[np.ndarray, "3"]
    corner_answers: Int[np.ndarray, "3"]


def arm(direction: str, side: str, variant: str) -> str:
    """The name of one line of answers."""
    return f"{direction}/{side}/{variant}"


def after_context(asked: Asked, n_tail: int = 0) -> tuple[int, ...]:
    """Positions after sound and context up to the last that is read: the question, the template's end, the answer."""
    first = max((*asked.groups["audio"], *asked.groups["context"])) + 1
    return tuple(range(first, asked.groups["answer"][0] + 1 + n_tail))


def equal_positions(asked: Asked, seed: int) -> dict[str, tuple[int, ...]]:
    """As many positions of the sound as of the context: a seeded random part of the larger group."""
    rng = np.random.default_rng(seed)
    groups = {"audio": asked.groups["audio"], "text": asked.groups["context"]}
    n = min(map(len, groups.values()))
    return {side: tuple(sorted(int(p) for p in rng.choice(at, n, replace=False))) for side, at in groups.items()}


def ask_item(
    model: Model,
    item: Corners,
    stranger: Corners | None,
    directions: Sequence[Direction],
    variants: Sequence[str],
    controls: Sequence[str],
    after: bool,
    seed: int,
    **options: Any,
) -> Answers:
    """Answer every arm of one item; arguments as in :func:`otoscope.methods.grounding.grounding`.

    ``stranger`` is the item that random donors come from; without one, these arms are missing.
    """
    found = Answers({}, {}, np.full(3, np.nan), np.full(3, -1))
    plain = PlainRuns()  # the corners are bases and donors of one another
    # base, sides, and the corner that differs from it on each side
    plans: list[tuple[Direction, int, Asked, dict[str, Asked]]] = []
    if "noise" in directions:
        plans.append(("noise", 0, item.ab, {"audio": item.bb, "text": item.aa}))
    if "denoise" in directions:
        plans.append(("denoise", 1, item.bb, {"audio": item.ab}))
        plans.append(("denoise", 2, item.aa, {"text": item.ab}))
    for direction, corner, base, sources in plans:
        donors = list(sources.values()) + ([] if stranger is None else [stranger.ab]) + [base]
        arms = dict(_arms(model, base, sources, stranger is not None, variants, controls, after, seed))
        n_layers = model.stacks["decoder"].n_layers

        def patches(n_tail: int, arms: dict = arms) -> list[Patch]:
            return [patch for make in arms.values() for patch in make(n_tail)]

        scores = sweep_labels(
            model, base.inputs, [d.inputs for d in donors], patches, item.labels, base.groups["answer"][0], plain=plain,
            **options,
        )  # fmt: skip
        by_arm = scores.patched.reshape(len(arms), n_layers, -1)
        for (side, variant), values in zip(arms, by_arm):
            found.margin[arm(direction, side, variant)] = values[:, 0] - values[:, 1]
            found.answer[arm(direction, side, variant)] = np.minimum(values.argmax(-1), 2)
        # the donors are corners as well
        donor_corners = (1, 2) if direction == "noise" else (0,)
        for c, values in zip((corner, *donor_corners), (scores.base, *scores.donors)):
            found.corners[c] = values[0] - values[1]
            found.corner_answers[c] = min(int(values.argmax()), 2)
    return found


def _arms(
    model: Model,
    base: Asked,
    sources: Mapping[str, Asked],
    strangers: bool,
    variants: Sequence[str],
    controls: Sequence[str],
    after: bool,
    seed: int,
) -> Iterator[tuple[tuple[str, str], Callable[[int], list[Patch]]]]:
    """(side, variant) and what makes its patches from the number of appended tokens."""
    sites = [Site("decoder", layer, "resid_pre") for layer in range(model.stacks["decoder"].n_layers)]
    group = {"audio": base.groups["audio"], "text": base.groups["context"]}
    random, same = len(sources), len(sources) + strangers

    def make(donor: int, positions: Callable[[int], tuple[int, ...]]) -> Callable[[int], list[Patch]]:
        return lambda n_tail: [Patch(site, positions(n_tail), donor=donor) for site in sites]

    for donor, (side, source) in enumerate(sources.items()):
        at = group[side]
        if ALL in variants:
            yield (side, ALL), make(donor, lambda _, at=at: at)
        if EQUAL in variants:
            part = equal_positions(base, seed)[side]
            yield (side, EQUAL), make(donor, lambda _, at=part: at)
        if RANDOM_DONOR in controls and strangers:
            yield (side, RANDOM_DONOR), make(random, lambda _, at=at: at)
        if RANDOM_DIRECTION in controls:
            turned = _turned(model, base, source, sites, at, seed)
            made = [Patch(site, at, donor=donor, value=value) for site, value in zip(sites, turned)]
            yield (side, RANDOM_DIRECTION), lambda _, made=made: made
        if SAME in controls:
            yield (side, SAME), make(same, lambda _, at=at: at)
        if after and side == "audio":
            yield ("after", ALL), make(donor, lambda n_tail: after_context(base, n_tail))


def _turned(
    model: Model, base: Asked, source: Asked, sites: Sequence[Site], positions: tuple[int, ...], seed: int
) -> list[Float[Tensor, "1 pos d_model"]]:
    """The base's states plus the difference to the source's, turned by one random rotation."""
    both = capture_until(model.adapter, Inputs.stack([base.inputs, source.inputs]), sites)
    at = list(positions)
    return [randomly_turned(both[s][:1, at], both[s][1:2, at], seed % ROTATIONS) for s in sites]


def stranger_of(items: Sequence[Corners], index: int) -> Corners | None:
    """The next item with the same positions whose two labels are others; else the next with the same positions.

    None where no other item has the same positions.
    """
    own = items[index]
    others = [items[(index + step) % len(items)] for step in range(1, len(items))]
    fitting = [o for o in others if o.layout == own.layout]
    foreign = [o for o in fitting if not {o.audio_label, o.text_label} & {own.audio_label, own.text_label}]
    return next(iter(foreign or fitting), None)
