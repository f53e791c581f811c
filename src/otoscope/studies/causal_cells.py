"""The cells of the causal benchmark: one method on one fault, computed once and kept, so that a stopped run goes on.

Per task: items are posed to the healthy model and divided; faults are drawn and tuned; every method scores every fault's
places in each of its arms; the healthy model is scored for the verdict "no fault"; circuits are cut for faithfulness.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from otoscope.engine.model import Model
from otoscope.errors import TaskError
from otoscope.methods.faithfulness import faithfulness
from otoscope.methods.localise.case import Case, Side, scored
from otoscope.methods.localise.input_faults import InputFault, draw_inputs, input_case, true_places, tuned_input
from otoscope.methods.localise.planting import Workbench, cases, rounded, truth_of, tuned
from otoscope.methods.localise.registry import Arm, Method
from otoscope.methods.pose import pose_all
from otoscope.stats.ranking import mean_score
from otoscope.studies.causal_protocol import Protocol
from otoscope.studies.outcome import Step
from otoscope.tasks.faults import Fault, draw
from otoscope.tasks.task import Task

#: draws of a fault per fault that is wanted, before the search ends
PATIENCE = 12

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Entrant:
    """A method in one arm, as the leaderboard lists it."""

    label: str
    method: Method
    arm: Arm


@dataclass(frozen=True, eq=False)
class Cell:
    """One entrant on one fault.

    Attributes:
        task, entrant: which.
        fault: index of the fault within its kind and task.
        scores: ``[row, place]``, larger is more suspect.
    """

    task: str
    entrant: str
    fault: int
    scores: Float[np.ndarray, "row place"]


@dataclass(frozen=True, eq=False)
class Planted:
    """One fault of one task: of the model's weights or of the input."""

    task: str
    index: int
    fault: Fault | InputFault
    kept: float
    truth: tuple[int, ...]
    n_places: int

    @property
    def of_model(self) -> bool:
        """Whether the model's weights are at fault, rather than its input."""
        return isinstance(self.fault, Fault)

    @property
    def part(self) -> str:
        """What is broken: a part of the model, the sound or the words before it."""
        if isinstance(self.fault, Fault):
            return self.fault.part
        return "words before" if self.fault.kind == "context" else "sound"


@dataclass(frozen=True, eq=False)
class Healthy:
    """An entrant's scores of a model that is rounded everywhere and faulty nowhere; no item is in two rows.

    Attributes:
        calibration, test: ``[row, place]``.
        size: rows of one case: as many items as a fault's case has, or 1 where the method pools a case's items.
    """

    calibration: Float[np.ndarray, "row place"]
    test: Float[np.ndarray, "row place"]
    size: int

    def cases(self) -> list[Float[np.ndarray, "row place"]]:
        """The cases of the test, none of which shares an item with another."""
        return [self.test[i : i + self.size] for i in range(0, len(self.test) - self.size + 1, self.size)]


@dataclass(frozen=True, eq=False)
class TaskCells:
    """Everything that was computed of one task.

    Attributes:
        task: the task.
        n_items: items that the healthy model answers rightly.
        faults: the planted ones.
        cells: entrants on faults.
        healthy: entrant -> its scores of the healthy model.
        circuits: entrant -> ``[fraction]`` faithfulness curve, and its two areas.
        costs: rows of entrant, stack of the fault, forwards and seconds of a method on its own.
    """

    task: Task
    n_items: int
    faults: list[Planted]
    cells: list[Cell]
    healthy: dict[str, Healthy]
    circuits: dict[str, dict[str, Any]]
    costs: list[dict[str, Any]]


def entrants(methods: Sequence[Method]) -> list[Entrant]:
    """Every method in every arm in which it looks for a fault; the arm is in the label where there are two."""
    found = []
    for one in methods:
        arms: list[Arm] = [arm for arm in one.arms if arm != "circuit"]
        found += [Entrant(f"{one.name}-{arm}" if len(arms) > 1 else one.name, one, arm) for arm in arms]
    return found


class Bench:
    """The cells of one task.

    Args:
        model: the healthy model.
        scratch: a copy of it to be broken.
        task: the task.
        protocol: what is asked.
        share: faults of the model and of the input that fall to this task.
        seed: of its draws.
        step: keeps finished cells.
        costed: whether to measure what each method costs; once is enough for all tasks.
    """

    def __init__(
        self,
        model: Model,
        scratch: Model,
        task: Task,
        protocol: Protocol,
        share: tuple[int, int],
        seed: int,
        step: Step,
        costed: bool = False,
    ):
        self.model, self.scratch, self.task, self.protocol = model, scratch, task, protocol
        self.share, self.seed, self.step, self.costed = share, seed, step, costed
        asked, healthy = protocol.faults, protocol.healthy
        most = asked.items + asked.tuning + healthy.calibration + healthy.test
        self.posed = pose_all(model, task, most)
        if len(self.posed) < asked.items + asked.tuning + 2:
            raise TaskError(
                f"{model.name} answers only {len(self.posed)} of the {len(task)} pairs of '{task.name}' rightly; the protocol "
                f"needs {asked.items + asked.tuning + 2}: leave the task out, or give more data."
            )
        split = asked.items + asked.tuning
        self.work = Workbench(model, scratch, self.posed[: asked.items], self.posed[asked.items : split], seed)
        rest = self.posed[split:]
        tests = max(1, round(len(rest) * healthy.test / (healthy.calibration + healthy.test)))
        self.pools = rest[tests:], rest[:tests]

    def run(self, those: Sequence[Entrant], progress: Progress | None = None) -> TaskCells:
        """Compute every cell that is not there yet."""
        faults = [*self._model_faults(), *self._input_faults()]
        total = len(faults) * len(those) + 2 * len(those)
        done = 0

        def tick(n: int = 1) -> None:
            nonlocal done
            done += n
            if progress:
                progress(min(done, total), total)

        cells: list[Cell] = []
        for planted in faults:
            cells += self._score(planted, those)
            tick(len(those))
        healthy: dict[str, Healthy] = {}
        for one in those:
            healthy[one.label] = self._healthy(one)
            tick()
        circuits: dict[str, dict[str, Any]] = {}
        for one in those:
            if "circuit" in one.method.arms and one.method.name not in circuits:
                circuits[one.method.name] = self._circuit(one.method)
            tick()
        costs = self._costs(those, faults) if self.costed else []
        return TaskCells(self.task, len(self.posed), faults, cells, healthy, circuits, costs)

    # -- faults --------------------------------------------------------------------------------------------------------

    def _model_faults(self) -> list[Planted]:
        found: list[Planted] = []

        def tuned_now(fault: Fault) -> dict[str, Any] | None:
            got = tuned(self.work, fault)
            return None if got is None else {"fault": got[0].to_json(), "kept": got[1]}

        drawn = draw(self.model, self.seed)
        for i in range(PATIENCE * self.share[0]):
            if len(found) == self.share[0]:
                break
            fault = next(drawn)
            got = self.step(f"{self.task.id} fault {i}", lambda fault=fault: tuned_now(fault))
            if got is not None:
                one = Fault.from_json(got["fault"])
                places = self.work.places[one.universe]
                truth = tuple(truth_of(one, places))
                found.append(Planted(self.task.name, len(found), one, got["kept"], truth, len(places)))
        return found

    def _input_faults(self) -> list[Planted]:
        found: list[Planted] = []

        def tuned_now(fault: InputFault) -> dict[str, Any] | None:
            got = tuned_input(self.work, fault)
            return None if got is None else {"fault": got[0].to_json(), "kept": got[1]}

        drawn = draw_inputs(self.work, self.seed)
        for i in range(PATIENCE * self.share[1]):
            if len(found) == self.share[1]:
                break
            fault = next(drawn)
            got = self.step(f"{self.task.id} input fault {i}", lambda fault=fault: tuned_now(fault))
            if got is not None:
                one = InputFault.from_json(got["fault"])
                case = input_case(self.work, one)
                truth = tuple(true_places(one, case))
                if truth:  # a span shorter than a window may hold no window's centre
                    found.append(Planted(self.task.name, len(found), one, got["kept"], truth, len(case.places)))
        return found

    # -- cells -----------------------------------------------------------------------------------------------------------

    def _key(self, planted: Planted, one: Entrant) -> str:
        return f"{self.task.id} {one.label} {'' if planted.of_model else 'input '}{planted.index} {planted.fault.name}"

    def _score(self, planted: Planted, those: Sequence[Entrant]) -> list[Cell]:
        """Every entrant on one fault; the fault is planted only where a cell is missing."""
        with _Lazy(lambda: self._cases(planted)) as lazy:
            found = []
            for one in those:
                scores = self.step(
                    self._key(planted, one), lambda one=one: scored(one.method.score, lazy.get()[one.arm])
                )
                found.append(Cell(self.task.name, one.label, planted.index, np.asarray(scores)))
        return found

    def _seen(self, one: Entrant, case: Case) -> Case:
        """The case as a method sees it: a costly one looks at fewer items."""
        return case.first(self.protocol.faults.costly_items) if one.method.costly else case

    def _cases(self, planted: Planted) -> Any:
        """The fault in force, with a case per arm."""
        if isinstance(planted.fault, Fault):
            return cases(self.work, planted.fault)
        case = input_case(self.work, planted.fault)
        # with the model healthy, the sound with its fault and the sound without are the pair
        return nullcontext({"repair": case, "pairs": case})

    # -- the healthy model -----------------------------------------------------------------------------------------------

    def _healthy(self, one: Entrant) -> Healthy:
        """Scores of the two pools of items, each asked of a model that is rounded everywhere and faulty nowhere."""
        asked = self.protocol.faults
        size = min(asked.costly_items if one.method.costly else asked.items, *(len(pool) for pool in self.pools))
        with _Lazy(self._rounded_cases) as lazy:
            found = []
            for pool, name in enumerate(("calibration", "test")):

                def compute(pool: int = pool) -> np.ndarray:
                    return _rows(one, lazy.get()[pool][one.arm], size)

                found.append(np.asarray(self.step(f"{self.task.id} {one.label} healthy {name}", compute)))
        pooled = len(found[1]) < len(self.pools[1])
        return Healthy(found[0], found[1], 1 if pooled else size)

    @contextmanager
    def _rounded_cases(self) -> Iterator[list[dict[Arm, Case]]]:
        """The two pools as cases, while the scratch model is rounded."""
        parameters = list(self.scratch.hf.parameters())
        kept = [parameter.data for parameter in parameters]
        rounded(self.scratch)
        try:
            found: list[dict[Arm, Case]] = []
            edits = list(zip(parameters, kept))
            for pool in self.pools:
                metrics = [p.metric for p in pool]
                clean, corrupt = [p.clean for p in pool], [p.corrupt for p in pool]
                healthy, base = Side(self.model, clean, metrics), Side(self.scratch, clean, metrics)
                pair = Side(self.scratch, corrupt, metrics)
                places = self.work.places["components"]
                found.append(
                    {
                        "repair": Case("healthy", places, base, healthy, "repair", healthy=edits, seed=self.seed),
                        "pairs": Case("healthy", places, pair, base, "pairs", seed=self.seed),
                    }
                )
            yield found
        finally:
            for parameter, own in zip(parameters, kept):
                parameter.data = own

    # -- faithfulness and cost -----------------------------------------------------------------------------------------

    def _circuit(self, one: Method) -> dict[str, Any]:
        """How much of the behaviour the places that a method ranks first keep, by their number."""
        asked = self.protocol.faithfulness

        def compute() -> dict[str, Any]:
            items = list(range(min(asked.items, len(self.work.posed))))
            case = Case(
                "circuit", self.work.places["components"], self.work.clean, self.work.corrupt, "circuit", seed=self.seed,
                items=items,
            )  # fmt: skip
            ranking = mean_score(scored(one.score, case))
            found = faithfulness(case, ranking, asked.fractions)
            return {
                "fractions": list(asked.fractions),
                "f": np.asarray(found.f).tolist(),
                "cpr": found.cpr,
                "cmd": found.cmd,
            }

        return self.step(f"{self.task.id} {one.name} circuit", compute)

    def _costs(self, those: Sequence[Entrant], faults: Sequence[Planted]) -> list[dict[str, Any]]:
        """What each entrant costs on its own, on one fault of the encoder and one of the decoder."""
        rows: list[dict[str, Any]] = []
        for stack in ("encoder", "decoder"):
            first = next((p for p in faults if isinstance(p.fault, Fault) and p.fault.stack == stack), None)
            for one in those if first else ():
                assert first is not None

                def compute(one: Entrant = one, planted: Planted = first) -> dict[str, Any]:
                    for i in range(len(self.work.posed)):  # the healthy runs serve every fault
                        self.work.clean.values(i)
                        self.work.corrupt.values(i)
                    with self._cases(planted) as made:
                        start = time.perf_counter()
                        case = self._seen(one, made[one.arm])
                        one.method.score(case)
                        return {"forwards": case.forwards, "seconds": time.perf_counter() - start}

                cost = self.step(f"{self.task.id} {one.label} cost {stack}", compute)
                rows.append({"task": self.task.name, "method": one.label, "fault in": stack, **cost})
        return rows


def _rows(one: Entrant, case: Case, size: int) -> Float[np.ndarray, "row place"]:
    """A method's scores of every item; of every ``size`` items where it pools the items of a case."""
    rows = scored(one.method.score, case)
    if len(rows) == case.n_items:
        return rows
    # a method that pools the items is asked again about every case of its own
    found = []
    for start in range(0, case.n_items - size + 1, size):
        part = copy.copy(case)
        part.items = list(case.items)[start : start + size]
        found.append(scored(one.method.score, part)[0])
    return np.stack(found)


class _Lazy:
    """A context that is entered when it is first needed, and left with the block."""

    def __init__(self, make: Callable[[], Any]):
        self._make, self._context, self._value = make, None, None

    def __enter__(self) -> _Lazy:
        return self

    def get(self) -> Any:
        """What the context gives."""
        if self._context is None:
            context = self._make()
            self._value = context.__enter__()
            self._context = context
        return self._value

    def __exit__(self, *error: Any) -> None:
        if self._context is not None:
            self._context.__exit__(*error)
