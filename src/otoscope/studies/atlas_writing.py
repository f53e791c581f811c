"""What a decoder writes in an atlas, token by token: sentences, the same with timestamps, repetitions, and sounds without words.

Each run teacher-forces a text, so that what is about to be written at each position is known. A repetition (a sentence twice,
over its own sound) is compared, at the same positions and tokens, with runs in which another sentence was written before:
only what came before differs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from otoscope.audio.clip import Clip
from otoscope.engine.model import Model
from otoscope.errors import TaskError
from otoscope.methods.frames import within_window
from otoscope.models.inputs import Inputs
from otoscope.studies.atlas_material import FEWEST, Family, Piece

#: tokens of each half of a repetition
_HALF = 8
_FEWEST_EVENTS = 10


@dataclass(frozen=True, eq=False)
class Writing:
    """One run of the decoder.

    Attributes:
        kind: ``plain``, ``timestamps``, ``repeated``, ``other before`` or ``sound``.
        piece: number of the recording.
        inputs: one item.
        start: first position that belongs to the text; position ``start - 1`` writes it.
    """

    kind: str
    piece: int
    inputs: Inputs
    start: int

    @property
    def tokens(self) -> Int[np.ndarray, " pos"]:
        """Decoder tokens."""
        assert self.inputs.tokens is not None
        return self.inputs.tokens[0].cpu().numpy()


@dataclass(frozen=True, eq=False)
class TokenRows:
    """Positions of all runs, in order.

    Attributes:
        run: number of the run.
        position: in the decoder.
        onset: whether the next token begins a word; False where nothing more is written.
        end: whether the next token is the end.
        stamp: whether the next token is a timestamp.
        text: whether the position writes the text (or its end).
        second: whether the position is in the second half of a repetition or of its control.
    """

    run: Int[np.ndarray, " row"]
    position: Int[np.ndarray, " row"]
    onset: Bool[np.ndarray, " row"]
    end: Bool[np.ndarray, " row"]
    stamp: Bool[np.ndarray, " row"]
    text: Bool[np.ndarray, " row"]
    second: Bool[np.ndarray, " row"]


def writings(model: Model, found: list[Piece], n_repeated: int = 24) -> list[Writing]:
    """The runs of a decoder over the pieces.

    Raises:
        TaskError: the model has no tokenizer.
    """
    if model.tokenizer is None:
        raise TaskError(f"{model.name} has no tokenizer beside its weights, so nothing can be written with it.")
    prompt, end = model.prompt(), int(model.hf.config.eos_token_id)
    most = int(model.hf.config.max_target_positions) - len(prompt) - 4
    made: list[Writing] = []
    said: dict[int, list[int]] = {}
    stamps = first_timestamp(model)
    for i, piece in enumerate(found):
        clip = within_window(model, piece.clip)
        if piece.kind == "sound":
            made.append(Writing("sound", i, model.inputs(clip, tokens=prompt), len(prompt)))
        if piece.kind != "speech" or not clip.text:
            continue
        text = model.encode(_sentence(clip))[len(prompt) :][:most]
        said[i] = text
        made.append(Writing("plain", i, model.inputs(clip, tokens=[*prompt, *text, end]), len(prompt)))
        if stamps is not None:
            last = stamps + min(round(clip.duration / 0.02), 1500)
            timed = [*prompt[:-1], stamps, *text, last, end]
            made.append(Writing("timestamps", i, model.inputs(clip, tokens=timed), len(prompt) - 1))
    able = [i for i, text in said.items() if len(text) >= _HALF][:n_repeated]
    for k, i in enumerate(able):
        clip, again = within_window(model, found[i].clip), said[i][:_HALF]
        other = said[able[(k + 1) % len(able)]][:_HALF]
        if other == again:
            continue
        for kind, before in (("repeated", again), ("other before", other)):
            made.append(Writing(kind, i, model.inputs(clip, tokens=[*prompt, *before, *again]), len(prompt)))
    return made


def _sentence(clip: Clip) -> str:
    """The transcript as Whisper writes: corpora give capitals, which it spells letter by letter."""
    text = clip.text or ""
    return text.capitalize() if text.isupper() else text


def first_timestamp(model: Model) -> int | None:
    """The token ``<|0.00|>``: the one after ``<|notimestamps|>``; None where the model has none."""
    none = getattr(model.hf.generation_config, "no_timestamps_token_id", None)
    return None if none is None or none + 1500 >= model.hf.config.vocab_size else none + 1


def token_rows(model: Model, runs: list[Writing]) -> TokenRows:
    """All positions of all runs."""
    end, stamps = int(model.hf.config.eos_token_id), first_timestamp(model)
    columns: dict[str, list[np.ndarray]] = {name: [] for name in TokenRows.__annotations__}
    for i, run in enumerate(runs):
        tokens = run.tokens
        n = len(tokens) - (run.kind in ("plain", "timestamps"))  # nothing is asked of the end token's own position
        following = np.append(tokens[1:], -1)[:n]
        position = np.arange(n)
        text = position >= run.start - 1
        is_end = following == end
        stamp = (following >= stamps) if stamps is not None else np.zeros(n, bool)
        starts = np.array([t >= 0 and t < end and model.tokenizer.decode([int(t)])[:1] == " " for t in following])
        columns["run"].append(np.full(n, i))
        columns["position"].append(position)
        columns["onset"].append(starts & text)
        columns["end"].append(is_end & text)
        columns["stamp"].append(stamp & text)
        columns["text"].append(text)
        columns["second"].append(position >= run.start + _HALF)
    return TokenRows(**{name: np.concatenate(values) for name, values in columns.items()})


def token_families(runs: list[Writing], rows: TokenRows) -> list[Family]:
    """The families of labels of a decoder's positions."""
    kind = np.array([run.kind for run in runs])[rows.run]
    plain = (kind == "plain") & rows.text
    inner = plain & ~rows.end
    timed = (kind == "timestamps") & rows.text
    again = np.isin(kind, ("repeated", "other before")) & rows.second
    asked = np.isin(kind, ("plain", "sound")) & (rows.position == np.array([r.start for r in runs])[rows.run] - 1)
    made = [
        Family("word onset", "shift", *_label(inner, "word onset", rows.onset)),
        Family("end of speech", "shift", *_label(plain, "end of speech", rows.end)),
        Family("timestamps", "shift", *_label(timed, "timestamp", rows.stamp)),
        Family("repetition", "exchange", *_label(again, "repetition", kind == "repeated")),
        Family("sound", "exchange", *_label(asked, "no speech", kind == "sound")),
    ]
    return [family for family in made if family.labels]


def _label(
    where: Bool[np.ndarray, " row"], name: str, value: Bool[np.ndarray, " row"]
) -> tuple[Int[np.ndarray, " row"], dict[str, Float[np.ndarray, " row"]]]:
    there = value[where].astype(float)
    enough = len(there) >= FEWEST and min(there.sum(), len(there) - there.sum()) >= _FEWEST_EVENTS
    return np.flatnonzero(where), {name: there} if enough else {}
