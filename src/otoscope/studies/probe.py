"""What can be read from each layer, and how much of it did the model make? Probes over layers, with every null beside them.

Thresholds of all claims stand here and were set before any run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from otoscope.engine.model import Model
from otoscope.errors import TaskError
from otoscope.methods.frames import MEL, NONE, Frames, frames, labels_of, pooled, stack_that_hears
from otoscope.methods.probes import HeldOut, Rows, fit, fit_mlp, held_out, online_code, selectivity, shuffled_labels
from otoscope.models.clock import FrameClock
from otoscope.models.site import Site
from otoscope.runs import Claim
from otoscope.runs.claim import Control, Threshold
from otoscope.stats import Interval
from otoscope.studies.outcome import Step
from otoscope.studies.probe_labels import Labelled
from otoscope.studies.probe_similarity import Similarity, layer_states, similarity

#: what shuffled labels may reach beyond chance
SLACK = 0.1
#: recordings on which layers are compared
_ALIKE = 12
#: labels of frames with fewer rows than this are left out
_FEWEST_ROWS = 20


@dataclass(frozen=True)
class ProbeConfig:
    """What is computed.

    Attributes:
        n: recordings at most.
        frames: frames per recording, for labels of frames.
        seeds: each draws other splits, control labels and initial weights.
        folds: of each split; None: 5 for recordings, 3 for frames.
        mlp: also MLP probes.
        mdl: also the code length.
        similarity: also how alike the layers are (CKA).
        seed: of everything drawn that is not in ``seeds``.
    """

    n: int = 136
    frames: int = 40
    seeds: tuple[int, ...] = (0, 1, 2)
    folds: int | None = None
    mlp: bool = True
    mdl: bool = True
    similarity: bool = True
    seed: int = 0

    def folds_for(self, of_frames: bool) -> int:
        """Outer folds."""
        return self.folds or (3 if of_frames else 5)


@dataclass(frozen=True, eq=False)
class Reading:
    """What probes read from one representation.

    Attributes:
        site: where; ``mel`` is the spectrogram.
        linear: accuracy of linear probes on groups that they never saw.
        mlp: of MLP probes; None where not asked.
        shuffled: of linear probes on shuffled labels; None where not asked.
        task: accuracy on held-out rows of known types; None where not asked.
        control: accuracy of the control task on the same rows.
        compression: of the on-line code; NaN where not asked.
        bits: per row, of the on-line code.
    """

    site: str
    linear: HeldOut
    mlp: HeldOut | None = None
    shuffled: HeldOut | None = None
    task: HeldOut | None = None
    control: HeldOut | None = None
    compression: float = float("nan")
    bits: float = float("nan")

    @property
    def selectivity(self) -> Interval | None:
        """Task - control, paired."""
        return None if self.task is None or self.control is None else self.task.minus(self.control)


@dataclass(frozen=True, eq=False)
class Found:
    """Everything a probing study found.

    Attributes:
        model: its name.
        label: what was probed for.
        data: recordings and labels.
        rows: what is known of every row.
        readings: of the trained model by site, the spectrogram first.
        untrained: of the same architecture with fresh weights, linear only.
        similarity: CKA of the layers with each other, with those of untrained weights, and with those of another model.
    """

    model: str
    label: str
    data: Labelled
    rows: Rows
    readings: Mapping[str, Reading]
    untrained: Mapping[str, Reading]
    similarity: Mapping[str, Similarity] = field(default_factory=dict)

    @property
    def best(self) -> str:
        """The layer from which training speakers that were held out read best: chosen without the test rows."""
        layers = [site for site in self.readings if site != MEL]
        return max(layers, key=lambda site: self.readings[site].linear.validation)

    @property
    def best_untrained(self) -> str:
        """The same of the untrained weights."""
        return max(self.untrained, key=lambda site: self.untrained[site].linear.validation)


def sites_of(model: Model, layers: Sequence[int] | None = None) -> list[Site]:
    """The places that are probed: what the first encoder layer reads, and every layer's output.

    Raises:
        ModelError: the model does not listen.
        TaskError: there is no such layer.
    """
    stack = stack_that_hears(model)
    spec = model.stacks[stack]
    wanted = range(spec.n_layers) if layers is None else layers
    missing = [layer for layer in wanted if not 0 <= layer < spec.n_layers]
    if missing:
        raise TaskError(f"{model.name} has no encoder layer {missing[0]}: its layers are 0 to {spec.n_layers - 1}.")
    first = [Site(stack, 0, "resid_pre")] if layers is None and "resid_pre" in spec.points else []
    return first + [Site(stack, layer, "resid_post") for layer in wanted]


def collect(
    model: Model,
    data: Labelled,
    sites: Sequence[Site],
    config: ProbeConfig,
    progress: Callable[[int, int], None] | None = None,
) -> Frames:
    """Rows of a representation: means over recordings, or labelled frames."""
    if not data.of_frames:
        return pooled(model, data.clips, sites, progress=progress)
    return frames(model, data.clips, sites, partial(_chosen, data, config), progress=progress)


def rows_of(data: Labelled, config: ProbeConfig, found: Frames) -> Rows:
    """What is known of the rows that ``collect`` gave."""
    speakers, groups = np.array(data.speakers, dtype=object), np.array(data.groups, dtype=object)
    if not data.of_frames:
        return Rows(np.array(data.values), groups.astype(str), speakers.astype(str), groups.astype(str))
    labels, types = [], []
    for clip, time in zip(found.clip, found.time):
        labels.append(_at(data.spans[clip], time))
        types.append(_at(data.types[clip], time))
    return Rows(np.array(labels), groups[found.clip].astype(str), np.array(types), groups[found.clip].astype(str))


def _at(spans: Sequence[Any], time: float) -> str:
    return next((span.text for span in spans if span.start <= time < span.end), NONE)


def _chosen(data: Labelled, config: ProbeConfig, clip: int, clock: FrameClock) -> Int[np.ndarray, " kept"]:
    """Labelled frames of a recording, at most so many, evenly spread by chance."""
    labels, types = labels_of(data.spans[clip], clock), labels_of(data.types[clip], clock)
    there = np.flatnonzero((labels != NONE) & (types != NONE))
    rng = np.random.default_rng([config.seed, clip])
    return np.sort(rng.permutation(there)[: config.frames])


def read(
    x: Float[np.ndarray, "row d"], rows: Rows, config: ProbeConfig, of_frames: bool, site: str, *, full: bool
) -> Reading:
    """All probes of one representation; only the linear one where not ``full``."""
    folds, seeds = config.folds_for(of_frames), config.seeds
    options: dict[str, Any] = {"seeds": seeds, "folds": folds}
    # thousands of frames choose a penalty with one inner split as well as with three
    linear = partial(fit, folds=1) if of_frames else fit
    groups, units = rows.groups, rows.units
    plain = held_out(x, rows.labels, groups, units, fitting=linear, **options)
    if not full:
        return Reading(site, plain)
    # the control and the shuffled labels cost as much as the task, and one draw of each per seed is enough
    shuffled = [shuffled_labels(rows.labels, groups, seed) for seed in seeds]
    nothing = held_out(x, shuffled, groups, units, fitting=linear, **options)
    pair = selectivity(x, rows, fitting=linear, task=plain, **options)
    deep = held_out(x, rows.labels, groups, units, fitting=fit_mlp, **options) if config.mlp else None
    code = online_code(x, rows.labels, groups, seed=config.seed) if config.mdl else None
    return Reading(
        site, plain, deep, nothing, pair.task, pair.control,
        *((code.compression, code.total / len(x)) if code is not None else ()),
    )  # fmt: skip


def study(
    model: Model,
    data: Labelled,
    sites: Sequence[Site],
    config: ProbeConfig,
    step: Step,
    progress: Callable[[int, int], None] | None,
    notify: Callable[[str], None],
    fresh: Callable[[], Model],
    other: Callable[[], Model] | None = None,
) -> Found:
    """Collect states, fit and test; every finished part is kept by ``step``."""
    notify(f"listening to {len(data.clips)} recordings")
    found = _kept(step, "states", lambda: collect(model, data, sites, config, progress))
    rows = rows_of(data, config, found)
    keep = _frequent(rows) if data.of_frames else np.ones(len(rows), bool)
    rows = rows.only(keep)
    notify(f"fitting probes of {len(rows)} rows with {len(np.unique(rows.labels))} labels")
    readings = {}
    for i, (site, x) in enumerate(found.values.items()):
        readings[site] = _reading(step, f"trained-{site}", x[keep], rows, config, data.of_frames, site, full=True)
        if progress is not None:
            progress(i + 1, len(found.values))
    notify("the same with untrained weights")
    names = [str(site) for site in sites]
    blank = _kept(step, "untrained-states", lambda: collect(fresh(), data, sites, config, progress))
    untrained = {
        site: _reading(
            step, f"untrained-{site}", blank.values[site][keep], rows, config, data.of_frames, site, full=False
        )
        for site in names
    }
    alike = _alike(model, data, sites, config, step, progress, notify, fresh, other) if config.similarity else {}
    return Found(model.name, data.label, data, rows, readings, untrained, alike)


def _alike(
    model: Model,
    data: Labelled,
    sites: Sequence[Site],
    config: ProbeConfig,
    step: Step,
    progress: Callable[[int, int], None] | None,
    notify: Callable[[str], None],
    fresh: Callable[[], Model],
    other: Callable[[], Model] | None,
) -> dict[str, Similarity]:
    clips = data.clips[:_ALIKE]
    notify(f"comparing the layers on {len(clips)} recordings")
    own: dict[str, list[np.ndarray]] = {}

    def compare(make: Callable[[], Model] | None) -> dict[str, Any]:
        if not own:
            own.update(layer_states(model, clips, sites, progress))
        if make is None:
            return similarity(own, own, model.name, seed=config.seed).to_step()
        there = make()
        theirs = layer_states(there, clips, sites_of(there), progress, mel=False)
        return similarity(own, theirs, there.name, seed=config.seed).to_step()

    made: dict[str, Callable[[], Model] | None] = {"layers": None, "untrained": fresh}
    if other is not None:
        made["other"] = other
    return {
        name: Similarity.from_step(step(f"similarity-{name}", partial(compare, make))) for name, make in made.items()
    }


def _frequent(rows: Rows) -> np.ndarray:
    names, counts = np.unique(rows.labels, return_counts=True)
    few = set(names[counts < _FEWEST_ROWS])
    keep = np.array([label not in few for label in rows.labels])
    if len(names) - len(few) < 2:
        raise TaskError(
            f"fewer than two labels have {_FEWEST_ROWS} frames each: give more recordings with --n, or longer ones."
        )
    return keep


def _kept(step: Step, key: str, compute: Callable[[], Frames]) -> Frames:
    def plain() -> dict[str, Any]:
        made = compute()
        return {"clip": made.clip, "time": made.time, **{f"at {name}": value for name, value in made.values.items()}}

    found = step(key, plain)
    values = {name[3:]: np.asarray(value) for name, value in found.items() if name.startswith("at ")}
    return Frames(values, np.asarray(found["clip"]), np.asarray(found["time"]))


_HELD = ("linear", "mlp", "shuffled", "task", "control")


def _reading(
    step: Step, key: str, x: np.ndarray, rows: Rows, config: ProbeConfig, of_frames: bool, site: str, *, full: bool
) -> Reading:
    def plain() -> dict[str, Any]:
        made = read(x, rows, config, of_frames, site, full=full)
        held = {name: getattr(made, name) for name in _HELD if getattr(made, name) is not None}
        return {
            **{f"{name}.right": h.right for name, h in held.items()},
            **{f"{name}.validation": h.validation for name, h in held.items()},
            "compression": made.compression, "bits": made.bits,
        }  # fmt: skip

    found = step(key, plain)
    held = {
        name: HeldOut(np.asarray(found[f"{name}.right"], float), rows.units, _float(found[f"{name}.validation"]))
        for name in _HELD
        if f"{name}.right" in found
    }
    return Reading(site, **held, compression=_float(found["compression"]), bits=_float(found["bits"]))


def _float(value: Any) -> float:
    return float("nan") if value is None else float(value)


def metrics(found: Found) -> dict[str, Interval | float | None]:
    """The flat numbers of the results object."""
    best = found.readings[found.best]
    blank = found.untrained[found.best_untrained].linear
    out: dict[str, Interval | float | None] = {
        "rows": len(found.rows),
        "labels": len(np.unique(found.rows.labels)),
        "chance": found.rows.chance,
        "best_layer": layer_number(found.best),
        "accuracy": best.linear.accuracy(),
        "accuracy.mel": found.readings[MEL].linear.accuracy(),
        "accuracy.untrained": blank.accuracy(),
        "compression": best.compression,
    }
    for name, held in (("mlp", best.mlp), ("shuffled", best.shuffled), ("control", best.control)):
        if held is not None:
            out[f"accuracy.{name}"] = held.accuracy()
    out["selectivity"] = best.selectivity
    for site, reading in found.readings.items():
        out[f"accuracy.{site}"] = reading.linear.accuracy()
    return out


def layer_number(site: str) -> int:
    """Layer of a site's name; -1 for what the first layer reads, which comes before it."""
    parsed = Site.parse(site)
    return -1 if parsed.point == "resid_pre" else parsed.layer


def claims(found: Found) -> list[Claim]:
    """What is claimed, and under which controls."""
    best = found.readings[found.best]
    chance = found.rows.chance
    assert best.shuffled is not None
    ceiling = Threshold("<=", chance + SLACK)
    above = Threshold(">", 0.0)
    where = f"at {found.best}"
    made = [
        Claim.of(
            "readable", f"{found.label} can be read {where} from recordings held out by {_unit(found)}, above chance by",
            above, best.linear.minus(chance), {"shuffled labels (accuracy)": Control.of(best.shuffled.accuracy().value, ceiling)},
        ),
        Claim.of(
            "learned", f"{found.label} is read {where} more accurately than from the best layer of untrained weights, by",
            above, best.linear.minus(found.untrained[found.best_untrained].linear),
        ),
        Claim.of(
            "beyond-mel", f"{found.label} is read {where} more accurately than from the mel spectrogram, by",
            above, best.linear.minus(found.readings[MEL].linear),
        ),
    ]  # fmt: skip
    chosen = best.selectivity
    if chosen is not None:
        made.append(
            Claim.of(
                "selective", f"the probe {where} is selective: it beats its control task by", above, chosen,
                {"control task (accuracy)": Control.of(None if best.control is None else best.control.accuracy())},
            )
        )  # fmt: skip
    return made


def _unit(found: Found) -> str:
    return "recording" if found.label == "speaker" else "speaker"


def describe(config: ProbeConfig) -> dict[str, Any]:
    """The config as plain data, for the identity of a run."""
    return {**asdict(config), "seeds": list(config.seeds)}
