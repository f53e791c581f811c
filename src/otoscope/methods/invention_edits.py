"""What could stop a Whisper from inventing words: heads, a direction, one neuron more; each found by a search.

    heads       each head of the decoder is silenced alone; its effect is how much the margin of the end token over the best
                text token grows at the start, on sounds without speech, less what it grows by on speech. The heads with
                the largest effects are damped (Calm-Whisper, 2505.12969, masks and fine-tunes such heads).
    direction   mean state at the start on sounds without speech less that on speech, added everywhere.
    neuron      reads the direction that a logistic probe finds between the states in which nothing more should be written
                and those in which a word should, and writes the end token's direction. It does nothing where it does not fire.

The states are those of the decoder's last layer. A Whisper may not end a text that has not begun, so the neuron's output is
the end token's row of the unembedding and, weaker, that of a full stop, which holds no word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from otoscope.engine.intervene import Intervention, scale
from otoscope.engine.model import Model
from otoscope.methods.invention import Ears
from otoscope.methods.whisper_writing import whisper_prompt

#: weight of the squared norm in the probe (standardised features, mean over rows), fixed before any report
PENALTY = 0.1
#: states of one text that the probe learns from, at most
MOST = 12
#: weight of the full stop in what the neuron writes
STOP = 0.6


@dataclass(frozen=True, eq=False)
class Candidate:
    """One intervention at one strength.

    Attributes:
        family: ``heads``, ``direction`` or ``neuron``.
        strength: along the family's frontier; what it means is the family's.
        edits, vectors: as :class:`otoscope.engine.fix.Fix` takes them.
        control: whether it is the family's null: random heads, a random direction, a probe of shuffled labels.
    """

    family: str
    strength: float
    edits: tuple[dict[str, Any], ...]
    vectors: dict[str, Tensor] = field(default_factory=dict)
    control: bool = False

    @property
    def label(self) -> str:
        """Its name in tables."""
        return f"{self.family}{' (control)' if self.control else ''} {self.strength:g}"


def last_layer(model: Model) -> str:
    """The site whose states are read and written."""
    return f"decoder.{model.stacks['decoder'].n_layers - 1}.resid_post"


@torch.no_grad()
def states(
    ears: Ears, which: Sequence[int], texts: Sequence[Sequence[int]], sites: Sequence[str]
) -> list[dict[str, Float[np.ndarray, "token d"]]]:
    """States of the decoder, from the last token of the prompt to the last of each text."""
    prompt = whisper_prompt(ears.model, ears.language)
    made = []
    for i, text in zip(which, texts):
        kept: dict[str, np.ndarray] = {}

        def peek(site: str, kept: dict[str, np.ndarray] = kept) -> Intervention:
            def change(x: Tensor, _: Tensor) -> Tensor:
                kept[site] = x[0, len(prompt) - 1 :].float().cpu().numpy()
                return x

            return Intervention(site, change, name="read")

        tokens = torch.tensor([[*prompt, *text]], device=ears.model.adapter.device)
        with ears.model.intervene(*(peek(site) for site in sites)):
            ears.model.hf(decoder_input_ids=tokens, encoder_outputs=(ears.encoded([i]),))
        made.append(kept)
    return made


@torch.no_grad()
def end_margins(
    ears: Ears, which: Sequence[int], changes: Sequence[Sequence[Intervention]]
) -> Float[np.ndarray, "change sound"]:
    """Logit of the end token less that of the best text token after the prompt, under each set of changes.

    What the encoder gives to the cross-attention is computed once for all changes.
    """
    from transformers.cache_utils import DynamicCache, EncoderDecoderCache

    hf, end = ears.model.hf, ears.model.hf.generation_config.eos_token_id
    prompt = whisper_prompt(ears.model, ears.language)
    barred = sorted({end, *(hf.generation_config.suppress_tokens or ())})
    columns = []
    for i in which:
        tokens = torch.tensor([prompt], device=ears.model.adapter.device)
        heard = (ears.encoded([i]),)
        crossed = hf(
            decoder_input_ids=tokens, encoder_outputs=heard, use_cache=True
        ).past_key_values.cross_attention_cache
        column = []
        for edits in changes:
            cache = EncoderDecoderCache(DynamicCache(), crossed)
            with ears.model.intervene(*edits):
                logits = (
                    hf(decoder_input_ids=tokens, encoder_outputs=heard, past_key_values=cache, use_cache=True)
                    .logits[0, -1]
                    .float()
                )
            of_end = logits[end].item()
            logits[barred] = -torch.inf
            column.append(of_end - logits[:end].max().item())
        columns.append(column)
    return np.array(columns).T


def head_effects(ears: Ears, quiet: Sequence[int], spoken: Sequence[int]) -> dict[tuple[str, int], float]:
    """How much silencing a head moves the start towards the end token where nobody speaks, less where somebody does.

    Returns:
        (site, head) -> difference of mean margins, logits; every head of the decoder's self- and cross-attention.
    """
    spec = ears.model.stacks["decoder"]
    heads = [
        (f"decoder.{layer}.{point}", head)
        for layer in range(spec.n_layers)
        for point in ("z", "cross_z")
        for head in range(spec.n_heads)
    ]
    changes: list[list[Intervention]] = [[], *([scale(site, 0.0, heads=(head,))] for site, head in heads)]
    gains = []
    for which in (quiet, spoken):
        margins = end_margins(ears, which, changes)
        gains.append((margins[1:] - margins[0]).mean(1))
    return {head: float(q - s) for head, q, s in zip(heads, *gains)}


def damped(
    effects: dict[tuple[str, int], float], counts: Sequence[int], seed: int = 0, factor: float = 0.0
) -> list[Candidate]:
    """The heads with the largest effects, so many at a time, and as many random other heads as a control."""
    ranked = sorted(effects, key=lambda head: -effects[head])
    made = []
    for n in counts:
        chosen = ranked[:n]
        made.append(Candidate("heads", n, _head_edits(chosen, factor)))
    others = ranked[max(counts) :]
    n = max(counts)
    drawn = [others[i] for i in np.random.default_rng(seed).permutation(len(others))[:n]]
    return [*made, Candidate("heads", n, _head_edits(drawn, factor), control=True)]


def steered(
    site: str, quiet: Float[np.ndarray, "sound d"], spoken: Float[np.ndarray, "sound d"], strengths: Sequence[float],
    seed: int = 0,
) -> list[Candidate]:  # fmt: skip
    """The difference of mean states, at several strengths, and a random direction of its norm at the greatest."""
    vector = quiet.mean(0) - spoken.mean(0)
    random = np.random.default_rng(seed).standard_normal(len(vector))
    random *= np.linalg.norm(vector) / np.linalg.norm(random)
    made = []
    for direction, control in ((vector, False), (random, True)):
        tensor = torch.tensor(direction, dtype=torch.float32)
        for strength in strengths if not control else [max(strengths)]:
            edit = {"op": "add", "site": site, "vector": "direction", "strength": float(strength)}
            made.append(Candidate("direction", float(strength), (edit,), {"direction": tensor}, control))
    return made


@dataclass(frozen=True, eq=False)
class Reader:
    """A direction that tells the states in which nothing more should be written from the others.

    Attributes:
        weights: ``[d]``.
        bias: so that the medians of the two sides are read as +1 and -1.
        level: mean norm of the states, the unit of what a neuron writes.
    """

    weights: Float[np.ndarray, " d"]
    bias: float
    level: float

    def __call__(self, x: Float[np.ndarray, "row d"]) -> Float[np.ndarray, " row"]:
        """What is read: +1 is the median of "nothing more", -1 that of "a word follows"."""
        return x @ self.weights + self.bias


def reader(
    quiet: Sequence[Float[np.ndarray, "token d"]],
    spoken: Sequence[Float[np.ndarray, "token d"]],
    shuffled: int | None = None,
) -> Reader:
    """Fit it by logistic regression; every sound, and each side as a whole, counts the same.

    Args:
        quiet: states of sounds without speech.
        spoken: states of speech in which a word follows.
        shuffled: seed by which the sounds' labels are shuffled, for a control.
    """
    from sklearn.linear_model import LogisticRegression

    texts = [*(x[:MOST] for x in quiet), *spoken]
    labels = np.array([1] * len(quiet) + [0] * len(spoken))
    if shuffled is not None:
        labels = np.random.default_rng(shuffled).permutation(labels)
    rows = np.concatenate(texts)
    y = np.repeat(labels, [len(x) for x in texts])
    share = np.repeat([1 / len(x) for x in texts], [len(x) for x in texts])
    weight = share * np.where(y == 1, 0.5 / share[y == 1].sum(), 0.5 / share[y == 0].sum())
    mean, spread = rows.mean(0), rows.std(0) + 1e-6
    width = np.sqrt(rows.shape[1])
    fitted = LogisticRegression(C=1 / PENALTY, max_iter=2000).fit(
        (rows - mean) / spread / width, y, sample_weight=weight
    )
    weights = fitted.coef_[0] / spread / width
    quiet_end, spoken_end = (_median(rows[y == side] @ weights, share[y == side]) for side in (1, 0))
    gap, middle = max((quiet_end - spoken_end) / 2, 1e-9), (quiet_end + spoken_end) / 2
    return Reader(weights / gap, float(-middle / gap), float(np.linalg.norm(rows, axis=1).mean()))


def _median(values: Float[np.ndarray, " row"], weight: Float[np.ndarray, " row"]) -> float:
    order = np.argsort(values)
    return float(values[order][np.searchsorted(np.cumsum(weight[order]), weight.sum() / 2)])


def end_direction(model: Model) -> Float[np.ndarray, " d"]:
    """What makes the end token likeliest, and a full stop where the end is not allowed; of norm 1.

    Rows of the unembedding less their mean, seen through the final norm's gain.
    """
    hf, end = model.hf, model.hf.generation_config.eos_token_id
    rows = hf.get_output_embeddings().weight.detach().float()
    gain = hf.get_decoder().layer_norm.weight.detach().float()
    rows = (rows - rows[:end].mean(0)) * gain
    stop = model.tokenizer.convert_tokens_to_ids(".") if model.tokenizer is not None else None
    # over their squared norms, so that the logits rise by 1 and by STOP whatever the norms of the two rows are
    vector = rows[end] / rows[end].square().sum()
    if isinstance(stop, int) and 0 <= stop < end:
        vector = vector + STOP * rows[stop] / rows[stop].square().sum()
    return (vector / vector.norm()).cpu().numpy()


def neurons(
    site: str, read: Reader, write: Float[np.ndarray, " d"], thresholds: Sequence[float], strength: float,
    control: bool = False,
) -> list[Candidate]:  # fmt: skip
    """The neuron with several thresholds (what is read when it begins to fire); the lower, the more it fires.

    Args:
        site: where it reads and writes.
        read: what it reads.
        write: ``[d]``, norm 1.
        thresholds: in the reader's unit, between -1 (speech) and +1 (none).
        strength: of what it writes when it fires fully, in mean norms of the states.
        control: whether ``read`` is the control's.
    """
    made = []
    for threshold in thresholds:
        edit = {
            "op": "neuron", "site": site, "read": "read", "bias": read.bias - threshold, "write": "write",
            "strength": strength,
        }  # fmt: skip
        vectors = {
            "read": torch.tensor(read.weights, dtype=torch.float32),
            "write": torch.tensor(read.level * write, dtype=torch.float32),
        }
        made.append(Candidate("neuron", -float(threshold), (edit,), vectors, control))
    return made


def _head_edits(heads: Sequence[tuple[str, int]], factor: float) -> tuple[dict[str, Any], ...]:
    sites = sorted({site for site, _ in heads})
    return tuple(
        {"op": "scale", "site": site, "heads": sorted(h for s, h in heads if s == site), "factor": factor}
        for site in sites
    )
