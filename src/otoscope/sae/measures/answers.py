"""Answer accuracy: does a model still tell spoken words apart when a site's frames are put through a dictionary?

Items of a task with a closed set of labels (digits, commands). The model's own probabilities choose: a Whisper's of each
label as the whole transcript, an audio-LLM's of each label as the answer to the task's question. Both sounds of a pair are
asked, each against all labels. Accuracy is given untouched, rebuilt, and with the frames at 0; intervals are over speakers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from otoscope.audio.clip import Clip
from otoscope.engine.intervene import Intervention, scale
from otoscope.engine.model import Model
from otoscope.methods.label_scoring import score_labels
from otoscope.models.site import Site
from otoscope.sae.measures.behaviour import Rebuild, inserted, n_valid
from otoscope.stats import Interval, bootstrap_sums
from otoscope.tasks.task import Task


class Asked(NamedTuple):
    """One sound: what is right among the labels (its number), the question for a model that is asked, and its speaker."""

    clip: Clip
    right: int
    question: str
    unit: str


class Answers(NamedTuple):
    """Shares of right answers: with the frames rebuilt, that less the untouched model's, and the untouched model's; what is kept:
    ``(rebuilt - zeroed) / (own - zeroed)``."""

    accuracy: Interval
    delta: Interval
    own: Interval
    recovered: Interval


def asked_of(task: Task) -> list[Asked]:
    """Both sounds of every item of a task with labels."""
    rows = []
    for item in task:
        for clip, text in ((item.pair.clean, item.answer), (item.pair.corrupt, item.foil)):
            if text in task.options:
                rows.append(Asked(clip, task.options.index(text), item.question, item.unit or item.pair.name))
    return rows


def plain_answers(
    model: Model, site: Site | str, asked: Sequence[Asked], labels: Sequence[str]
) -> Int[np.ndarray, "row 2"]:
    """Which label the untouched model answers, and the model with the site's frames at 0.

    Raises:
        ModelError: the model neither transcribes nor can be asked.
        TaskError: a label has no tokens, or two have the same.
    """
    found = []
    for one in asked:
        silenced = scale(site, 0.0, positions=tuple(range(n_valid(model, site, one.clip))))
        found.append([int(log_probs(model, one, labels, there).argmax()) for there in ((), (silenced,))])
    return np.array(found, np.int64).reshape(-1, 2)


def answers(
    model: Model,
    site: Site | str,
    asked: Sequence[Asked],
    labels: Sequence[str],
    before: Int[np.ndarray, "row 2"],
    rebuild: Rebuild,
    *,
    progress: Callable[[int, int], None] | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Answers:
    """Accuracy with the frames rebuilt.

    Args:
        model, site, asked, labels: as for :func:`plain_answers`.
        before: what that gave.
        rebuild: the dictionary, from frames to frames.
        progress: called with sounds done and their number.
        n_resamples, seed: of the intervals.
    """
    units = sorted({one.unit for one in asked})
    sums = np.zeros((len(units), 4))
    for i, (one, (own, zeroed)) in enumerate(zip(asked, before)):
        there = [inserted(model, site, one.clip, rebuild)]
        now = int(log_probs(model, one, labels, there).argmax())
        sums[units.index(one.unit)] += [now == one.right, own == one.right, zeroed == one.right, 1]
        if progress:
            progress(i + 1, len(asked))
    nan = float("nan")

    def interval(statistic: Callable[[np.ndarray], float]) -> Interval:
        return bootstrap_sums(sums, lambda t: statistic(t) if t[3] else nan, n_resamples, seed=seed)

    return Answers(
        interval(lambda t: float(t[0] / t[3])),
        interval(lambda t: float((t[0] - t[1]) / t[3])),
        interval(lambda t: float(t[1] / t[3])),
        interval(lambda t: float((t[0] - t[2]) / (t[1] - t[2])) if t[1] > t[2] else nan),
    )


def log_probs(
    model: Model, one: Asked, labels: Sequence[str], interventions: Sequence[Intervention] = ()
) -> Float[np.ndarray, " label"]:
    """Log-probability of every label, in nats; of a Whisper as the whole transcript, capital first and full stop or neither."""
    if model.listens_and_reads:
        return score_labels(model, (one.clip, one.question, ""), labels, interventions=interventions)[0]
    return _as_transcripts(model, one.clip, labels, interventions)


@torch.no_grad()
def _as_transcripts(
    model: Model, clip: Clip, labels: Sequence[str], interventions: Sequence[Intervention]
) -> Float[np.ndarray, " label"]:
    """``logsumexp`` over the spellings " Seven." and " seven", each with the end of the text after it.

    The sound is encoded once; all spellings share a batch of the decoder, short ones filled up behind what is read.
    """
    spellings = [[f" {label.strip().capitalize()}.", f" {label.strip()}"] for label in labels]
    prompt, end = model.prompt(), int(model.tokenizer.eos_token_id)
    paths = [[*model.tokenizer(s, add_special_tokens=False).input_ids, end] for own in spellings for s in own]
    longest = max(map(len, paths))
    tokens = torch.tensor([[*prompt, *p, *[end] * (longest - len(p))] for p in paths], device=model.adapter.device)
    inputs = model.inputs(clip, tokens=prompt)
    with model.intervene(*interventions, inputs=inputs):
        encoded = model.hf.model.encoder(inputs.features.to(model.adapter.dtype)).last_hidden_state  # type: ignore[union-attr]
    logits: Tensor = (
        model.hf(encoder_outputs=(encoded.expand(len(tokens), -1, -1),), decoder_input_ids=tokens)
        .logits.float()
        .log_softmax(-1)
    )
    start = len(prompt) - 1
    scores = torch.stack([
        logits[i, torch.arange(start, start + len(p)), torch.tensor(p)].sum() for i, p in enumerate(paths)
    ])  # fmt: skip
    return scores.view(len(labels), -1).logsumexp(1).double().cpu().numpy()
