"""AudioSAEBench: every measure of a dictionary, of the trivial rivals beside it, and whether the measure can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from otoscope.audio.clip import Clip
from otoscope.engine.model import Model
from otoscope.errors import RunError
from otoscope.runs import Claim
from otoscope.sae.dictionary import Dictionary
from otoscope.sae.measures.alignment import alignment
from otoscope.sae.measures.battery import Numbers, Settings, better, take_all
from otoscope.sae.measures.behaviour import Plain, behaviour, plain
from otoscope.sae.measures.frames import Frames, Reading, Sparse, csr
from otoscope.sae.measures.phone_classes import english
from otoscope.sae.measures.planted import PlantedConfig
from otoscope.sae.measures.rivals import components, random_dictionary, raw, read_with
from otoscope.sae.measures.stability import stability
from otoscope.sae.measures.trust import Trust, trust_in_all
from otoscope.stats import Interval
from otoscope.studies.outcome import Step
from otoscope.studies.sae_eval_model import ASKED, TAKES, Rows, Setting, Subject, Taken
from otoscope.studies.sae_eval_packing import as_data, numbers_of, packed, plain_trust, trust_of, value_of

#: rivals in the order of the tables, and what they are
RIVALS = {
    "random": "random frozen decoder, as many features and as many active",
    "raw": "the activations' own channels",
    "pca": "principal components, as many as features are active per frame",
    "ica": "independent components, as many",
}
#: what is measured of dictionaries only, and in which direction it is better
EXTRA = {
    "stability": "more", "stability_coverage": "more", "stability_cosine": "more", "wer": "less", "wer_delta": "less",
    "ce_delta": "less", "ce_recovered": "more", "aligned": "more", "aligned_r": "more", "across": "more", "across_r": "more",
    "selectivity": "more", "erasing_ce": "less", "erasing_wer": "less", "sounds_words": "less", "sounds_wer": "less",
    "disentangle": "more", "cause": "more", "isolate": "more", "answer_accuracy": "more", "answer_delta": "more",
    "answer_recovered": "more",
}  # fmt: skip


@dataclass(frozen=True)
class EvalConfig:
    """What is computed.

    Attributes:
        frames: frames at most, of whole recordings.
        clips: recordings with a transcript on which behaviour is measured; 0 for none.
        worlds: planted worlds on which every measure is tried.
        planted: how they are made.
        random_steps: training steps of the random dictionary.
        n_resamples: of the intervals.
        probe_rows: frames that a probe sees at most.
        seed: of every draw.
        measures: of ``ASKED``, which edit the running model and take minutes each; none by default.
        features: that selectivity ablates.
        pairs: minimal pairs that are spoken.
        answers: pairs of spoken digits.
    """

    frames: int = 20_000
    clips: int = 16
    worlds: int = 3
    planted: PlantedConfig = field(default_factory=PlantedConfig)
    random_steps: int = 500
    n_resamples: int = 1000
    probe_rows: int = 4000
    seed: int = 0
    measures: tuple[str, ...] = ()
    features: int = 8
    pairs: int = 24
    answers: int = 12

    def __post_init__(self) -> None:
        if odd := [name for name in self.measures if name not in ASKED]:
            raise RunError(f"there is no measure '{odd[0]}' to ask for: choose of {', '.join(ASKED)}.")

    @property
    def settings(self) -> Settings:
        """The same, as the measures take it."""
        return Settings(self.n_resamples, self.seed, self.probe_rows)


@dataclass(frozen=True, eq=False)
class Behaving:
    """The model whose activations they are, with recordings to hear.

    Attributes:
        model, site: whose activations they are.
        clips, texts: recordings and what is said in them.
        numbers: of these recordings among the frames, so that features can be chosen on others.
        sounds: recordings in which nobody speaks.
        data: folder of recordings of spoken digits.
    """

    model: Model
    site: str
    clips: Sequence[Clip]
    texts: Sequence[str]
    numbers: Sequence[int] = ()
    sounds: Sequence[Clip] = ()
    data: Path | None = None


@dataclass(frozen=True, eq=False)
class Across:
    """What a dictionary of another model or layer makes of the same frames: its name, its codes, and which of the bench's frames
    they are of (those that both have)."""

    name: str
    codes: Sparse
    rows: Int[np.ndarray, " common"]


@dataclass(frozen=True, eq=False)
class Found:
    """Everything the bench found.

    Attributes:
        about: what was measured: the dictionary and the store in plain data.
        numbers: of the dictionary.
        rivals: rival -> its numbers.
        seeds: the same numbers of further trainings, without intervals.
        trust: number -> whether it ranks planted dictionaries.
        behaves: whether behaviour was measured.
        tables: measure -> its rows, of those that have more to say than numbers.
        across: name of the other model's dictionary that features were matched with.
    """

    about: Mapping[str, Any]
    numbers: Numbers
    rivals: Mapping[str, Numbers]
    seeds: Sequence[Mapping[str, float]] = ()
    trust: Mapping[str, Trust] = field(default_factory=dict)
    behaves: bool = False
    tables: Mapping[str, Rows] = field(default_factory=dict)
    across: str | None = None

    def verdict(self, name: str) -> str:
        """Whether a number is reliable; of ``l0.vowel`` and the like, what is known of ``l0``."""
        if name in self.trust:
            return self.trust[name].verdict
        head = name.split(".")[0]
        if name.startswith("probe."):
            return "not tested"
        return self.trust[head].verdict if head in self.trust else "not tested"

    @property
    def unreliable(self) -> list[str]:
        """Numbers that ranked planted dictionaries wrongly."""
        return [name for name in self.numbers if self.verdict(name) == "unreliable"]


def study(
    dictionaries: Sequence[Dictionary],
    frames: Frames,
    about: Mapping[str, Any],
    config: EvalConfig,
    behaving: Behaving | None = None,
    fit_on: Frames | None = None,
    step: Step = lambda key, compute: compute(),
    progress: Callable[[int, int], None] | None = None,
    notify: Callable[[str], None] = lambda line: None,
    across: Across | None = None,
) -> Found:
    """Measure the first dictionary, its rivals, and the stability over all.

    Args:
        dictionaries: trainings that differ in their seed; the first is the one that is measured with intervals.
        frames: to measure on.
        about: what is measured, in plain data.
        config: what is computed.
        behaving: the model and recordings; None leaves behaviour out.
        fit_on: frames that the rivals learn from; None: those that are measured on.
        step: stores and finds results.
        progress, notify: told what happens.
        across: a dictionary of another model to match the first one's features with.
    """
    notify("trying every measure on planted features")
    trust = trust_of(
        step("trust", lambda: plain_trust(trust_in_all(range(config.worlds), config.planted, progress=progress)))
    )
    learn = (fit_on or frames).x
    first = dictionaries[0]
    readings = [read_with(d, frames.x) for d in dictionaries]
    k = max(1, round(readings[0].codes.nnz / len(frames.x)))
    about = {**about, "rank": k}
    random = [
        random_dictionary(learn, first.config.n_features, k, steps=config.random_steps, seed=config.seed + 1000 + i)
        for i in range(2)
    ]
    others = {
        "random": lambda: read_with(random[0], frames.x), "raw": lambda: raw(frames.x),
        "pca": lambda: components(frames.x, k, "pca"), "ica": lambda: components(frames.x, k, "ica", config.seed),
    }  # fmt: skip
    numbers = _measured("dictionary", frames, lambda: readings[0], config, step, notify)
    rivals = {name: _measured(name, frames, made, config, step, notify) for name, made in others.items()}
    if len(readings) > 1:
        notify("matching the features of the trainings")
        numbers |= numbers_of(step("stability", lambda: packed(_stability(readings, frames, config))))
    two = [read_with(r, frames.x) for r in random]
    rivals["random"] |= numbers_of(step("stability random", lambda: packed(_stability(two, frames, config))))
    if across is not None:
        notify(f"matching the features with those of {across.name}")
        for name, made, into in (("dictionary", readings[0], numbers), ("random", two[0], rivals["random"])):
            into |= numbers_of(
                step(
                    f"across {name}",
                    lambda m=made: packed(_aligned("across", m, across.codes, frames, config, across.rows)),
                )
            )
    seeds = [
        {name: value_of(v) for name, v in _measured(f"seed {i}", frames, lambda r=r: r, config, step, notify).items()}
        for i, r in enumerate(readings[1:], 1)
    ]
    if behaving is not None and behaving.clips:
        notify("letting the model write as it is")
        before = [Plain(*row) for row in step("plain", lambda: [list(p) for p in _plain_behaviour(behaving)])]
        for name, made, into in (("dictionary", first, numbers), ("random", random[0], rivals["random"])):
            notify(f"letting it write with the frames rebuilt: {name}")
            into |= numbers_of(
                step(f"behaviour {name}", lambda m=made: packed(_behaves(behaving, before, m, config, progress)))
            )
    tables: dict[str, Rows] = {}
    if behaving is not None and behaving.clips and config.measures:
        subjects = [Subject("dictionary", first, readings[0]), Subject("random", random[0], two[0])]
        setting = _setting(behaving, before, frames, config, progress)
        for name in config.measures:
            notify(f"asking the model: {name}")
            taken = step(f"asked {name}", lambda n=name: _as_step(TAKES[n](setting, subjects)))
            for subject, own in taken.items():
                into = numbers if subject == "dictionary" else rivals[subject]
                into |= numbers_of(own["numbers"])
                tables.setdefault(name, []).extend(own["rows"])
    tables = {name: rows for name, rows in tables.items() if rows}
    behaves = behaving is not None and bool(behaving.clips)
    return Found(about, numbers, rivals, seeds, trust, behaves, tables, across.name if across else None)


def direction(name: str) -> str:
    """Whether more of a number is better, less, or neither."""
    return EXTRA.get(name) or EXTRA.get(name.split(".")[0]) or better(name)


def metrics(found: Found) -> dict[str, Interval | float]:
    """Flat: each number of the dictionary, and again as ``<name>.<rival>``; over trainings ``<name>.seeds_mean``."""
    flat: dict[str, Interval | float] = dict(found.numbers)
    for rival, numbers in found.rivals.items():
        flat |= {f"{name}.{rival}": value for name, value in numbers.items()}
    if found.seeds:
        for name in found.seeds[0]:
            values = [value_of(found.numbers[name]), *(s[name] for s in found.seeds)]
            flat |= {f"{name}.seeds_mean": float(np.mean(values)), f"{name}.seeds_sd": float(np.std(values, ddof=1))}
    judged = [name for name in found.trust if found.trust[name].verdict in ("reliable", "unreliable")]
    flat["measures.reliable"] = sum(found.trust[name].verdict == "reliable" for name in judged)
    flat["measures.judged"] = len(judged)
    return flat


def bench(found: Found, claims: Sequence[Claim] = ()) -> dict[str, Any]:
    """The bench as data (``saebench.json``), with what is claimed; its schema is ``sae_eval.schema.json``."""
    subjects = {"dictionary": found.numbers, **found.rivals}
    return {
        "schema": 1,
        "about": dict(found.about),
        "subjects": {
            subject: {name: as_data(value) for name, value in numbers.items()} for subject, numbers in subjects.items()
        },
        "seeds": [dict(s) for s in found.seeds],
        "claims": [claim.to_json() for claim in claims],
        "tables": {name: [dict(row) for row in rows] for name, rows in found.tables.items()},
        "measures": {
            name: {
                "better": direction(name), "verdict": found.verdict(name),
                "planted": dict(found.trust[name].values) if name in found.trust else None,
            }
            for name in found.numbers
        },
    }  # fmt: skip


def _measured(
    name: str,
    frames: Frames,
    made: Callable[[], Reading],
    config: EvalConfig,
    step: Step,
    notify: Callable[[str], None],
) -> Numbers:
    def compute() -> dict[str, list[float]]:
        notify(f"measuring: {name}")
        classes = english(frames.phone.names)
        always = name in ("raw", "pca", "ica")
        return packed(take_all(frames, made(), classes, config.settings, always_active=always))

    return numbers_of(step(f"numbers {name}", compute))


def _stability(readings: Sequence[Reading], frames: Frames, config: EvalConfig) -> Numbers:
    """Mean over all pairs of trainings; the interval is that of the first pair, shifted to the mean."""
    pairs = [(a, b) for i, a in enumerate(readings) for b in readings[i + 1 :]]
    found = []
    for a, b in pairs:
        assert a.decoder is not None
        assert b.decoder is not None
        few = min(config.n_resamples, 300)
        found.append(stability(a.codes, b.codes, frames.utterance, a.decoder, b.decoder, n_resamples=few))
    firing = found[0].firing
    mean = float(np.mean([f.firing.value for f in found]))
    shift = mean - firing.value
    return _aligned("aligned", readings[0], readings[1].codes, frames, config) | {
        "stability": firing._replace(value=mean, low=firing.low + shift, high=firing.high + shift),
        "stability_coverage": float(np.mean([f.coverage for f in found])),
        "stability_cosine": float(np.mean([f.writing for f in found])),
    }


def _aligned(
    name: str,
    reading: Reading,
    other: Sparse,
    frames: Frames,
    config: EvalConfig,
    rows: Int[np.ndarray, " common"] | None = None,
) -> Numbers:
    """Features of the first that follow the sound as one of the other does, on all frames or on some."""
    where = np.arange(len(frames.x)) if rows is None else rows
    phone = frames.phone._replace(codes=frames.phone.codes[where])
    found = alignment(
        csr(reading.codes[where]), other, frames.utterance[where], phone, n_resamples=min(config.n_resamples, 300),
        seed=config.seed,
    )  # fmt: skip
    return {
        name: found.aligned, f"{name}_r": found.correlation, f"{name}_null": found.null,
        f"{name}_purity": found.pure_aligned, f"{name}_rest_purity": found.pure_rest,
    }  # fmt: skip


def _setting(
    behaving: Behaving,
    before: Sequence[Plain],
    frames: Frames,
    config: EvalConfig,
    progress: Callable[[int, int], None] | None,
) -> Setting:
    search = ~np.isin(frames.utterance, list(behaving.numbers))
    # with few recordings, features are chosen on those that are asked about as well
    search = search if search.mean() >= 0.2 else np.ones_like(search)
    return Setting(
        behaving.model, behaving.site, behaving.clips, behaving.texts, before, frames, search, behaving.sounds,
        behaving.data, config.features, config.pairs, config.answers, config.n_resamples, config.seed, progress,
    )  # fmt: skip


def _as_step(taken: Mapping[str, Taken]) -> dict[str, Any]:
    return {name: {"numbers": packed(numbers), "rows": rows} for name, (numbers, rows) in taken.items()}


def _plain_behaviour(behaving: Behaving) -> list[Plain]:
    return plain(behaving.model, behaving.site, behaving.clips, behaving.texts)


def _behaves(
    behaving: Behaving,
    before: Sequence[Plain],
    dictionary: Dictionary,
    config: EvalConfig,
    progress: Callable[[int, int], None] | None,
) -> Numbers:
    @torch.no_grad()
    def rebuild(x: torch.Tensor) -> torch.Tensor:
        return dictionary.decode(dictionary.encode_sparse(x.to(dictionary.decoder))).to(x)

    found = behaviour(
        behaving.model, behaving.site, behaving.clips, behaving.texts, before, rebuild, progress=progress,
        n_resamples=config.n_resamples, seed=config.seed,
    )  # fmt: skip
    return dict(found._asdict())
