"""Do patched states that leave the natural set mislead? Maps over time of known changes, with the distance of each patch.

One word of a sentence is changed in many ways; each change is localised by many kinds of patch. For every window of
every map the effect is kept, and how far the states are from natural ones, in two places: the states **put in**, at the
patched site, and the states **left behind**, at the end of the encoder in the patched frames. With ``m`` the Mahalanobis distance
and the distance to the nearest natural state, each a mean over the window's frames,

    distance = max_m  mean_t m(x_t) / q99(mean of m over as many natural frames),

so that 99% of natural windows lie below 1 by each. Neither alone would do: the mean of all natural states has a
Mahalanobis distance of 0, and a step along a direction of little variance goes unseen by the nearest state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from otoscope.audio.clip import Clip
from otoscope.engine.metrics import LogitDiff
from otoscope.engine.model import Model
from otoscope.engine.patch import Patch
from otoscope.engine.plain import PlainRuns
from otoscope.engine.sweep import sweep
from otoscope.errors import ModelError
from otoscope.methods.false_localisation import judge
from otoscope.methods.natural import Departure, Measure, Natural, fit
from otoscope.models.inputs import Inputs
from otoscope.models.site import Site
from otoscope.models.transcribe import language_options, suppressed_tokens
from otoscope.studies.distance_grid import SIGMAS, Kind, end_site, sites
from otoscope.studies.distance_pairs import Sentence

#: the measures whose larger one is the distance
MEASURES: tuple[Measure, ...] = ("mahalanobis", "nearest")
#: natural states kept per site
_STATES = 4000


@dataclass(frozen=True)
class Asked:
    """The question about one corruption of a sentence: the token after the clean and after the corrupt sound, and where."""

    position: int
    answer: int
    foil: int


@dataclass(frozen=True)
class Heard:
    """What a model writes for a sentence, and the corruptions it hears as something else at the changed word.

    Attributes:
        tokens: prompt and transcript of the clean sound.
        asked: corruption -> its question.
    """

    tokens: tuple[int, ...]
    asked: dict[str, Asked] = field(default_factory=dict)


def transcript(model: Model, sentence: Sentence) -> Heard:
    """What a model writes for the clean sound, with no questions yet.

    Raises:
        ModelError: the model is no Whisper with a tokenizer.
    """
    if model.family != "whisper" or model.tokenizer is None:
        raise ModelError(
            f"{model.name} cannot be asked which word it heard where: this study needs a Whisper with its tokenizer."
        )
    special = set(model.tokenizer.all_special_ids)
    # under the prompt that `ask` reads it after: a language that was detected may be another one
    tokens = model.generate(model.inputs(sentence.clip), **language_options(model, "en"))[0]
    written = [t for t in tokens if t not in special]
    return Heard((*model.prompt(), *written))


@torch.no_grad()
def ask(model: Model, sentence: Sentence, heard: Heard, names: Sequence[str]) -> Heard:
    """Add questions about those corruptions after which the first token that differs belongs to the changed word.

    The corrupt sounds are read with the clean transcript before them: until the first token that differs, that is what
    greedy decoding of the corrupt sound has written, too.
    """
    start = len(model.prompt()) - 1
    written = heard.tokens[start + 1 :]
    if not written or not names:
        return heard
    sounds = [sentence.sounds[name][0] for name in names]
    logits = model.run(model.inputs(sounds, tokens=heard.tokens)).logits[:, start:]
    if barred := suppressed_tokens(model.hf):
        logits[..., barred] = float("-inf")
    if first := getattr(model.hf.generation_config, "begin_suppress_tokens", None):
        logits[:, 0, first] = float("-inf")
    asked = dict(heard.asked)
    for name, best in zip(names, logits.argmax(-1).tolist()):
        at = next((i for i, token in enumerate(written) if best[i] != token), None)
        if at is not None and at_word(model, written[: at + 1], sentence):
            asked[name] = Asked(start + at, written[at], best[at])
    return Heard(heard.tokens, asked)


def at_word(model: Model, tokens: Sequence[int], sentence: Sentence) -> bool:
    """Whether a transcript that ends with these tokens ends in the changed word, or with its beginning."""
    words = [_plain(w) for w in model.tokenizer.decode(list(tokens)).split()]
    words = [w for w in words if w]
    # numbers and joined words are written differently, so that the count may be off by one
    return (
        bool(words) and _plain(sentence.word.text).startswith(words[-1]) and abs(len(words) - 1 - sentence.before) <= 1
    )


def _plain(word: str) -> str:
    return "".join(c for c in word.casefold() if c.isalnum())


def natural_states(model: Model, clips: Sequence[Clip], grid: Sequence[Kind], seed: int = 0) -> Natural:
    """What is natural at the sites of a grid, from clean sounds."""
    wanted = sites(model.stacks["encoder"].n_layers, grid)
    return fit(model, [model.inputs(clip) for clip in clips], wanted, max_states=_STATES, seed=seed)


def measure(
    model: Model,
    sentence: Sentence,
    heard: Heard,
    chosen: Sequence[str],
    grid: Sequence[Kind],
    natural: Natural | None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Localise corruptions of one sentence by every kind of patch.

    Args:
        model: a Whisper.
        sentence: the sentence.
        heard: from :func:`ask`; it must ask about each of ``chosen``.
        chosen: the corruptions.
        grid: the kinds of patch.
        natural: from :func:`natural_states`; None leaves all distances NaN, and needs a grid without ``mean`` and
            ``gaussian``.
        seed: of the Gaussian noise.

    Returns:
        one row per corruption and kind, as plain values.
    """
    runs = _Runs(model, sentence, heard, chosen, grid, natural, seed)
    return [_row(found) for found in runs.maps(grid)]


@dataclass(frozen=True)
class _Map:
    """One answered map: per window its effect, and distances of what was put in and left behind."""

    sentence: Sentence
    corruption: str
    kind: Kind
    starts: Float[np.ndarray, " window"]
    ends: Float[np.ndarray, " window"]
    values: Float[np.ndarray, " window"]
    base: float
    donor: float
    put_in: Float[np.ndarray, " window"]
    left: Float[np.ndarray, " window"]
    flags: Bool[np.ndarray, " window"]


def _row(m: _Map) -> dict[str, Any]:
    """What is kept of a map."""
    span, margin = m.sentence.sounds[m.corruption][1], abs(m.donor - m.base)
    effects = (m.values - m.base) / (m.donor - m.base) if margin else np.full(len(m.values), np.nan)
    judged = judge(effects, m.starts, m.ends, span, margin)
    at = judged.named

    def named(values: np.ndarray) -> float:
        return float("nan") if at is None else float(values[at])

    return {
        "sentence": m.sentence.name, "source": m.sentence.source, "corruption": m.corruption, "kind": m.kind.name,
        "span_start": span[0], "span_end": span[1], "margin": margin, "silent": at is None, "wrong": judged.wrong,
        "alarm": judged.alarm, "false": judged.false, "effect": judged.effect, "control": judged.control,
        "chance": judged.chance, "named_start": named(m.starts), "named_end": named(m.ends),
        "distance": named(m.left), "put_in": named(m.put_in), "flagged": bool(at is not None and m.flags[at]),
        "mean_distance": float(m.left.mean()), "mean_put_in": float(m.put_in.mean()),
        "flagged_share": float(m.flags.mean()), "far_distance": m.left[judged.far].tolist(),
        "far_effect": effects[judged.far].tolist(),
    }  # fmt: skip


class _Runs:
    """The plain runs of a sentence and its corruptions, and the patches between them."""

    def __init__(
        self,
        model: Model,
        sentence: Sentence,
        heard: Heard,
        chosen: Sequence[str],
        grid: Sequence[Kind],
        natural: Natural | None,
        seed: int,
    ):
        self.model, self.sentence, self.heard, self.natural, self.seed = model, sentence, heard, natural, seed
        self.clock = model.clock("encoder", len(sentence.clip))
        self.end = end_site(model.stacks["encoder"].n_layers)
        tokens = heard.tokens[: max(heard.asked[c].position for c in chosen) + 1]
        self.inputs: dict[str, Inputs] = {"clean": model.inputs(sentence.clip, tokens=tokens)}
        self.inputs |= {c: model.inputs(sentence.sounds[c][0], tokens=tokens) for c in chosen}
        self.plain = PlainRuns(keep=len(self.inputs) + 1)
        values = self.plain.values(model.adapter, list(self.inputs.values()), _read(model, grid))
        self.states = {
            (who, str(site)): values[site][i : i + 1] for i, who in enumerate(self.inputs) for site in values.sites()
        }
        self.value, self.patches, self.per_frame = cache(self.value), cache(self.patches), cache(self.per_frame)  # fmt: skip

    # -- what is put where -----------------------------------------------------------------------------------------------

    def base(self, kind: Kind, corruption: str) -> str:
        """The run that is patched."""
        return corruption if kind.mode == "denoise" else "clean"

    def source(self, kind: Kind, corruption: str) -> str:
        """A name for what is put in: the same for every corruption where it is an ablation of the clean run."""
        if kind.value in ("donor", "half"):
            other = "clean" if kind.mode == "denoise" else corruption
            return other if kind.value == "donor" else f"half {corruption}"
        return kind.value

    def value(self, site: str, source: str) -> Float[Tensor, "1 frame d_model"]:
        """What is put in, for all frames."""
        clean = self.states["clean", site]
        if (source, site) in self.states:
            return self.states[source, site]
        if source.startswith("half "):
            return (clean + self.states[source.removeprefix("half "), site]) / 2
        if source == "zero":
            return torch.zeros_like(clean)
        assert self.natural is not None, "ablations by the mean and by noise need natural states"
        space = self.natural.space(site)
        if source == "mean":
            return torch.as_tensor(space.mean).to(clean).expand_as(clean)
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(self.seed)).to(clean)
        return clean + SIGMAS * float(space.states.std(0).mean()) * noise

    def patches(self, site: str, width: float, base: str, source: str, donor: int) -> list[Patch | None]:
        """One patch per window of time; None where it would change nothing."""
        value, there = self.value(site, source), self.states[base, site]
        same = (value == there).flatten(2).all(2)[0].tolist()
        given = None if source in self.inputs else value
        return [
            None if all(same[t] for t in w) else Patch(site, tuple(w), donor=donor, value=given)
            for w in self.clock.windows(width)
        ]

    # -- answers ---------------------------------------------------------------------------------------------------------

    def maps(self, grid: Sequence[Kind]) -> list[_Map]:
        """Every map of a grid."""
        corruptions = [c for c in self.inputs if c != "clean"]
        found = []
        for c in corruptions:
            found += self._sweep([k for k in grid if k.mode == "denoise"], c, ["clean"], [c])
        found += self._sweep([k for k in grid if k.mode == "noise"], "clean", corruptions, corruptions)
        order = {(c, k): i for i, (c, k) in enumerate((c, k) for c in corruptions for k in grid)}
        return sorted(found, key=lambda m: order[m.corruption, m.kind])

    def _sweep(self, grid: Sequence[Kind], base: str, donors: Sequence[str], asked: Sequence[str]) -> list[_Map]:
        """All maps that patch one run; an ablation is run once and read by the questions of all corruptions."""
        if not grid:
            return []
        rows: dict[tuple[str, Kind], list[Patch | None]] = {}
        for kind in grid:
            for c in asked:
                source = self.source(kind, c)
                donor = donors.index(source) if source in donors else 0
                rows[c, kind] = self.patches(kind.site, kind.width, base, source, donor)
        patches = list(dict.fromkeys(p for row in rows.values() for p in row if p is not None))
        ends: dict[Patch, Tensor] = {}

        def keep(patch: Patch, states: Tensor) -> float:
            ends[patch] = states[list(patch.positions or ())].clone()
            return 0.0

        questions = [self.heard.asked[c] for c in asked]
        metrics = [LogitDiff(q.answer, q.foil, q.position, c) for q, c in zip(questions, asked)]
        others = [self.inputs[d] for d in donors]
        result = sweep(self.model, self.inputs[base], others, patches, metrics, observe=keep, plain=self.plain)
        if result.interrupted:
            raise KeyboardInterrupt
        at = {patch: i for i, patch in enumerate(patches)}
        left = self._left(base, grid, patches, ends)
        found = []
        for (c, kind), row in rows.items():
            windows = self.clock.windows(kind.width)
            values = np.array([result.base[c] if p is None else result.values[c][at[p]] for p in row])
            distances = [left[p] if p is not None else left[kind.width, i] for i, p in enumerate(row)]
            found.append(
                _Map(
                    self.sentence, c, kind,
                    np.array([self.clock.edges(w[0])[0] for w in windows]),
                    np.array([self.clock.edges(w[-1])[1] for w in windows]),
                    values, result.base[c], float(result.donors[c][donors.index(c) if c in donors else 0]),
                    self._put_in(kind, self.source(kind, c)),
                    np.array([d for d, _ in distances]), np.array([f for _, f in distances]),
                )
            )  # fmt: skip
        return found

    # -- distances -------------------------------------------------------------------------------------------------------

    def _left(
        self, base: str, grid: Sequence[Kind], patches: Sequence[Patch], ends: dict[Patch, Tensor]
    ) -> dict[Any, tuple[float, bool]]:
        """Distance and flag of what each patch leaves behind, and, by width and window, of the unpatched run."""
        pieces: dict[Any, Tensor] = {}
        for width in {kind.width for kind in grid}:
            for i, window in enumerate(self.clock.windows(width)):
                pieces[width, i] = self.states[base, self.end][0, list(window)]
        for patch in patches:  # a patch whose row equals a plain run's is not replayed, and not observed
            pieces[patch] = ends.get(patch, self.states[base, self.end][0, list(patch.positions or ())])
        if self.natural is None:
            return dict.fromkeys(pieces, (float("nan"), False))
        scored = self.natural.score(self.end, torch.cat(list(pieces.values())))
        strange = self.natural.strangeness(self.end, scored)
        out, start = {}, 0
        for key, piece in pieces.items():
            part = slice(start, start + len(piece))
            distance = self._distance(self.end, scored.at(part))
            flag = strange[part].mean() > self.natural.threshold(self.end, "any", len(piece))
            out[key] = float(distance), bool(flag)
            start += len(piece)
        return out

    def _put_in(self, kind: Kind, source: str) -> Float[np.ndarray, " window"]:
        """Distance of what is put into each window of a map, at the patched site."""
        windows = self.clock.windows(kind.width)
        if self.natural is None:
            return np.full(len(windows), np.nan)
        frames = self.per_frame(kind.site, source)
        return np.array([self._distance(kind.site, frames.at(list(w))) for w in windows])

    def per_frame(self, site: str, source: str) -> Departure:
        """How far each valid frame of what is put in departs."""
        assert self.natural is not None
        return self.natural.score(site, self.value(site, source)[0, : self.clock.n_valid])

    def _distance(self, site: str, window: Departure) -> float:
        """The distance of one window of frames."""
        assert self.natural is not None
        width = len(window.mahalanobis)
        return max(float(getattr(window, m).mean()) / self.natural.threshold(site, m, width) for m in MEASURES)


def _read(model: Model, grid: Sequence[Kind]) -> set[Site]:
    """All that the sweeps of a grid will read of a plain run, so that every sound is run once."""
    encoder, decoder = (model.stacks[s].n_layers for s in ("encoder", "decoder"))
    wanted = {Site.parse(site) for site in sites(encoder, grid)}
    wanted |= {Site("encoder", i, "resid_pre") for i in range(encoder)} | {Site("decoder", decoder - 1, "resid_post")}
    return wanted | {Site("encoder", site.layer, "resid_mid") for site in wanted if site.point == "mlp_out"}
