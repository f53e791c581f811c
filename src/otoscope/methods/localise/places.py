"""Places: the candidates that a method has to choose between.

Three kinds of question have three sets of places. **Components**: every head, every cross-attention head and every MLP of
encoder and decoder, and blocks of rows of an audio-LLM's connector. **Layers**: the residual stream after every layer, in
the order of computing, and the unembedding; a fault lies where the repair of the stream *begins* to help. **Inputs**:
windows of the sound, and the words before the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from otoscope.engine.model import Model
from otoscope.engine.patch import Patch
from otoscope.models.site import Site
from otoscope.tasks.blocks_of_rows import rows_of

#: where the answer's and the foil's logits are read: a place of its own, after every site
LOGITS = Site("unembed", 0, "logits")


@dataclass(frozen=True)
class Place:
    """One candidate.

    Attributes:
        name: ``encoder.2.head.3``, ``decoder.1.cross.0``, ``decoder.3.mlp``, ``0.20-0.40 s``, ...
        site: the whole site whose value it is a part of.
        heads: its heads, at ``z`` and ``cross_z``.
        channels: its channels, elsewhere.
        positions: its frames or tokens; None for all.
    """

    name: str
    site: Site
    heads: tuple[int, ...] | None = None
    channels: tuple[int, ...] | None = None
    positions: tuple[int, ...] | None = None

    def of(self, value: Float[Tensor, "1 pos ..."]) -> Float[Tensor, "1 part ..."]:
        """Its part of a whole site's value."""
        if self.positions is not None:
            value = value[:, list(self.positions)]
        if self.heads is not None:
            value = value[:, :, list(self.heads)]
        return value if self.channels is None else value[..., list(self.channels)]

    def patch(self, value: Tensor | None = None) -> Patch:
        """The donor's value put here, or a given whole value's part."""
        heads, channels = self.heads, self.channels
        return Patch(self.site, positions=self.positions, heads=heads, neurons=channels, value=value, label=self.name)


def components(model: Model) -> tuple[Place, ...]:
    """Every head, cross-attention head, MLP and connector block, in the order of computing."""
    found: list[Place] = []
    for stack, spec in model.stacks.items():
        if stack == "connector":
            found += _blocks(spec.n_layers, spec.d_model)
        for layer in range(spec.n_layers):
            for point, word in (("z", "head"), ("cross_z", "cross")):
                if point in spec.points:
                    site = Site(stack, layer, point)
                    found += [Place(f"{stack}.{layer}.{word}.{h}", site, heads=(h,)) for h in range(spec.n_heads)]
            if "mlp_out" in spec.points:
                found.append(Place(f"{stack}.{layer}.mlp", Site(stack, layer, "mlp_out")))
    return tuple(found)


def layers(model: Model) -> tuple[Place, ...]:
    """The stream after every layer of encoder and decoder, and the unembedding."""
    found = [
        Place(f"{stack}.{layer}", Site(stack, layer, "resid_post"))
        for stack in ("encoder", "decoder")
        if stack in model.stacks
        for layer in range(model.stacks[stack].n_layers)
    ]
    return (*found, Place("unembed", LOGITS))


def windows(model: Model, n_samples: int, width: float = 0.2) -> tuple[Place, ...]:
    """Windows of ``width`` seconds over the sound, where it enters the encoder.

    Args:
        model: one with an encoder.
        n_samples: length of the sound at the model's rate.
        width: seconds.
    """
    clock = model.clock("encoder", n_samples, 0)
    site = Site("encoder", 0, "resid_pre")
    found = []
    for window in clock.windows(width):
        start, end = clock.edges(window[0])[0], clock.edges(window[-1])[1]
        found.append(Place(f"{start:.2f}-{end:.2f} s", site, positions=tuple(window)))
    return tuple(found)


def words_before(name: str, positions: Sequence[int]) -> Place:
    """A group of decoder positions, such as a context, where its words enter the decoder."""
    return Place(name, Site("decoder", 0, "resid_pre"), positions=tuple(positions))


def whole_sites(places: Sequence[Place]) -> list[Site]:
    """The sites whose values the places are parts of, each once; the logits are no site of the model."""
    return list(dict.fromkeys(place.site for place in places if place.site != LOGITS))


def _blocks(n_layers: int, width: int) -> list[Place]:
    site = Site("connector", n_layers - 1, "resid_post")
    return [Place(f"connector.rows.{i}", site, channels=tuple(rows)) for i, rows in enumerate(rows_of(width))]
