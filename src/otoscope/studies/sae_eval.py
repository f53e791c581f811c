"""AudioSAEBench: every measure of a dictionary, of the trivial rivals beside it, and whether the measure can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from otoscope.audio.clip import Clip
from otoscope.engine.model import Model
from otoscope.sae.dictionary import Dictionary
from otoscope.sae.measures.battery import Numbers, Settings, better, take_all
from otoscope.sae.measures.behaviour import Plain, behaviour, plain
from otoscope.sae.measures.frames import Frames, Reading
from otoscope.sae.measures.phone_classes import english
from otoscope.sae.measures.planted import QUALITIES, PlantedConfig
from otoscope.sae.measures.rivals import components, random_dictionary, raw, read_with
from otoscope.sae.measures.stability import stability
from otoscope.sae.measures.trust import Trust, trust_in_all
from otoscope.stats import Interval
from otoscope.studies.outcome import Step

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
    "ce_delta": "less", "ce_recovered": "more",
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
    """

    frames: int = 20_000
    clips: int = 16
    worlds: int = 3
    planted: PlantedConfig = field(default_factory=PlantedConfig)
    random_steps: int = 500
    n_resamples: int = 1000
    probe_rows: int = 4000
    seed: int = 0

    @property
    def settings(self) -> Settings:
        """The same, as the measures take it."""
        return Settings(self.n_resamples, self.seed, self.probe_rows)


@dataclass(frozen=True, eq=False)
class Behaving:
    """The model whose activations they are, with recordings to hear."""

    model: Model
    site: str
    clips: Sequence[Clip]
    texts: Sequence[str]


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
    """

    about: Mapping[str, Any]
    numbers: Numbers
    rivals: Mapping[str, Numbers]
    seeds: Sequence[Mapping[str, float]] = ()
    trust: Mapping[str, Trust] = field(default_factory=dict)
    behaves: bool = False

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
    """
    notify("trying every measure on planted features")
    trust = _trust(
        step("trust", lambda: _plain_trust(trust_in_all(range(config.worlds), config.planted, progress=progress)))
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
        numbers |= _numbers(step("stability", lambda: _packed(_stability(readings, frames, config))))
    two = [read_with(r, frames.x) for r in random]
    rivals["random"] |= _numbers(step("stability random", lambda: _packed(_stability(two, frames, config))))
    seeds = [
        {name: _value(v) for name, v in _measured(f"seed {i}", frames, lambda r=r: r, config, step, notify).items()}
        for i, r in enumerate(readings[1:], 1)
    ]
    if behaving is not None and behaving.clips:
        notify("letting the model write as it is")
        before = [Plain(*row) for row in step("plain", lambda: [list(p) for p in _plain_behaviour(behaving)])]
        for name, made, into in (("dictionary", first, numbers), ("random", random[0], rivals["random"])):
            notify(f"letting it write with the frames rebuilt: {name}")
            into |= _numbers(
                step(f"behaviour {name}", lambda m=made: _packed(_behaves(behaving, before, m, config, progress)))
            )
    return Found(about, numbers, rivals, seeds, trust, behaving is not None and bool(behaving.clips))


def direction(name: str) -> str:
    """Whether more of a number is better, less, or neither."""
    return EXTRA.get(name) or better(name)


def metrics(found: Found) -> dict[str, Interval | float]:
    """Flat: each number of the dictionary, and again as ``<name>.<rival>``; over trainings ``<name>.seeds_mean``."""
    flat: dict[str, Interval | float] = dict(found.numbers)
    for rival, numbers in found.rivals.items():
        flat |= {f"{name}.{rival}": value for name, value in numbers.items()}
    if found.seeds:
        for name in found.seeds[0]:
            values = [_value(found.numbers[name]), *(s[name] for s in found.seeds)]
            flat |= {f"{name}.seeds_mean": float(np.mean(values)), f"{name}.seeds_sd": float(np.std(values, ddof=1))}
    judged = [name for name in found.trust if found.trust[name].verdict in ("reliable", "unreliable")]
    flat["measures.reliable"] = sum(found.trust[name].verdict == "reliable" for name in judged)
    flat["measures.judged"] = len(judged)
    return flat


def bench(found: Found) -> dict[str, Any]:
    """The bench as data (``saebench.json``); its schema is ``sae_eval.schema.json``."""
    subjects = {"dictionary": found.numbers, **found.rivals}
    return {
        "schema": 1,
        "about": dict(found.about),
        "subjects": {
            subject: {name: _as_data(value) for name, value in numbers.items()} for subject, numbers in subjects.items()
        },
        "seeds": [dict(s) for s in found.seeds],
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
        return _packed(take_all(frames, made(), classes, config.settings, always_active=always))

    return _numbers(step(f"numbers {name}", compute))


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
    return {
        "stability": firing._replace(value=mean, low=firing.low + shift, high=firing.high + shift),
        "stability_coverage": float(np.mean([f.coverage for f in found])),
        "stability_cosine": float(np.mean([f.writing for f in found])),
    }


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


def _value(number: Interval | float) -> float:
    return number.value if isinstance(number, Interval) else float(number)


def _as_data(number: Interval | float) -> dict[str, float | int | None]:
    if isinstance(number, Interval):
        return {"value": number.value, "low": number.low, "high": number.high, "n": number.n}
    return {"value": float(number), "low": None, "high": None, "n": None}


def _packed(numbers: Numbers) -> dict[str, list[float]]:
    """Numbers as a step stores them."""
    return {k: [v.value, v.low, v.high, v.n] if isinstance(v, Interval) else [float(v)] for k, v in numbers.items()}


def _numbers(packed: Mapping[str, Sequence[float | None]]) -> Numbers:
    def number(v: float | None) -> float:
        return float("nan") if v is None else float(v)

    return {
        k: Interval(number(v[0]), number(v[1]), number(v[2]), int(v[3] or 0)) if len(v) == 4 else number(v[0])
        for k, v in packed.items()
    }


def _plain_trust(trust: Mapping[str, Trust]) -> dict[str, Any]:
    return {name: {"verdict": t.verdict, **{q: list(t.values[q]) for q in QUALITIES}} for name, t in trust.items()}


def _trust(packed: Mapping[str, Any]) -> dict[str, Trust]:
    return {name: Trust({q: v[q] for q in QUALITIES}, v["verdict"]) for name, v in packed.items()}
