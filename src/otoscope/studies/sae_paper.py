"""Does a temporal loss help dictionaries of sound, or is it that neighbouring frames overlap? Claims and numbers.

TopK, BatchTopK, Matryoshka and temporal (T-SAE) dictionaries of one size and one number of active features, several trainings
each, at two layers. Beside the temporal loss stand its controls: the same dictionary without it (``alpha = 0``), with partners
drawn at random (shuffled time), and with partners further away. Against overlap as the explanation stand dictionaries without
the loss whose codes are averaged over neighbouring frames, with as many active features.

Thresholds of all claims stand here and were set before any run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from otoscope.runs import Claim
from otoscope.runs.claim import Control, Threshold
from otoscope.sae.measures.compare import difference, pooled
from otoscope.sae.measures.probing import mean_balanced_accuracy
from otoscope.stats import Interval, bootstrap

#: by how much the FVU of the better one may be higher; by which share L0 may differ; what a probe of shuffled phones may reach
FVU_MARGIN, L0_MARGIN, NOTHING = 0.03, 0.15, 0.53


@dataclass(frozen=True)
class PaperConfig:
    """What is computed.

    Attributes:
        layers: sites; the lag sweep and fresh weights are looked at in the first.
        width: features.
        k: active features per frame, of all.
        steps, batch_size, lr: of every training.
        seeds: trainings of each kind.
        lags_ms: further lags of the temporal loss (20 ms is its own).
        recordings: takes of the training mixture.
        held_out: held-out recordings of each corpus at most (of single words, half as many).
        share: of the speakers (folds of sounds) that are held out.
        noise: probability that a recording of the training gets noise, 0 to 20 dB.
        fresh: takes of the training mixture that fresh weights hear; 0 for no such null.
        n_resamples: of the intervals.
        rows: frames that a probe sees at most.
        align: find times of phones of sentences that have none.
        seed: of everything drawn.
    """

    layers: tuple[str, ...] = ("encoder.2.resid_post", "encoder.3.resid_post")
    width: int = 1024
    k: int = 16
    steps: int = 300
    batch_size: int = 1024
    lr: float = 1e-3
    seeds: int = 3
    lags_ms: tuple[float, ...] = (60.0, 200.0)
    recordings: int = 400
    held_out: int = 48
    share: float = 0.4
    noise: float = 0.2
    fresh: int = 60
    n_resamples: int = 1000
    rows: int = 3000
    align: bool = True
    seed: int = 0


@dataclass(frozen=True)
class Variant:
    """One kind of dictionary: its ``name`` in tables, ``label`` for people, ``architecture`` and ``settings`` of the training,
    and whether its codes are averaged over neighbours afterwards (then ``of`` names what was trained)."""

    name: str
    label: str
    architecture: str
    settings: Mapping[str, Any]
    of: str = ""

    @property
    def trained(self) -> str:
        """The variant whose training this is."""
        return self.of or self.name


PLAIN = (
    Variant("topk", "TopK", "topk", {}),
    Variant("batchtopk", "BatchTopK", "batchtopk", {}),
    Variant("matryoshka", "Matryoshka", "matryoshka", {}),
)
TEMPORAL = Variant("temporal", "temporal (T-SAE)", "temporal", {})
ALPHA_0 = Variant("alpha0", "temporal, alpha 0", "temporal", {"alpha": 0.0})
SHUFFLED = Variant("shuffled", "temporal, shuffled time", "temporal", {"shuffle_time": True})
SMOOTHED = (
    Variant("topk-smoothed", "TopK, averaged over 3 frames", "topk", {}, of="topk"),
    Variant("alpha0-smoothed", "alpha 0, averaged over 3 frames", "temporal", {"alpha": 0.0}, of="alpha0"),
)
MAIN = (*PLAIN, TEMPORAL, ALPHA_0, SHUFFLED, *SMOOTHED)
#: share of the features that counts as high-level, of the kinds whose features are ordered
HIGH = 0.2
ORDERED = ("matryoshka", "temporal")


def lagged(ms: float) -> Variant:
    """The temporal loss with partners ``ms`` milliseconds away."""
    return Variant(f"lag{ms:g}", f"temporal, lag {ms:g} ms", "temporal", {"lag_ms": ms})


def variants(config: PaperConfig, layer: str) -> tuple[Variant, ...]:
    """What is trained or derived at a layer."""
    return (*MAIN, *(lagged(ms) for ms in config.lags_ms)) if layer == config.layers[0] else MAIN


#: one measured training: number -> value, or sums over recordings of what is compared (``hits.*``)
Measured = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Found:
    """Everything the recipe found.

    Attributes:
        model: its name.
        config: what was computed.
        about: counts of recordings, speakers and frames, in plain data.
        measured: layer -> variant -> its trainings.
        stability: layer -> variant -> of every pair of trainings, the share of features found again.
        fresh: variant -> the same on fresh weights, at the first layer.
        trust: number -> whether it ranks planted dictionaries.
    """

    model: str
    config: PaperConfig
    about: Mapping[str, Any]
    measured: Mapping[str, Mapping[str, Sequence[Measured]]]
    stability: Mapping[str, Mapping[str, Sequence[float]]]
    fresh: Mapping[str, Measured]
    trust: Mapping[str, str]

    def variants(self, layer: str) -> tuple[Variant, ...]:
        """Those of a layer, in the order of the tables."""
        return variants(self.config, layer)

    def values(self, layer: str, variant: str, number: str) -> list[float]:
        """A number of every training."""
        return [_value(one.get(number)) for one in self.measured[layer][variant]]

    def mean(self, layer: str, variant: str, number: str) -> float:
        """Its mean over trainings; NaN where it was not measured."""
        if number.startswith("probe."):
            return self.probe(layer, variant, number.removeprefix("probe.")).value
        return float(np.mean(self.values(layer, variant, number)))

    def probe(self, layer: str, variant: str, what: str) -> Interval:
        """Balanced accuracy of a sparse probe, such as ``phone.k1``, over recordings and trainings."""
        return pooled(self._hits(layer, variant, what), mean_balanced_accuracy, **self._drawn)

    def better(self, layer: str, first: str, second: str, what: str = "phone.k1") -> Interval:
        """By how much the first kind's probe is better than the second's, on the same recordings."""
        a, b = (self._hits(layer, v, what) for v in (first, second))
        return difference(a, b, mean_balanced_accuracy, **self._drawn)

    def paired(self, layer: str, first: str, second: str, number: str) -> Interval:
        """First minus second of a number, training by training."""
        a, b = (np.array(self.values(layer, v, number)) for v in (first, second))
        return bootstrap(a - b, seed=self.config.seed)

    def best(self, layer: str, names: Sequence[str], what: str = "phone.k1") -> str:
        """The kind with the best probe."""
        return max(names, key=lambda name: np.nan_to_num(self.probe(layer, name, what).value))

    def _hits(self, layer: str, variant: str, what: str) -> list[np.ndarray]:
        return [np.asarray(one[f"hits.{what}"]) for one in self.measured[layer][variant]]

    @property
    def _drawn(self) -> dict[str, int]:
        return {"n_resamples": self.config.n_resamples, "seed": self.config.seed}


def short(layer: str) -> str:
    """``encoder.2`` of ``encoder.2.resid_post``."""
    return ".".join(layer.split(".")[:2])


def claims(found: Found) -> list[Claim]:
    """What is claimed at every layer, and under which controls."""
    made = []
    for layer in found.config.layers:
        at = short(layer)
        plain = found.best(layer, [v.name for v in PLAIN])
        smooth = found.best(layer, [v.name for v in SMOOTHED])
        label = {v.name: v.label for v in MAIN}
        for id, other, what in (
            ("others", plain, f"the best of the others, {label[plain]}"),
            ("alpha0", "alpha0", "the same dictionary without the temporal loss"),
            ("shuffled", "shuffled", "the same loss with partners drawn at random"),
            ("overlap", smooth, f"averaging over neighbouring frames, at best {label[smooth]}"),
        ):
            made.append(
                Claim.of(
                    f"temporal-{id}-{at}",
                    f"at {at}, one feature per phone of a temporal dictionary tells phones better than with {what}",
                    Threshold(">", 0.0), found.better(layer, "temporal", other), _controls(found, layer, other),
                    unit="balanced accuracy",
                )
            )  # fmt: skip
        made.append(
            Claim.of(
                f"high-{at}",
                f"at {at}, one feature per phone of the high-level fifth tells phones better with the temporal loss than without",
                Threshold(">", 0.0), found.better(layer, "temporal", "alpha0", "high.phone.k1"),
                _controls(found, layer, "alpha0"), unit="balanced accuracy",
            )
        )  # fmt: skip
        made.append(
            Claim.of(
                f"smoother-{at}",
                f"at {at}, the high-level features of a temporal dictionary stay active in the next frame more often than those "
                "trained with partners drawn at random",
                Threshold(">", 0.0), found.paired(layer, "temporal", "shuffled", "high.overlap"),
                {"all features": Control.of(found.paired(layer, "temporal", "shuffled", "overlap"))}, unit="share",
            )
        )  # fmt: skip
    return made


def _controls(found: Found, layer: str, other: str) -> dict[str, Control]:
    ratio = found.mean(layer, "temporal", "l0") / found.mean(layer, other, "l0")
    null = found.probe(layer, "temporal", "shuffled.k1")
    made = {
        "FVU, by how much it is higher": Control.of(
            found.paired(layer, "temporal", other, "fvu"), Threshold("<=", FVU_MARGIN)
        ),
        "L0, by which share it differs": Control.of(abs(ratio - 1), Threshold("<=", L0_MARGIN)),
        "phones shuffled, balanced accuracy": Control.of(null.value, Threshold("<=", NOTHING)),
    }
    if found.fresh and layer == found.config.layers[0]:
        blank = mean_balanced_accuracy(np.asarray(found.fresh["temporal"]["hits.phone.k1"]).sum(0))
        made["temporal dictionary of fresh weights, balanced accuracy"] = Control.of(
            blank, Threshold("<", found.probe(layer, "temporal", "phone.k1").value)
        )
    return made


#: column of the table -> number
COLUMNS = {
    "FVU": "fvu", "FVU of speech": "fvu.speech", "FVU of sounds": "fvu.sounds", "L0": "l0", "alive": "alive",
    "phone, 1 feature": "probe.phone.k1", "phone, 5": "probe.phone.k5", "manner, 1": "probe.manner.k1",
    "speaker, 1": "probe.speaker.k1", "speaker, 5": "probe.speaker.k5", "sex, 1": "probe.sex.k1",
    "sound, 1": "probe.sound.k1", "TCS": "tcs", "phone purity": "phone_purity", "overlap": "overlap",
    "high overlap": "high.overlap", "high phone, 1": "probe.high.phone.k1", "high speaker, 1": "probe.high.speaker.k1",
}  # fmt: skip


def table(found: Found) -> list[dict[str, Any]]:
    """One row per layer and kind: means over trainings."""
    rows = []
    for layer in found.config.layers:
        for variant in found.variants(layer):
            row: dict[str, Any] = {"layer": short(layer), "dictionary": variant.label}
            for column, number in COLUMNS.items():
                there = number.startswith("probe.") and f"hits.{number[6:]}" in found.measured[layer][variant.name][0]
                known = there or number in found.measured[layer][variant.name][0]
                row[column] = found.mean(layer, variant.name, number) if known else float("nan")
            again = found.stability[layer].get(variant.name, ())
            row["stability"] = float(np.mean(again)) if len(again) else float("nan")
            probe = found.probe(layer, variant.name, "phone.k1")
            row["phone, 1 feature, low"], row["phone, 1 feature, high"] = probe.low, probe.high
            row["dead"] = 1 - row["alive"]
            rows.append(row)
    return rows


def trainings(found: Found) -> list[dict[str, Any]]:
    """One row per layer, kind and training."""
    return [
        {"layer": short(layer), "dictionary": v.label, "training": i}
        | {n: _value(one.get(n)) for n in ("fvu", "fvu.speech", "fvu.sounds", "l0", "alive", "tcs", "phone_purity", "overlap")}
        for layer in found.config.layers
        for v in found.variants(layer)
        for i, one in enumerate(found.measured[layer][v.name])
    ]  # fmt: skip


def metrics(found: Found) -> dict[str, Interval | float | int | None]:
    """Flat: ``<number>.<kind>.<layer>``, and ``gain.<over what>.<layer>`` of one feature's phone probe."""
    out: dict[str, Interval | float | int | None] = {"trainings": found.about["trainings"]}
    for layer in found.config.layers:
        at = short(layer)
        for variant in found.variants(layer):
            out[f"phone_k1.{variant.name}.{at}"] = found.probe(layer, variant.name, "phone.k1")
            for name, number in (
                ("fvu", "fvu"),
                ("l0", "l0"),
                ("overlap", "overlap"),
                ("tcs", "tcs"),
                ("alive", "alive"),
            ):
                out[f"{name}.{variant.name}.{at}"] = found.mean(layer, variant.name, number)
            again = found.stability[layer].get(variant.name, ())
            out[f"stability.{variant.name}.{at}"] = float(np.mean(again)) if len(again) else None
        others = {
            "others": found.best(layer, [v.name for v in PLAIN]), "alpha0": "alpha0", "shuffled": "shuffled",
            "overlap": found.best(layer, [v.name for v in SMOOTHED]),
        }  # fmt: skip
        out |= {f"gain.{name}.{at}": found.better(layer, "temporal", other) for name, other in others.items()}
        out[f"phone_k1.labels_shuffled.{at}"] = found.probe(layer, "temporal", "shuffled.k1")
    for name, one in found.fresh.items():
        sums = [np.asarray(one["hits.phone.k1"])]
        out[f"phone_k1.{name}.fresh"] = pooled(sums, mean_balanced_accuracy, n_resamples=found.config.n_resamples)
    return out


def headline(found: Found, made: Sequence[Claim]) -> str:
    """The answer in a sentence or two."""
    verdicts = {claim.id: claim for claim in made}
    parts = []
    for layer in found.config.layers:
        at = short(layer)
        those = {name: verdicts[f"temporal-{name}-{at}"] for name in ("others", "alpha0", "shuffled", "overlap")}
        parts.append(f"{at}: {_answer({n: c.verdict for n, c in those.items()})} ({_gains(those)})")
    said = "Does the temporal loss help one feature to tell a phone? " + ". ".join(parts) + "."
    more = [
        short(layer)
        for layer in found.config.layers
        if verdicts[f"temporal-overlap-{short(layer)}"].verdict == "refuted"
    ]
    if more:
        said += f" Averaging codes over neighbouring frames, without any such loss, does more at {' and '.join(more)}."
    return said


def _answer(verdict: Mapping[str, str]) -> str:
    if verdict["alpha0"] == verdict["shuffled"] == "supported":
        if verdict["overlap"] == "supported":
            return "it helps, and more than averaging over neighbouring frames does"
        if verdict["overlap"] == "refuted":
            return "it helps, but averaging over neighbouring frames helps more: overlap explains it"
        return "it helps, but not shown to help more than averaging over neighbouring frames: overlap may explain it"
    if "refuted" in (verdict["alpha0"], verdict["shuffled"]):
        return "no, it does not help"
    return "not shown to help"


def _gains(those: Mapping[str, Claim]) -> str:
    names = {"others": "others", "alpha0": "alpha 0", "shuffled": "shuffled time", "overlap": "averaging"}
    return ", ".join(f"{_signed(those[key].value)} against {names[key]}" for key in names)


def _signed(value: float | None) -> str:
    return "unknown" if value is None or np.isnan(value) else f"{value:+.3f}"


def best(found: Found) -> list[tuple[str, str]]:
    """The dictionary of each layer that is worth shipping: of those whose FVU is within the margin of the least, the one with
    the best phone probe; what is averaged afterwards is none."""
    chosen = []
    for layer in found.config.layers:
        names = [v.name for v in (*PLAIN, TEMPORAL)]
        least = min(found.mean(layer, name, "fvu") for name in names)
        near = [name for name in names if found.mean(layer, name, "fvu") <= least + FVU_MARGIN]
        chosen.append((layer, found.best(layer, near)))
    return chosen


def describe(config: PaperConfig) -> dict[str, Any]:
    """The config as plain data, for the identity of a run."""
    return {**asdict(config), "layers": list(config.layers), "lags_ms": list(config.lags_ms)}


def _value(number: Any) -> float:
    if number is None:
        return float("nan")
    value = np.ravel(np.asarray(number, float))
    return float(value[0])
