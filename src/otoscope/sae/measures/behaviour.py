"""Behaviour kept: what the model still writes when the frames of a site are put through a dictionary.

* ``wer_delta``: word error rate with the rebuilt frames in place of the site's own, less that without, free running.
* Cross-entropy per token (nats) of the transcript that the untouched model writes, given its true beginning:
  ``ce_delta = CE(rebuilt) - CE(own)``, and, as in SAEBench, ``ce_recovered = (CE(0) - CE(rebuilt)) / (CE(0) - CE(own))``
  where the frames are set to 0.

Padding is left as it is: dictionaries are trained on frames of sound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from otoscope.audio.clip import Clip
from otoscope.engine.intervene import Intervention, scale
from otoscope.engine.model import Model
from otoscope.errors import ModelError
from otoscope.methods.wer import free_running_wer
from otoscope.models.site import Site
from otoscope.models.transcribe import transcribe
from otoscope.stats import Interval, bootstrap_sums

#: frames [frame, d] -> frames [frame, d]
Rebuild = Callable[[Float[Tensor, "frame d"]], Float[Tensor, "frame d"]]


class Plain(NamedTuple):
    """What the untouched model does with one recording: its ``transcript``, its word ``errors`` out of ``words``, the
    summed cross-entropy ``own`` of the transcript's ``tokens``, and ``zeroed`` with the site's frames at 0."""

    transcript: str
    errors: int
    words: int
    own: float
    zeroed: float
    tokens: int


class Behaviour(NamedTuple):
    """Intervals over recordings; see the module."""

    wer: Interval
    wer_delta: Interval
    ce_delta: Interval
    ce_recovered: Interval


def inserted(model: Model, site: Site | str, clip: Clip, rebuild: Rebuild) -> Intervention:
    """The intervention that puts the frames of one recording through ``rebuild``.

    Raises:
        SiteError: there is no such site.
    """
    n = n_valid(model, site, clip)

    def change(x: Tensor, _: Tensor) -> Tensor:
        out = x.clone()
        for i in range(len(x)):
            out[i, :n] = rebuild(x[i, :n].float()).to(x)
        return out

    return Intervention(site, change, name="reconstruction")


def n_valid(model: Model, site: Site | str, clip: Clip) -> int:
    """Frames of a site that lie inside a recording."""
    place = Site.parse(str(site)) if not isinstance(site, Site) else site
    return model.clock(place.stack, round(clip.duration * model.adapter.rate), place.layer).n_valid


def plain(model: Model, site: Site | str, clips: Sequence[Clip], texts: Sequence[str]) -> list[Plain]:
    """What the untouched model does, once for all dictionaries.

    Args:
        model: a Whisper.
        site: of an encoder.
        clips, texts: recordings no longer than the model's window, and what is said in them.

    Raises:
        ModelError: the model is no Whisper.
    """
    if model.family != "whisper":
        raise ModelError(f"{model.name} is no Whisper, so what it writes with rebuilt frames cannot be measured.")
    written = [found.text for found in transcribe(model, list(clips))]
    rates = free_running_wer(model, list(clips), list(texts)).items
    made = []
    for clip, text, rate in zip(clips, written, rates):
        silenced = scale(site, 0.0, positions=tuple(range(n_valid(model, site, clip))))
        own, tokens = cross_entropy(model, clip, text)
        made.append(Plain(text, rate.errors, rate.words, own, cross_entropy(model, clip, text, [silenced])[0], tokens))
    return made


def behaviour(
    model: Model,
    site: Site | str,
    clips: Sequence[Clip],
    texts: Sequence[str],
    before: Sequence[Plain],
    rebuild: Rebuild,
    *,
    progress: Callable[[int, int], None] | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Behaviour:
    """What is kept when the site's frames are rebuilt.

    Args:
        model, site, clips, texts: as for :func:`plain`.
        before: what that gave.
        rebuild: the dictionary, from frames to frames.
        progress: called with recordings done and their number.
        n_resamples, seed: of the intervals.
    """
    rows = []
    for i, (clip, text, was) in enumerate(zip(clips, texts, before)):
        there = [inserted(model, site, clip, rebuild)]
        item = free_running_wer(model, clip, text, there).items[0]
        now = cross_entropy(model, clip, was.transcript, there)[0]
        rows.append([item.errors, was.errors, was.words, now, was.own, was.zeroed, was.tokens])
        if progress:
            progress(i + 1, len(clips))

    def interval(statistic: Callable[[Any], float]) -> Interval:
        return bootstrap_sums(rows, statistic, n_resamples, seed=seed)

    nan = float("nan")
    return Behaviour(
        interval(lambda t: float(t[0] / t[2]) if t[2] else nan),
        interval(lambda t: float((t[0] - t[1]) / t[2]) if t[2] else nan),
        interval(lambda t: float((t[3] - t[4]) / t[6]) if t[6] else nan),
        interval(lambda t: float((t[5] - t[3]) / (t[5] - t[4])) if t[5] > t[4] else nan),
    )


@torch.no_grad()
def cross_entropy(model: Model, clip: Clip, text: str, interventions: Sequence[Intervention] = ()) -> tuple[float, int]:
    """Summed cross-entropy (nats) of a text's tokens after Whisper's prompt, and how many tokens there are."""
    prompt: list[int] = model.adapter.prompt("en")  # type: ignore[attr-defined]
    spaced = f" {text.strip()}" if text.strip() else ""
    label = model.tokenizer(spaced, add_special_tokens=False).input_ids
    label = label[: model.hf.config.max_target_positions - len(prompt)]
    if not label:
        return 0.0, 0
    inputs = model.inputs(clip, tokens=[*prompt, *label])
    logits = model.run(inputs, interventions).logits[0, len(prompt) - 1 : -1].double()
    chosen = logits.log_softmax(-1).gather(1, torch.tensor(label, device=logits.device)[:, None])
    return -float(chosen.sum()), len(label)
