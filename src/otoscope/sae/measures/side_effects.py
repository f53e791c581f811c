"""What an edit costs: cross-entropy of the untouched model's transcript, words got wrong, words written where none are said."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from otoscope.audio.clip import Clip
from otoscope.engine.model import Model
from otoscope.methods.wer import free_running_wer
from otoscope.models.transcribe import transcribe
from otoscope.models.wer import normaliser
from otoscope.sae.edits import scaled
from otoscope.sae.measures.behaviour import Plain, inserted
from otoscope.sae.measures.forced import Listening
from otoscope.sae.measures.frames import Reading
from otoscope.stats import Interval, bootstrap_sums

#: frames [frame, d] -> frames [frame, d]
Edit = Callable[[Float[np.ndarray, "frame d"]], Float[np.ndarray, "frame d"]]
Read = Callable[[Float[np.ndarray, "frame d"]], Reading]


def scaling(read: Read, features: Sequence[int], factor: float, *, insert: bool = False) -> Edit:
    """The edit that multiplies some features' codes, the dictionary's error kept, or (``insert``) with the reconstruction in
    place of the frames."""

    def edit(x: Float[np.ndarray, "frame d"]) -> Float[np.ndarray, "frame d"]:
        made = read(x)
        assert made.decoder is not None
        return scaled(made.rebuilt if insert else x, made.codes, made.decoder, features, factor)

    return edit


def ce_costs(
    heard: Sequence[Listening], edits: Mapping[str, Edit], *, n_resamples: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """Rise of the cross-entropy per token (nats) by each edit, intervals over recordings."""
    sums = np.zeros((len(heard), len(edits), 2))
    for u, one in enumerate(heard):
        found = one.scores([one.x, *(edit(one.x) for edit in edits.values())]).log_probs
        sums[u, :, 0] = (found[0] - found[1:]).sum(1)
        sums[u, :, 1] = found.shape[1]
    return {name: bootstrap_sums(sums[:, i], _rate, n_resamples, seed=seed) for i, name in enumerate(edits)}


def wer_cost(
    model: Model,
    site: str,
    clips: Sequence[Clip],
    texts: Sequence[str],
    before: Sequence[Plain],
    edit: Edit,
    *,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Word error rate with an edit less that without, free running, interval over recordings."""
    rows = []
    for clip, text, was in zip(clips, texts, before):
        item = free_running_wer(model, clip, text, [inserted(model, site, clip, _on_tensors(edit))]).items[0]
        rows.append([item.errors - was.errors, was.words])
    return bootstrap_sums(rows, _rate, n_resamples, seed=seed)


def writes_words(model: Model, site: str, sounds: Sequence[Clip], edit: Edit | None = None) -> list[bool]:
    """Whether the model writes a word for each sound, with an edit at work or without."""
    normalise, found = normaliser(), []
    for sound in sounds:
        there = [] if edit is None else [inserted(model, site, sound, _on_tensors(edit))]
        with model.intervene(*there):
            found.append(bool(normalise(transcribe(model, [sound])[0].text).strip()))
    return found


def share(flags: Sequence[bool], *, n_resamples: int = 1000, seed: int = 0) -> Interval:
    """Share of true ones, interval over them."""
    rows = np.array([[float(f), 1.0] for f in flags]).reshape(-1, 2)
    return bootstrap_sums(rows, _rate, n_resamples, seed=seed)


def _rate(total: Float[np.ndarray, " 2"]) -> float:
    return float(total[0] / total[1]) if total[1] else float("nan")


def _on_tensors(edit: Edit) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.as_tensor(edit(x.cpu().numpy()), dtype=x.dtype, device=x.device)
