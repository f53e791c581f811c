"""What does every neuron and head of a Whisper respond to, and did it learn to?

Two nulls stand beside every number: labels that say nothing of the moment (is there a response at all?), and the strongest unit of
the same architecture with fresh weights (is it more than what random features of the spectrogram do?). Thresholds of all claims
stand here and were set before any run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from otoscope.engine.model import Model
from otoscope.methods.frames import within_window
from otoscope.methods.unit_selectivity import correlations, selective, standard_labels, standard_ranks
from otoscope.methods.units import activity, names_of, unit_sites
from otoscope.models.site import Site
from otoscope.runs import Claim
from otoscope.runs.claim import Control, Threshold
from otoscope.stats import Interval, bootstrap
from otoscope.studies.atlas_heads import HeadLooks, head_looks
from otoscope.studies.atlas_material import Family, FrameRows, Piece, frame_families, frame_rows
from otoscope.studies.atlas_writing import TokenRows, Writing, token_families, token_rows, writings
from otoscope.studies.outcome import Step

#: family-wise level; share of units that must pass both nulls; of fresh weights that may; AUC on speakers that chose no unit
ALPHA, LEARNED, RARELY, REPLICATES = 0.05, 0.05, 0.01, 0.6
#: recordings in which the strongest moments of a unit are kept
TOP = 3


@dataclass(frozen=True)
class AtlasConfig:
    """What is computed.

    Attributes:
        n_speech: sentences.
        n_noisy: so many of them again in noise.
        n_sounds: sounds that are no speech.
        frames: frames per recording at most.
        draws: of the null with labels that say nothing.
        n_looks: sentences on which it is measured where heads look.
        seed: of everything drawn.
    """

    n_speech: int = 40
    n_noisy: int = 16
    n_sounds: int = 20
    frames: int = 70
    draws: int = 100
    n_looks: int = 10
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Responses:
    """How the units of a stack respond to the labels of one family.

    Attributes:
        stack: ``encoder`` or ``decoder``.
        family: its name.
        labels: names.
        units: names of the units, as sites.
        r: rank correlation ``[unit, label]``.
        auc: ``[unit, label]``; NaN for labels with values.
        control: mean ``|r|`` with labels that say nothing.
        p: family-wise p value against them.
        fresh: largest ``|r|`` of any unit of fresh weights ``[label]``.
        passed: share of the units of other fresh weights that pass both nulls ``[label]``.
        first, second: ``r`` on the first and the second half of the speakers.
        top: recording and row of each label's best unit's strongest moments ``[label, TOP]``; -1 for none.
    """

    stack: str
    family: str
    labels: tuple[str, ...]
    units: tuple[str, ...]
    r: Float[np.ndarray, "unit label"]
    auc: Float[np.ndarray, "unit label"]
    control: Float[np.ndarray, "unit label"]
    p: Float[np.ndarray, "unit label"]
    threshold: float
    fresh: Float[np.ndarray, " label"]
    passed: Float[np.ndarray, " label"]
    first: Float[np.ndarray, "unit label"]
    second: Float[np.ndarray, "unit label"]
    top: Int[np.ndarray, "label top"]

    @property
    def responds(self) -> Bool[np.ndarray, "unit label"]:
        """Beyond labels that say nothing."""
        return np.asarray(self.p <= ALPHA)

    @property
    def learned(self) -> Bool[np.ndarray, "unit label"]:
        """Beyond labels that say nothing, and beyond the strongest unit of fresh weights."""
        return self.responds & (np.abs(self.r) > self.fresh)

    @property
    def effect(self) -> Float[np.ndarray, "unit label"]:
        """``|2 AUC - 1|``, or ``|r|`` for labels with values: 0 for nothing, 1 for a unit that knows the label."""
        return np.where(np.isnan(self.auc), np.abs(self.r), np.abs(2 * self.auc - 1))

    @property
    def selectivity(self) -> Float[np.ndarray, "unit label"]:
        """Effect minus the same unit's effect with labels that say nothing."""
        with np.errstate(invalid="ignore", divide="ignore"):
            scale = np.where(np.abs(self.r) > 0, self.effect / np.abs(self.r), 0.0)
        return self.effect - self.control * scale

    def held_out(self, label: int) -> tuple[int, float]:
        """The unit that the first half of the speakers chooses for a label, and its effect on the second half (signed).

        -1 and NaN where a half has only one kind of row.
        """
        if np.isnan(self.first[:, label]).all():
            return -1, float("nan")
        best = int(np.nanargmax(np.abs(self.first[:, label])))
        with np.errstate(invalid="ignore", divide="ignore"):
            scale = self.effect[best, label] / np.abs(self.r[best, label])
        return best, float(self.second[best, label] * np.sign(self.first[best, label]) * scale)


@dataclass(frozen=True, eq=False)
class Found:
    """Everything an atlas holds.

    Attributes:
        model: its name.
        pieces: the recordings.
        frames: rows of the encoder.
        runs, tokens: runs and rows of the decoder.
        responses: by stack and family.
        looks: where the heads look, of the trained model.
        fresh_looks: of fresh weights.
    """

    model: str
    pieces: Sequence[Piece]
    frames: FrameRows
    runs: Sequence[Writing]
    tokens: TokenRows
    responses: Sequence[Responses]
    looks: HeadLooks
    fresh_looks: HeadLooks


def study(
    model: Model,
    found: Sequence[Piece],
    config: AtlasConfig,
    step: Step,
    progress: Callable[[int, int], None] | None,
    notify: Callable[[str], None],
    fresh: Callable[[int], Model],
) -> Found:
    """Listen, write, correlate; every finished part is kept by ``step``."""
    found = list(found)
    frames, runs = frame_rows(model, found, config.frames), writings(model, found)
    tokens = token_rows(model, runs)
    families = {"encoder": frame_families(found, frames), "decoder": token_families(runs, tokens)}
    groups = {"encoder": frames.piece, "decoder": tokens.run}
    units = {"encoder": [p.unit for p in found], "decoder": [found[run.piece].unit for run in runs]}
    blank = [fresh(config.seed + k) for k in (1, 2)]

    def listen(which: Model, stack: str) -> np.ndarray:
        if stack == "encoder":
            return encoder_activity(which, found, frames, progress)
        return decoder_activity(which, runs, tokens, progress)

    responses: list[Responses] = []
    for stack, wanted in families.items():

        def strongest(stack: str = stack, wanted: list[Family] = wanted) -> dict[str, Any]:
            notify(f"{stack}: fresh weights")
            out: dict[str, Any] = {}
            for k, other in enumerate(blank):
                x = listen(other, stack)
                for family in wanted:
                    ranks = standard_ranks(x[family.rows])
                    out[f"{family.name} {k}"] = np.abs(correlations(ranks, standard_labels(family.labels)))
            return out

        def measured(stack: str = stack, wanted: list[Family] = wanted) -> dict[str, Any]:
            notify(f"{stack}: {model.name}")
            x = listen(model, stack)
            out: dict[str, Any] = {}
            for i, family in enumerate(wanted):
                out |= {
                    f"{family.name} {key}": value
                    for key, value in _responses(x, family, groups[stack], units[stack], config).items()
                }
                if progress is not None:
                    progress(i + 1, len(wanted))
            return out

        null, seen = step(f"{stack}-fresh", strongest), step(f"{stack}-trained", measured)
        names = tuple(name for site in unit_sites(model, stack) for name in names_of(model, site))
        responses += [_gathered(stack, family, names, seen, null) for family in wanted]
    notify("where the heads look")
    looks = head_looks(model, found, config.n_looks, step, "trained", progress)
    fresh_looks = head_looks(blank[0], found, config.n_looks, step, "fresh", progress)
    return Found(model.name, found, frames, runs, tokens, responses, looks, fresh_looks)


def encoder_activity(
    model: Model, found: Sequence[Piece], rows: FrameRows, progress: Callable[[int, int], None] | None = None
) -> Float[np.ndarray, "row unit"]:
    """Activity of all units of the encoder at the rows."""
    sites = unit_sites(model, "encoder")
    parts = []
    for i, piece in enumerate(found):
        at = rows.frame[rows.piece == i]
        parts.append(_joined(activity(model, model.inputs(within_window(model, piece.clip)), sites, at)))
        if progress is not None:
            progress(i + 1, len(found))
    return np.concatenate(parts)


def decoder_activity(
    model: Model, runs: Sequence[Writing], rows: TokenRows, progress: Callable[[int, int], None] | None = None
) -> Float[np.ndarray, "row unit"]:
    """Activity of all units of the decoder at the rows."""
    sites = unit_sites(model, "decoder")
    parts = []
    for i, run in enumerate(runs):
        parts.append(_joined(activity(model, run.inputs, sites, rows.position[rows.run == i])))
        if progress is not None:
            progress(i + 1, len(runs))
    return np.concatenate(parts)


def _joined(found: Mapping[Site, np.ndarray]) -> np.ndarray:
    return np.concatenate(list(found.values()), axis=1).astype(np.float32)


def _responses(
    x: np.ndarray, family: Family, group: np.ndarray, units: Sequence[str], config: AtlasConfig
) -> dict[str, Any]:
    here, recording = x[family.rows], group[family.rows]
    got = selective(here, family.labels, recording, family.null, draws=config.draws, seed=config.seed)
    # halves of the speakers (of the recordings of sounds), alternating so that both hold all kinds
    names = np.array(units)[recording]
    order = {name: i % 2 for i, name in enumerate(dict.fromkeys(names))}
    half = np.array([order[name] for name in names])
    parts = []
    for k in (0, 1):
        labels = {name: value[half == k] for name, value in family.labels.items()}
        parts.append(correlations(standard_ranks(here[half == k]), standard_labels(labels)))
    return {
        "r": got.r, "auc": got.auc, "control": got.control, "p": got.p, "threshold": got.threshold,
        "first": parts[0], "second": parts[1], "top": _strongest(here, recording, family, got.r),
    }  # fmt: skip


def _strongest(here: np.ndarray, recording: np.ndarray, family: Family, r: np.ndarray) -> np.ndarray:
    """Rows at which each label's best unit is highest (lowest, where it falls with the label), of different recordings."""
    top = np.full((r.shape[1], TOP), -1)
    for j in range(r.shape[1]):
        if np.isnan(r[:, j]).all():
            continue
        best = int(np.nanargmax(np.abs(r[:, j])))
        seen: set[int] = set()
        for row in np.argsort(-here[:, best] * np.sign(r[best, j]), kind="stable"):
            if recording[row] not in seen:
                seen.add(int(recording[row]))
                top[j, len(seen) - 1] = family.rows[row]
                if len(seen) == TOP:
                    break
    return top


def _gathered(
    stack: str, family: Family, names: tuple[str, ...], seen: Mapping[str, Any], null: Mapping[str, Any]
) -> Responses:
    def of(key: str) -> np.ndarray:
        return np.asarray(seen[f"{family.name} {key}"], float)

    fresh, other = (np.asarray(null[f"{family.name} {k}"], float) for k in (0, 1))
    threshold, strongest = float(of("threshold")), np.nan_to_num(fresh).max(axis=0)
    passed = ((other > threshold) & (other > strongest)).mean(axis=0)
    return Responses(
        stack, family.name, tuple(family.labels), names, of("r"), of("auc"), of("control"), of("p"), threshold, strongest,
        passed, of("first"), of("second"), of("top").astype(int),
    )  # fmt: skip


def shares(found: Found, stack: str) -> tuple[float, float, float]:
    """Of a stack's units: the share that responds to a label, that learned to, and of fresh weights that passes both nulls."""
    those = [r for r in found.responses if r.stack == stack]
    responds = np.any([r.responds.any(axis=1) for r in those], axis=0)
    learned = np.any([r.learned.any(axis=1) for r in those], axis=0)
    return float(responds.mean()), float(learned.mean()), float(np.sum([r.passed.sum() for r in those]))


def replicated(found: Found) -> Interval:
    """Mean AUC, on speakers that did not choose it, of the unit that the others chose, over all labels of both stacks.

    For labels with values, ``(1 + r) / 2``. Labels that no unit follows count as well: to leave them out would use the answer.
    """
    effects = [r.held_out(j)[1] for r in found.responses for j in range(len(r.labels)) if not np.isnan(r.r[:, j]).all()]
    return bootstrap([0.5 + e / 2 for e in effects])


def metrics(found: Found) -> dict[str, Interval | float | None]:
    """The flat numbers of the results object."""
    out: dict[str, Interval | float | None] = {"recordings": len(found.pieces)}
    for stack in ("encoder", "decoder"):
        responds, learned, passed = shares(found, stack)
        units = next((len(r.units) for r in found.responses if r.stack == stack), 0)
        out |= {
            f"units.{stack}": units, f"responds.{stack}": responds, f"learned.{stack}": learned, f"fresh.{stack}": passed,
        }  # fmt: skip
    for r in found.responses:
        family = f"{r.stack}.{r.family.replace(' ', '_')}"
        out |= {f"learned.{family}": float(r.learned.any(axis=1).mean()), f"fresh.{family}": float(r.passed.sum())}
    out["held_out_auc"] = replicated(found)
    out["alignment_head"] = found.looks.alignment()[1]
    out["alignment_head.fresh"] = found.fresh_looks.alignment()[1]
    return out


def claims(found: Found) -> list[Claim]:
    """What is claimed, and under which controls."""
    made = []
    for stack in ("encoder", "decoder"):
        _, learned, passed = shares(found, stack)
        made.append(
            Claim.of(
                f"learned-{stack}",
                f"share of the {stack}'s neurons and heads that respond to a label more than any unit of fresh weights does",
                Threshold(">=", LEARNED), learned,
                {"other fresh weights": Control.of(passed, Threshold("<=", RARELY))},
            )
        )  # fmt: skip
    made.append(
        Claim.of(
            "replicates", "mean AUC, on speakers that did not choose it, of each label's best unit", Threshold(">=", REPLICATES),
            replicated(found), unit="AUC",
        )
    )  # fmt: skip
    head, value = found.looks.alignment()
    made.append(
        Claim.of(
            "alignment", f"{head}, chosen on other recordings, looks at the word being written beyond chance, by",
            Threshold(">", 0.0), value,
            {"fresh weights": Control.of(found.fresh_looks.alignment()[1].value, Threshold("<=", 0.05))},
        )
    )  # fmt: skip
    return made


def describe(config: AtlasConfig) -> dict[str, Any]:
    """The config as plain data, for the identity of a run."""
    return asdict(config)
