"""The grounding coefficient of a speech recogniser: Whisper with a preceding text follows the sound, or that text.

A Whisper hears by cross-attention, so the sound has no decoder positions. What corresponds to exchanging audio positions
at layer k is to let the decoder layers from k on attend to the other sound's encoder output, while the layers before k
attended to the base's:

    E_audio(k) = m(A, B) - m((A, B) whose layers >= k hear B)
    E_text(k)  = m((A, B) with the preceding text's states at layer k from (A, A)) - m(A, B)

in the noise direction, and in the denoise direction as in :mod:`otoscope.methods.grounding`, whose result this returns.
The encoder runs once per sound; decoder layers are replayed for all k at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from otoscope.engine.capture import capture_until
from otoscope.engine.model import Model
from otoscope.engine.sweep import Step
from otoscope.errors import ModelError, TaskError
from otoscope.methods.controls import randomly_turned
from otoscope.methods.grounding import Corners, Grounding, check_choices, collect
from otoscope.methods.grounding_sweep import (
    ALL,
    CONTROLS,
    RANDOM_DIRECTION,
    RANDOM_DONOR,
    ROTATIONS,
    SAME,
    Answers,
    Direction,
    after_context,
    arm,
    stranger_of,
)
from otoscope.methods.label_sweep import Label, Tail, place_labels, tails, with_tail
from otoscope.methods.resume import fingerprint, identity, kept
from otoscope.models.adapter import Adapter
from otoscope.models.inputs import Inputs
from otoscope.models.prompt import Asked
from otoscope.models.site import Site

#: keys and values of one sound in every decoder layer
Heard = list[tuple[Tensor, Tensor]]
#: the stream that enters each layer, ``[1, pos, d_model]``
Streams = list[Tensor]


def grounding_asr(
    model: Model,
    items: Sequence[Corners],
    *,
    directions: Sequence[Direction] = ("noise", "denoise"),
    controls: Sequence[str] = (),
    seed: int = 0,
    step: Step | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Grounding:
    """Exchange the sound that the layers from k on hear, and the preceding text's states at layer k.

    Args:
        model: a Whisper, or any model whose decoder attends to an encoder.
        items: corners from ``model.ask(clip, "", context)``: ``Corners.audio_label`` is the word that sound A says.
        directions, controls, seed, step, progress: as in :func:`otoscope.methods.grounding.grounding`.

    Raises:
        ModelError: the decoder attends to no encoder.
        TaskError: no items, or a direction or control that there is not.
        KeyboardInterrupt: it was interrupted; finished items are kept where ``step`` is given.
    """
    if not items:
        raise TaskError("there is no item to measure grounding on: give at least one.")
    check_choices("direction", directions, ("noise", "denoise"))
    if controls:
        check_choices("control", controls, CONTROLS)
    if model.adapter.blocks("decoder")[0].cross is None:
        raise ModelError(f"{model.name} hears at decoder positions, not by cross-attention: use grounding() for it.")
    who = identity(model, items[0].ab.inputs) if step else ""
    found = []
    for i, item in enumerate(items):
        stranger = stranger_of(items, i) if RANDOM_DONOR in controls else None

        def compute(i: int = i, item: Corners = item, stranger: Corners | None = stranger) -> dict[str, Any]:
            return vars(_ask(model.adapter, item, stranger, directions, controls, (seed + i) % ROTATIONS))

        runs = [c.inputs for c in (item.ab, item.bb, item.aa)] + ([stranger.ab.inputs] if stranger else [])
        settings = (directions, controls, (seed + i) % ROTATIONS, item.labels, item.layout)
        found.append(kept(step, f"asr-{fingerprint(who, *map(str, settings), *runs)}" if step else "", compute))
        if progress:
            progress(i + 1, len(items))
    return collect(model, items, found)


@torch.no_grad()
def _ask(
    adapter: Adapter,
    item: Corners,
    stranger: Corners | None,
    directions: Sequence[Direction],
    controls: Sequence[str],
    seed: int,
) -> Answers:
    decoder = _Decoder(adapter)
    sounds = [item.ab, item.bb, *([] if stranger is None else [stranger.ab])]
    frames: dict[str, Tensor] = dict(zip(("a", "b", "stranger"), decoder.encode(sounds)))
    if RANDOM_DIRECTION in controls:
        for own, other in ("ab", "ba"):
            frames[f"{own} turned"] = randomly_turned(frames[own], frames[other], seed)
    heard = {name: decoder.hear(x) for name, x in frames.items()}
    scores: dict[str, np.ndarray] = {}
    for tail in tails(item.labels):
        start = item.ab.groups["answer"][0]
        runs = {
            name: decoder.run(with_tail(asked.inputs, start, tail.tokens), heard[sound])
            for name, asked, sound in (("ab", item.ab, "a"), ("bb", item.bb, "b"), ("aa", item.aa, "a"))
        }
        if stranger is not None:
            runs["stranger"] = decoder.run(with_tail(stranger.ab.inputs, start, tail.tokens), heard["stranger"])
        rows = {name: streams[-1] for name, streams in runs.items() if name != "stranger"}
        asked = _arms(item.ab, runs, directions, controls, len(tail.tokens), seed)
        rows |= {name: decoder.replay(entering, heard[sound]) for name, entering, sound in asked}
        for name, states in rows.items():
            part = decoder.read(states[:, start:], item.labels, tail)
            scores[name] = part if name not in scores else np.where(np.isnan(scores[name]), part, scores[name])
    corners = np.concatenate([scores.pop(name) for name in ("ab", "bb", "aa")])
    margin = {name: values[:, 0] - values[:, 1] for name, values in scores.items()}
    answer = {name: np.minimum(values.argmax(-1), 2) for name, values in scores.items()}
    return Answers(margin, answer, corners[:, 0] - corners[:, 1], np.minimum(corners.argmax(-1), 2))


def _arms(
    asked: Asked,
    runs: dict[str, Streams],
    directions: Sequence[Direction],
    controls: Sequence[str],
    n_tail: int,
    seed: int,
) -> Iterator[tuple[str, Streams, str]]:
    """Every arm: its name, the streams that enter at each layer, and the sound that is heard from there on."""
    context, after = list(asked.groups["context"]), list(after_context(asked, n_tail))

    def put(base: str, positions: list[int], values: Callable[[int], Tensor]) -> Streams:
        made = [x.clone() for x in runs[base][:-1]]
        for k, x in enumerate(made):
            x[:, positions] = values(k)
        return made

    def states(name: str, positions: list[int]) -> Callable[[int], Tensor]:
        return lambda k: runs[name][k][:, positions]

    def turned(base: str, source: str) -> Callable[[int], Tensor]:
        return lambda k: randomly_turned(runs[base][k][:, context], runs[source][k][:, context], seed)

    # direction -> base and sound heard of the audio side, its source; base and source of the text side (sound A)
    sides = {"noise": (("ab", "a", "bb", "b"), ("ab", "aa")), "denoise": (("bb", "b", "ab", "a"), ("aa", "ab"))}
    for direction in directions:
        (base, own, source, other), (text_base, text_source) = sides[direction]
        yield arm(direction, "audio", ALL), runs[base][:-1], other
        yield arm(direction, "after", ALL), put(base, after, states(source, after)), own
        yield arm(direction, "text", ALL), put(text_base, context, states(text_source, context)), "a"
        if RANDOM_DONOR in controls and "stranger" in runs:
            yield arm(direction, "audio", RANDOM_DONOR), runs[base][:-1], "stranger"
            yield arm(direction, "text", RANDOM_DONOR), put(text_base, context, states("stranger", context)), "a"
        if RANDOM_DIRECTION in controls:
            yield arm(direction, "audio", RANDOM_DIRECTION), runs[base][:-1], f"{own} turned"
            yield arm(direction, "text", RANDOM_DIRECTION), put(text_base, context, turned(text_base, text_source)), "a"
        if SAME in controls:
            yield arm(direction, "audio", SAME), runs[base][:-1], own
            yield arm(direction, "text", SAME), runs[text_base][:-1], "a"


class _Decoder:
    """The decoder as steps, with the sound as keys and values that are computed once."""

    def __init__(self, adapter: Adapter):
        self.adapter, self.blocks = adapter, adapter.blocks("decoder")

    def encode(self, sounds: Sequence[Asked]) -> list[Float[Tensor, "1 frame d_model"]]:
        """Encoder outputs; one pass over all sounds."""
        last = Site("encoder", self.adapter.stacks["encoder"].n_layers - 1, "resid_post")
        batch = Inputs.stack(
            [Inputs(a.inputs.features, a.inputs.feature_mask, None, a.inputs.n_samples) for a in sounds]
        )
        frames = self.adapter.final("encoder", capture_until(self.adapter, batch, [last])[last])
        return list(frames.split(1))

    def hear(self, frames: Float[Tensor, "1 frame d_model"]) -> Heard:
        """Keys and values of a sound in every layer."""
        everywhere = torch.arange(frames.shape[1], device=frames.device)
        crosses = [block.cross for block in self.blocks]
        return [(c.keys(frames, everywhere), c.values(frames)) for c in crosses if c is not None]

    def run(self, inputs: Inputs, heard: Heard) -> Streams:
        """The stream before every layer, and after the last."""
        assert inputs.tokens is not None
        streams = [self.adapter.embed(inputs.tokens)]
        for layer in range(len(self.blocks)):
            streams.append(self._layer(layer, streams[-1], heard))
        return streams

    def replay(self, entering: Streams, heard: Heard) -> Float[Tensor, "layer pos d_model"]:
        """The stream after the last layer of every row; row k enters before layer k."""
        x = entering[0]
        for layer in range(len(self.blocks)):
            x = self._layer(layer, x, heard)
            if layer + 1 < len(self.blocks):
                x = torch.cat((x, entering[layer + 1]))
        return x

    def _layer(self, layer: int, x: Float[Tensor, "row pos d_model"], heard: Heard) -> Float[Tensor, "row pos d_model"]:
        block = self.blocks[layer]
        assert block.cross is not None
        assert block.norm_cross is not None
        at = torch.arange(x.shape[1], device=x.device)
        h, a, c = block.attn_input(x), block.attn, block.cross
        z = a.attend(a.queries(h, at), a.keys(h, at), a.values(h), at <= at[:, None])
        mid = block.after_attn(x, a.out(z))
        mid = mid + c.out(c.attend_shared(c.queries(block.norm_cross(mid), at), *heard[layer]))
        return block.mlp(mid)

    def read(
        self, states: Float[Tensor, "row pos d_model"], labels: Sequence[Label], tail: Tail
    ) -> Float[np.ndarray, "row label"]:
        """Log-probabilities of the labels that a tail serves; NaN for the others."""
        logits = self.adapter.unembed(self.adapter.final("decoder", states))
        # half precision is too coarse for sums over the vocabulary
        log_p = (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(-1).double()
        row, offset, token, cell = place_labels([(r, tail) for r in range(len(states))], [labels] * len(states))
        found = torch.zeros(len(states) * len(labels), dtype=torch.float64)
        found = found.index_add(0, cell, log_p[row, offset, token].cpu()).view(len(states), -1).numpy()
        found[:, [i for i in range(len(labels)) if i not in tail.labels]] = np.nan
        return found
