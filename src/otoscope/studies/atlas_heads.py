"""Where every head of a Whisper looks, mean over sentences with intervals, and what that makes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from otoscope.audio.clip import Clip
from otoscope.engine.capture import capture_until
from otoscope.engine.model import Model
from otoscope.methods.frames import NONE, labels_of, within_window
from otoscope.methods.units import cross_looks, decoder_looks, encoder_looks
from otoscope.models.clock import FrameClock
from otoscope.models.site import Site
from otoscope.stats import Interval, bootstrap
from otoscope.studies.atlas_material import Piece, silences
from otoscope.studies.atlas_writing import Writing, writings
from otoscope.studies.outcome import Step

#: excess attention from which on a head is named after where it looks
NAMED = 0.1
#: cross-attention head's place that makes it an alignment head
WORD = "the word being written"
#: a word's frames reach so far beyond its ends, seconds
_SLACK = 0.1


@dataclass(frozen=True, eq=False)
class HeadLooks:
    """Excess attention of heads to places.

    Attributes:
        heads: names of the heads, ``decoder.1.cross_z.4``.
        places: what was asked of each head.
        values: ``[recording, head, place]``; NaN where a head has no such place.
    """

    heads: tuple[str, ...]
    places: tuple[str, ...]
    values: Float[np.ndarray, "recording head place"]

    def mean(self) -> Float[np.ndarray, "head place"]:
        """Over recordings."""
        there = ~np.isnan(self.values)
        counts = there.sum(axis=0)
        return np.where(counts > 0, np.nansum(self.values, axis=0) / np.maximum(counts, 1), np.nan)

    def kind(self, head: int) -> tuple[str, float]:
        """The place that a head looks at most, beyond chance, and by how much; ``spread out`` below the bar."""
        mean = self.mean()[head].copy()
        mean[[place == "monotonic" for place in self.places]] = np.nan
        if np.isnan(mean).all() or np.nanmax(mean) < NAMED:
            return "spread out", float("nan") if np.isnan(mean).all() else float(np.nanmax(mean))
        return self.places[int(np.nanargmax(mean))], float(np.nanmax(mean))

    def alignment(self) -> tuple[str, Interval]:
        """The cross-attention head that looks most at the word being written in every other recording, measured in the rest."""
        column = self.places.index(WORD)
        own = self.values[:, :, column]
        chosen = np.array(
            [np.nan_to_num(np.nanmean(v), nan=-1.0) if not np.isnan(v).all() else -1.0 for v in own[::2].T]
        )
        best = int(chosen.argmax())
        return self.heads[best], bootstrap(own[1::2, best])

    def table(self) -> list[dict[str, Any]]:
        """One row per head: where it looks, and every place's mean and interval."""
        rows = []
        for i, head in enumerate(self.heads):
            kind, value = self.kind(i)
            row: dict[str, Any] = {"head": head, "looks at": kind, "excess": value}
            for j, place in enumerate(self.places):
                one = bootstrap(self.values[:, i, j])
                row |= {place: one.value, f"{place}_low": one.low, f"{place}_high": one.high}
            rows.append(row)
        return rows


def head_looks(
    model: Model,
    found: Sequence[Piece],
    n: int,
    step: Step,
    key: str,
    progress: Callable[[int, int], None] | None = None,
) -> HeadLooks:
    """Measure all heads on the first ``n`` sentences of different speakers."""
    wanted = [i for i, piece in enumerate(found) if piece.kind == "speech"][:n]
    heads = [
        Site(stack, layer, point, h)
        for stack, points in (("encoder", ("z",)), ("decoder", ("z", "cross_z")))
        for layer in range(model.stacks[stack].n_layers)
        for point in points
        for h in range(model.stacks[stack].n_heads)
    ]

    def measure() -> dict[str, Any]:
        looks: list[dict[Site, dict[str, float]]] = []
        for k, i in enumerate(wanted):
            looks.append(_encoder(model, found[i].clip) | _decoder(model, list(found), i))
            if progress is not None:
                progress(k + 1, len(wanted))
        places = list(dict.fromkeys(p for one in looks for place in one.values() for p in place))
        values = np.full((len(looks), len(heads), len(places)), np.nan)
        for k, one in enumerate(looks):
            for h, head in enumerate(heads):
                for place, value in one.get(head, {}).items():
                    values[k, h, places.index(place)] = value
        return {"places": places, "values": values}

    got = step(f"looks-{key}", measure)
    return HeadLooks(tuple(map(str, heads)), tuple(got["places"]), np.asarray(got["values"], float))


@torch.no_grad()
def _encoder(model: Model, clip: Clip) -> dict[Site, dict[str, float]]:
    clip = within_window(model, clip)
    inputs = model.inputs(clip)
    clock = model.clock("encoder", inputs.n_samples[0])
    silent = silences(clip, clock)
    names = labels_of(clip.phones, clock)
    numbers = {name: i for i, name in enumerate(sorted(set(names) - {NONE}))}
    phone = np.array([numbers.get(name, -1) for name in names])
    out = {}
    for layer in range(model.stacks["encoder"].n_layers):
        # one layer at a time: a 30-s pattern of all layers would fill the memory of a small machine
        site = Site("encoder", layer, "pattern")
        pattern = capture_until(model.adapter, inputs, [site])[site][0].float().cpu().numpy()
        looks = encoder_looks(pattern, clock.n_valid, silent, phone)
        out |= _by_head("encoder", layer, "z", looks)
    return out


@torch.no_grad()
def _decoder(model: Model, found: list[Piece], piece: int) -> dict[Site, dict[str, float]]:
    runs = {run.kind: run for run in writings(model, [found[piece]])}
    run = runs.get("plain")
    if run is None:
        return {}
    clip = within_window(model, found[piece].clip)
    clock = model.clock("encoder", len(clip))
    layers = range(model.stacks["decoder"].n_layers)
    cross = [Site("decoder", layer, "cross_pattern") for layer in layers]
    plain = [Site("decoder", layer, "pattern") for layer in layers]
    kept = capture_until(model.adapter, run.inputs, [*plain, *cross])
    writing = slice(run.start - 1, len(run.tokens) - 1)
    word = _word_frames(model, run, clip, clock)
    spoken = word.any(axis=1)
    out: dict[Site, dict[str, float]] = {}
    # a text said twice has earlier copies of every token; one run of its own shows what heads do with them
    twice = run.inputs.with_tokens([*run.tokens[: run.start], *_text(run)[:12], *_text(run)[:12]])
    again = capture_until(model.adapter, twice, plain)
    for layer in layers:
        pattern = again[plain[layer]][0].float().cpu().numpy()
        assert twice.tokens is not None
        out |= _by_head("decoder", layer, "z", decoder_looks(pattern, run.start, twice.tokens[0].cpu().numpy()))
        seen = kept[cross[layer]][0].float().cpu().numpy()[:, writing][:, spoken]
        out |= _by_head(
            "decoder", layer, "cross_z", cross_looks(seen, clock.n_valid, silences(clip, clock), word[spoken])
        )
    return out


def _text(run: Writing) -> list[int]:
    return [int(t) for t in run.tokens[run.start : -1]]


def _word_frames(model: Model, run: Writing, clip: Clip, clock: FrameClock) -> Bool[np.ndarray, "position valid"]:
    """Per position that writes the text, the frames of the word that its token belongs to; none where words do not match."""
    text = _text(run)
    frames = np.zeros((len(text) + 1, clock.n_valid), bool)
    times = np.array([clock.time(k) for k in range(clock.n_valid)])
    number = -1
    for i, token in enumerate(text):
        piece = model.tokenizer.decode([token])
        number += piece[:1] == " " or i == 0
        if number < len(clip.words):
            span = clip.words[number]
            frames[i] = (times >= span.start - _SLACK) & (times < span.end + _SLACK)
    if number + 1 != len(clip.words):
        frames[:] = False
    return frames


def _by_head(stack: str, layer: int, point: str, looks: dict[str, np.ndarray]) -> dict[Site, dict[str, float]]:
    heads = len(next(iter(looks.values())))
    return {
        Site(stack, layer, point, h): {place: float(value[h]) for place, value in looks.items()} for h in range(heads)
    }
