"""Activations of sounds at the sites of a model, without padding, with the time of each frame.

A sound that is longer than the model's window (30 s for Whisper) or than ``PIECE_SECONDS`` is heard in equal pieces; what
a frame sees ends at its piece. Where positions are tokens (a decoder) the whole sound must fit into one window.

**No more work than needed.** The forward ends at the last site. Sounds share a batch where that changes no number. In
Whisper's window most frames are padding, which the layers below the last one need, since every frame attends to all; but
the last layer's queries and MLP are computed for the frames of the sound alone, with the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from otoscope.audio.clip import Clip
from otoscope.engine.capture import capture_until, pick, resolve_sites
from otoscope.engine.model import Model
from otoscope.errors import AudioError, ModelError, RunError, SiteError
from otoscope.models.clock import FrameClock
from otoscope.models.inputs import Inputs
from otoscope.models.linear import fast_linears
from otoscope.models.site import HEAD_POINTS, PATTERN_POINTS, Site, check
from otoscope.sae.last_layer import heard_partly

#: longest piece that is heard at once, seconds
PIECE_SECONDS = 30.0
#: most pieces in a batch, on a CPU (where more gain nothing) and elsewhere
_BATCH, _BATCH_ACCELERATED = 8, 64
#: share of the memory that one batch may take; the rest is for what was heard and not yet written
_BATCH_SHARE = 0.5


@dataclass(frozen=True)
class Axis:
    """Positions that several sites share: the frames or tokens of a stack.

    Attributes:
        name: the stack; a layer of the frontend, whose frames differ, has its number after it.
        stack, layer: whose clock it has.
        frame_rate: frames per second; None where positions are tokens.
    """

    name: str
    stack: str
    layer: int
    frame_rate: float | None


@dataclass(frozen=True)
class Heard:
    """What a model made of one sound.

    Attributes:
        x: site -> its values, ``[frame, d]`` float32; heads stand side by side.
        time: axis -> seconds from the start of the sound, float64; NaN for tokens.
        tokens: axis -> token at each position, where positions are tokens.
    """

    x: dict[Site, Float[Tensor, "frame d"]]
    time: dict[str, Float[np.ndarray, " frame"]]
    tokens: dict[str, Int[np.ndarray, " frame"]]


class Listener:
    """Hears sounds with a model and gives the values at some of its sites.

    Args:
        model: the model.
        sites: names or patterns.
        memory_gb: of which half may be one batch's activations (the weights are not counted): a batch holds fewer long
            sounds than short ones.
        question: what an audio-LLM is asked about each sound.

    Raises:
        SiteError: the model has no such site, or it is an attention pattern, whose width differs from sound to sound.
        RunError: the memory does not suffice for the window of a model that always computes all of it.
    """

    def __init__(self, model: Model, sites: Sequence[str | Site], *, memory_gb: float = 2.0, question: str = ""):
        self.model, self.question = model, question
        adapter = model.adapter
        # an index (a head, a neuron) is kept; the whole site is captured
        self.sites: tuple[Site, ...] = tuple(dict.fromkeys(s for w in sites for s in _named(w, model)))
        if wrong := [s for s in self.sites if s.point in PATTERN_POINTS]:
            raise SiteError(
                f"'{wrong[0]}' has a value for every pair of frames, so its width differs from sound to sound: name a site "
                "such as encoder.2.resid_post."
            )
        self.whole = resolve_sites(adapter, [s.whole for s in self.sites])
        self.axes = {site: _axis(model, site) for site in self.sites}
        rate = adapter.rate
        timed = [a for a in self.axes.values() if a.frame_rate]
        self.by_tokens = len(timed) < len(self.sites) or model.listens_and_reads
        sound_stack = next((s for s in ("encoder", "frontend", "connector") if s in model.stacks), None)
        self._hears = sound_stack is not None
        self.window = _window(model, sound_stack) if sound_stack else None
        slowest = min((a.frame_rate for a in timed if a.frame_rate), default=None)
        self._grid = round(rate / slowest) if slowest else 1
        self._longest = round(min(PIECE_SECONDS, self.window or math.inf) * rate)
        self.memory_gb = _checked(memory_gb)
        self.batch = self._batch_size()
        self._mixes_lengths = self.batch > 1 and not self.by_tokens and _mixes_lengths(model)

    # -- what is to be expected --------------------------------------------------------------------------------------

    def width(self, site: Site) -> int:
        """Width of a site's values (of a frontend: of its widest layer)."""
        spec = self.model.stacks[site.stack]
        if site.index is not None:
            return spec.d_head if site.point in HEAD_POINTS else 1
        return spec.channels(site.point) * (spec.n_heads if site.point in HEAD_POINTS else 1)

    def pieces(self, n_samples: int) -> list[slice]:
        """Samples of the pieces in which a sound is heard: as few as there can be, equally long, cut between frames."""
        n = max(1, math.ceil(n_samples / self._longest))
        length = min(self._longest, math.ceil(n_samples / n / self._grid) * self._grid)
        edges = [*range(0, n_samples, length), n_samples]
        return [slice(start, end) for start, end in zip(edges[:-1], edges[1:])]

    def times(self, axis: Axis, n_samples: int) -> Float[np.ndarray, " frame"]:
        """Times of the frames that a sound has on an axis whose positions are time, seconds."""
        found = []
        for piece in self.pieces(n_samples):
            clock = self.model.clock(axis.stack, _length(piece), axis.layer)
            found.append(_times(clock, max(0, clock.n_valid), piece.start / self.model.adapter.rate))
        return np.concatenate(found)

    def n_frames(self, axis: Axis, n_samples: int, text: str | None = None) -> int:
        """How many positions a sound has on an axis; of tokens, a guess from its transcript (nothing is decoded)."""
        if axis.frame_rate:
            return 0 if self.too_short(n_samples) else len(self.times(axis, n_samples))
        return 4 + math.ceil(len(text or "") / 4)

    def too_short(self, n_samples: int) -> bool:
        """Whether a sound is shorter than one frame."""
        return any(
            a.frame_rate
            and (
                n_samples / self.model.adapter.rate < 1 / a.frame_rate
                or self.model.clock(a.stack, min(n_samples, self._longest), a.layer).n_valid < 1
            )
            for a in self.axes.values()
        )

    # -- hearing -----------------------------------------------------------------------------------------------------

    def hear(self, clips: Sequence[Clip], skipped: Callable[[int, str], None]) -> list[Heard | None]:
        """The values of each sound; None for one that cannot be heard, after ``skipped(index, why)``.

        Args:
            clips: sounds at the model's rate.
            skipped: told of sounds that are shorter than a frame, or do not fit into the model.

        Raises:
            ModelError: a value is NaN or infinite.
            RunError: the memory does not suffice for a sound's pieces.
        """
        parts: dict[int, dict[int, Heard]] = {}
        places: list[tuple[int, slice]] = []
        for i, clip in enumerate(clips):
            if why := self._why_not(clip):
                skipped(i, why)
                continue
            places += [(i, piece) for piece in self.pieces(len(clip))]
        for batch in self._batches(places):
            sounds = [_cut(clips[i], piece) for i, piece in batch]
            try:
                made = self._heard(sounds, [piece.start / self.model.adapter.rate for _, piece in batch])
            except AudioError as error:
                # only one clip at a time can be refused here, by a model that says what lengths it hears
                if len({i for i, _ in batch}) > 1:
                    raise
                skipped(batch[0][0], str(error))
                parts.pop(batch[0][0], None)
                continue
            for (i, piece), heard in zip(batch, made):
                self._check(clips[i], heard)
                parts.setdefault(i, {})[piece.start] = heard
        # pieces of like length share a batch, so they do not come in their order
        return [_joined([parts[i][at] for at in sorted(parts[i])]) if i in parts else None for i in range(len(clips))]

    def _why_not(self, clip: Clip) -> str | None:
        if self.too_short(len(clip)):
            return f"lasts {clip.duration * 1000:.0f} ms, shorter than one frame of {self.model.name}"
        if not self.by_tokens:
            return None
        if len(self.pieces(len(clip))) > 1 and any(not a.frame_rate for a in self.axes.values()):
            return (
                f"lasts {clip.duration:.1f} s, more than the {self._longest / self.model.adapter.rate:g} s that are heard "
                f"at once, so {self.model.name} writes no text of all of it"
            )
        most = getattr(self.model.hf.config, "max_target_positions", None)
        if self.model.family == "whisper" and most and len(self._tokens(clip)) > most:
            return f"has a transcript of more than the {most} tokens that {self.model.name} reads"
        return None

    def _batches(self, places: list[tuple[int, slice]]) -> Iterator[list[tuple[int, slice]]]:
        """Pieces that share a forward: of any lengths where the model hears each as if it were alone, else of one."""
        if self._mixes_lengths and not self.window:
            # padding costs time, so pieces of like length share it
            places = sorted(places, key=lambda p: p[1].stop - p[1].start)
        batch: list[tuple[int, slice]] = []
        for place in places:
            alike = self._mixes_lengths or (
                not self.by_tokens and bool(batch) and _length(place[1]) == _length(batch[0][1])
            )
            longest = max(_length(piece) for _, piece in (*batch, place))
            if batch and (len(batch) >= min(self.batch, self.room(longest)) or not alike):
                yield batch
                batch = []
            batch.append(place)
        if batch:
            yield batch

    def _heard(self, clips: list[Clip], starts: list[float]) -> list[Heard]:
        inputs = self._inputs(clips)
        with torch.inference_mode(), fast_linears(self.model.hf):
            cache = heard_partly(self.model, self.whole, inputs)
            if cache is None:
                whole = capture_until(self.model.adapter, inputs, self.whole)
                cache = {site: list(whole[site]) for site in self.whole}
        return [self._of_item(cache, i, len(clip), start, inputs) for i, (clip, start) in enumerate(zip(clips, starts))]

    def _of_item(
        self, cache: dict[Site, list[Tensor]], item: int, n_samples: int, start: float, inputs: Inputs
    ) -> Heard:
        x: dict[Site, Tensor] = {}
        time: dict[str, np.ndarray] = {}
        tokens: dict[str, np.ndarray] = {}
        for site in self.sites:
            axis = self.axes[site]
            value = pick(cache[site.whole][item][None], site)[0]
            if axis.frame_rate:
                clock = self.model.clock(axis.stack, n_samples, axis.layer)
                value = value[: clock.n_valid]
                time[axis.name] = _times(clock, len(value), start)
            else:
                time[axis.name] = np.full(len(value), np.nan)
                assert inputs.tokens is not None
                tokens[axis.name] = inputs.tokens[item].cpu().numpy()
            value = value.reshape(len(value), -1)
            # a copy: a view would keep the whole batch's values, padding included, in memory
            x[site] = value.to("cpu", torch.float32, copy=True)
        return Heard(x, time, tokens)

    def _inputs(self, clips: list[Clip]) -> Inputs:
        model = self.model
        if not self.by_tokens:
            return model.adapter.features(clips)
        if model.family == "language":
            return model.inputs(text=clips[0].text or "")
        if model.family == "whisper":
            return model.adapter.features(clips).with_tokens(self._tokens(clips[0]))
        return model.ask(clips[0], self.question).inputs

    def _tokens(self, clip: Clip) -> list[int]:
        """What Whisper's decoder reads: its prompt, and the transcript where there is one."""
        return self.model.encode(clip.text or "") if self.model.tokenizer is not None else self.model.prompt()

    def _check(self, clip: Clip, heard: Heard) -> None:
        for site, value in heard.x.items():
            if not torch.isfinite(value).all():
                raise ModelError(
                    f"{site} of {self.model.name} is NaN or infinite for '{clip.name}': leave that recording out, or load "
                    "the model in float32."
                )

    # -- memory ------------------------------------------------------------------------------------------------------

    def room(self, n_samples: int) -> int:
        """How many pieces of this length the memory has room for at once.

        Raises:
            RunError: for none.
        """
        if not self._hears:
            return 1
        n_samples = round(self.window * self.model.adapter.rate) if self.window else min(n_samples, self._longest)
        each, budget = self._bytes(n_samples), self.memory_gb * 1e9 * _BATCH_SHARE
        if each > budget:
            raise RunError(
                f"{self.memory_gb:g} GB do not suffice for {self.model.name}, which needs about "
                f"{each / 1e9 / _BATCH_SHARE:.2g} GB to hear {n_samples / self.model.adapter.rate:.3g} s at once: raise "
                "--memory-gb."
            )
        return int(budget // each)

    def _batch_size(self) -> int:
        """Most pieces in a batch, however short they are."""
        most = _BATCH if self.model.adapter.device.type == "cpu" else _BATCH_ACCELERATED
        if self.window:
            most = min(most, self.room(1))
        return 1 if self.by_tokens or not self._hears else most

    def _bytes(self, n_samples: int) -> int:
        """About what one piece takes while it is heard: convolutions one after the other, a layer, and what is kept."""
        stacks, size = self.model.stacks, 4
        widest = 0
        if (front := stacks.get("frontend")) is not None:
            for layer in range(front.n_layers):
                # input, output and its normalisation or nonlinearity
                widest = max(widest, 3 * self.model.clock("frontend", n_samples, layer).n_frames * front.d_model)
        layer = kept = 0
        for name, spec in stacks.items():
            if name == "frontend":
                continue
            n = self.model.clock(name, n_samples).n_frames if spec.frame_rate else 512
            scores = spec.n_heads * n * n if self.model.family != "whisper" else 0
            layer = max(layer, n * (10 * spec.d_model + 3 * spec.d_mlp) + 2 * scores)
        for site in self.whole:
            spec = stacks[site.stack]
            n = self.model.clock(site.stack, n_samples, site.layer).n_frames if spec.frame_rate else 512
            kept += 2 * n * self.width(site)
        return size * (max(widest, layer) + kept)


def _named(wanted: str | Site, model: Model) -> list[Site]:
    if isinstance(wanted, Site):
        return [check(wanted, model.stacks, model.name)]
    return model.sites(wanted)


def _checked(memory_gb: float) -> float:
    if not math.isfinite(memory_gb) or memory_gb <= 0:
        raise RunError(f"a memory of {memory_gb:g} GB holds nothing: give --memory-gb a positive number, such as 2.")
    return memory_gb


def _axis(model: Model, site: Site) -> Axis:
    if not model.stacks[site.stack].frame_rate:
        return Axis(site.stack, site.stack, 0, None)
    name = f"{site.stack}.{site.layer}" if site.stack == "frontend" else site.stack
    return Axis(name, site.stack, site.layer, model.clock(site.stack, model.adapter.rate, site.layer).rate)


def _window(model: Model, stack: str) -> float | None:
    """Seconds of the window that a model computes whatever the sound's length; None where it hears any length."""
    short, long = (model.clock(stack, n * model.adapter.rate) for n in (1, 120))
    return short.n_frames / short.rate if short.n_frames == long.n_frames else None


def _mixes_lengths(model: Model) -> bool:
    """Whether sounds of unequal length may share a batch: a model that would hear the padding refuses them."""
    clips = [Clip(np.full(n, 0.1, np.float32), model.adapter.rate) for n in (8000, 6400)]
    try:
        model.adapter.features(clips)
    except AudioError:
        return False
    return True


def _cut(clip: Clip, piece: slice) -> Clip:
    if piece.start == 0 and piece.stop == len(clip):
        return clip
    return Clip(clip.samples[piece], clip.rate, name=clip.name, text=clip.text)


def _times(clock: FrameClock, n: int, start: float) -> Float[np.ndarray, " frame"]:
    """Times of the first ``n`` frames of a piece that starts at ``start`` seconds."""
    return start + clock.first + np.arange(n) / clock.rate


def _length(piece: slice) -> int:
    return piece.stop - piece.start


def _joined(parts: list[Heard]) -> Heard:
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    return Heard(
        {site: torch.cat([p.x[site] for p in parts]) for site in first.x},
        {axis: np.concatenate([p.time[axis] for p in parts]) for axis in first.time},
        {axis: np.concatenate([p.tokens[axis] for p in parts]) for axis in first.tokens},
    )
