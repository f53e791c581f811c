"""Planted faults: exactly one thing is broken in a real model, so the place that a method should find is known.

A fault of a model is an edit of its weights, so the faulty model is an ordinary model of its family. The edits are chosen
so that the value of exactly one place changes while everything it is computed from stays healthy:

    head, cross   the rows of ``W_V`` of one head (under grouped queries, the rows of ``W_Q``): scaled, noised or zeroed
    swap          the rows of ``W_Q, W_K, W_V`` of two heads of a layer exchanged (under grouped queries, of ``W_Q``)
    mlp           ``W_down`` and its bias: scaled, noised or zeroed
    neurons       the columns of ``W_down`` of a group of neurons
    rows          a block of rows of an audio-LLM's connector
    direction     everything a layer writes loses its part along one direction ``d``: ``W <- (I - s d d') W``
    unembed       one token's row of the unembedding moved along the mean final state, which biases the model towards it

``s`` is the severity. The names of the true places are those of :mod:`otoscope.methods.localise.places`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from otoscope.engine.model import Model
from otoscope.errors import TaskError
from otoscope.models.block import Attention, Block
from otoscope.tasks.blocks_of_rows import rows_of

Part = Literal["head", "cross", "mlp", "neurons", "rows", "direction", "unembed"]
Kind = Literal["scale", "noise", "zero", "swap", "remove", "bias"]
#: which set of places a fault is looked for in
Universe = Literal["components", "layers", "inputs"]

#: what can be broken, and how
MODEL_FAULTS: tuple[tuple[Part, Kind], ...] = (
    ("head", "scale"), ("head", "noise"), ("head", "zero"), ("head", "swap"),
    ("cross", "scale"), ("cross", "noise"), ("cross", "zero"), ("cross", "swap"),
    ("mlp", "scale"), ("mlp", "noise"), ("mlp", "zero"),
    ("neurons", "scale"), ("neurons", "noise"), ("neurons", "zero"),
    ("rows", "scale"), ("rows", "noise"), ("rows", "zero"),
    ("direction", "remove"), ("unembed", "bias"),
)  # fmt: skip
#: kinds whose severity can be chosen, with the smallest and the largest that is tried
SEVERITIES: dict[str, tuple[float, float]] = {
    "scale": (0.25, 64.0),
    "noise": (0.05, 32.0),
    "remove": (0.5, 64.0),
    "bias": (0.001, 32.0),
}
#: neurons in a group
GROUP = 32
#: a direction is drawn from the span of this many leading output directions of the layer's MLP
LEADING = 8


@dataclass(frozen=True)
class Fault:
    """One fault of a model.

    Attributes:
        part, kind: what is broken, and how.
        stack, layer: where; -1 for the unembedding.
        index: heads, neurons, blocks of rows, or the token whose row is moved.
        severity: see the module; 1 where there is nothing to choose.
        seed: of noise and of the direction.
    """

    part: Part
    kind: Kind
    stack: str
    layer: int
    index: tuple[int, ...] = ()
    severity: float = 1.0
    seed: int = 0

    @property
    def universe(self) -> Universe:
        """The places among which it is looked for."""
        return "layers" if self.part in ("direction", "unembed") else "components"

    @property
    def truth(self) -> tuple[str, ...]:
        """Names of the true places: one, or two swapped heads."""
        match self.part:
            case "head" | "cross":
                return tuple(f"{self.stack}.{self.layer}.{self.part}.{i}" for i in self.index)
            case "mlp" | "neurons":
                return (f"{self.stack}.{self.layer}.mlp",)
            case "rows":
                return tuple(f"connector.rows.{i}" for i in self.index)
            case "direction":
                return (f"{self.stack}.{self.layer}",)
            case _:
                return ("unembed",)

    @property
    def name(self) -> str:
        """Readable and unique within a benchmark."""
        return f"{self.kind} {self.part} {self.stack}.{self.layer} {list(self.index)} seed {self.seed}"

    @property
    def tunable(self) -> bool:
        """Whether its severity can be chosen."""
        return self.kind in SEVERITIES

    def at(self, severity: float) -> Fault:
        """The same fault, so severe."""
        return replace(self, severity=severity)

    def to_json(self) -> dict[str, Any]:
        """Its fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Fault:
        """The fault of :meth:`to_json`."""
        return cls(**{**fields, "index": tuple(fields["index"])})


def draw(model: Model, seed: int = 0) -> Iterator[Fault]:
    """Faults without end, drawn at random: part and kind in turn, then stack, layer and index; all of severity 1.

    Faults of the unembedding get the token 0: which token is to be preferred depends on the question that is asked.
    """
    rng = np.random.default_rng(seed)
    able: list[tuple[Part, Kind]] = [(part, kind) for part, kind in MODEL_FAULTS if _stacks(model, part)]
    while True:
        for chosen in able:
            part, kind = chosen
            stack = str(rng.choice(_stacks(model, part)))
            spec = model.stacks[stack]
            layer = int(rng.integers(spec.n_layers))
            own = int(rng.integers(2**31))
            match part:
                case "head" | "cross" if kind == "swap":
                    index = tuple(sorted(map(int, _two_heads(model, stack, part, rng))))
                case "head" | "cross":
                    index = (int(rng.integers(spec.n_heads)),)
                case "neurons":
                    group = rng.choice(spec.d_mlp, min(GROUP, spec.d_mlp), replace=False)
                    index = tuple(sorted(map(int, group)))
                case "rows":
                    index = (int(rng.integers(len(rows_of(spec.d_model)))),)
                case "unembed":
                    index, layer = (0,), -1
                case _:
                    index = ()
            yield Fault(*chosen, stack, layer, index, seed=own)


def _stacks(model: Model, part: str) -> list[str]:
    """Stacks that have such a part."""
    if part == "rows":
        return [s for s in model.stacks if s == "connector"]
    if part == "unembed":
        return [s for s in model.stacks if s == "decoder"]
    point = {"cross": "cross_z", "head": "z"}.get(part, "mlp_out")
    return [name for name, spec in model.stacks.items() if point in spec.points]


def _two_heads(model: Model, stack: str, part: str, rng: np.random.Generator) -> np.ndarray:
    """Two heads of a layer; under grouped queries, two that share their keys and values."""
    spec = model.stacks[stack]
    n_kv = spec.n_kv_heads or spec.n_heads
    if part == "cross" or n_kv == spec.n_heads:
        return rng.choice(spec.n_heads, 2, replace=False)
    size = spec.n_heads // n_kv
    return int(rng.integers(n_kv)) * size + rng.choice(size, 2, replace=False)


#: a parameter that a fault changed, and its healthy value
Edit = tuple[nn.Parameter, Tensor]


@contextmanager
def planted(model: Model, fault: Fault, towards: Float[Tensor, " d_model"] | None = None) -> Iterator[list[Edit]]:
    """The fault in force, by an edit of the model's own weights; they are healthy again after the block.

    Args:
        model: the model; what was computed of it before is no longer true inside the block.
        fault: the fault.
        towards: unit vector along which a biased row is moved (``unembed``).

    Yields:
        the changed parameters, each with its healthy value.

    Raises:
        TaskError: the model has no such part.
    """
    edits: list[Edit] = []
    undo: list[Callable[[], None]] = []

    def change(module: nn.Module, name: str, edit: Callable[[Tensor], Tensor]) -> None:
        parameter: Any = getattr(module, name)
        if parameter is None:
            return
        own = parameter.data
        parameter.data = edit(own.clone())
        edits.append((parameter, own))
        undo.append(lambda: setattr(parameter, "data", own))

    try:
        with torch.no_grad():
            _plant(model, fault, towards, change, undo, edits)
        yield edits
    finally:
        for restore in reversed(undo):
            restore()


def _plant(model: Model, fault: Fault, towards: Tensor | None, change: Any, undo: list, edits: list[Edit]) -> None:
    noise = torch.Generator().manual_seed(fault.seed)
    if fault.part == "unembed":
        _plant_bias(model, fault, towards, undo, edits)
        return
    if fault.part == "rows":
        at = rows_of(model.stacks["connector"].d_model)[fault.index[0]]
        for module in model.adapter.projector.modules():  # type: ignore[attr-defined]
            if isinstance(module, nn.Linear) and module.out_features == model.stacks["connector"].d_model:
                change(module, "weight", lambda w: _spoilt(w, at, fault, noise))
                change(module, "bias", lambda b: _spoilt(b, at, fault, noise))
        return
    block = _block(model, fault)
    match fault.part:
        case "head" | "cross":
            attention = block.attn if fault.part == "head" else block.cross
            assert attention is not None
            _plant_head(attention, fault, change, noise)
        case "mlp" | "neurons":
            columns = list(fault.index) if fault.part == "neurons" else None
            change(block.down, "weight", lambda w: _spoilt(w.T, columns, fault, noise).T.contiguous())
            if columns is None:
                change(block.down, "bias", lambda b: _spoilt(b, None, fault, noise))
        case _:
            d = _leading_direction(block.down, fault.seed)
            for module in (block.attn.o, block.cross.o if block.cross else None, block.down):
                if module is not None:
                    change(module, "weight", lambda w: w - fault.severity * torch.outer(d, d @ w))
                    change(module, "bias", lambda b: b - fault.severity * d * (d @ b))


def _block(model: Model, fault: Fault) -> Block:
    blocks = model.adapter.blocks(fault.stack)
    if not blocks:
        raise TaskError(
            f"the {fault.stack} of {model.name} is not built of plain layers, so no fault can be put there."
        )
    return blocks[fault.layer]


def _plant_head(attention: Attention, fault: Fault, change: Any, noise: torch.Generator) -> None:
    grouped = attention.n_kv_heads != attention.n_heads

    def rows(head: int) -> list[int]:
        return list(range(head * attention.d_head, (head + 1) * attention.d_head))

    if fault.kind == "swap":
        a, b = (rows(head) for head in fault.index)
        for module in (attention.q,) if grouped else (attention.q, attention.k, attention.v):
            for name in ("weight", "bias"):
                change(module, name, lambda w: w.index_copy(0, torch.tensor(a + b), w[b + a]))
        return
    module = attention.q if grouped else attention.v
    for name in ("weight", "bias"):
        change(module, name, lambda w: _spoilt(w, rows(fault.index[0]), fault, noise))


def _spoilt(w: Tensor, rows: list[int] | None, fault: Fault, noise: torch.Generator) -> Tensor:
    """Some rows of a weight scaled by ``1 + s``, with noise of ``s`` times their own size, or zeroed."""
    part = w if rows is None else w[rows]
    match fault.kind:
        case "scale":
            new = part * (1 + fault.severity)
        case "noise":
            random = torch.randn(part.shape, generator=noise, dtype=torch.float32).to(part)
            new = part + fault.severity * part.float().pow(2).mean().sqrt().to(part) * random
        case _:
            new = torch.zeros_like(part)
    if rows is None:
        return new
    w = w.clone()
    w[rows] = new
    return w


@torch.no_grad()
def _leading_direction(down: Any, seed: int) -> Float[Tensor, " d_model"]:
    """A random unit vector in the span of the MLP's leading output directions, so that it matters."""
    left = torch.linalg.svd(down.weight.float(), full_matrices=False)[0][:, :LEADING]
    mixed = left @ torch.randn(left.shape[1], generator=torch.Generator().manual_seed(seed)).to(left)
    return (mixed / mixed.norm()).to(down.weight)


def _plant_bias(model: Model, fault: Fault, towards: Tensor | None, undo: list, edits: list[Edit]) -> None:
    """Move one row of the unembedding, which is untied from the embedding for the while."""
    head: Any = model.hf.get_output_embeddings()
    tied = head.weight
    if towards is None:
        raise TaskError("a biased row of the unembedding needs the direction of the final states: give towards=.")
    moved = tied.data.clone()
    moved[fault.index[0]] += fault.severity * towards.to(moved)
    head.weight = nn.Parameter(moved, requires_grad=tied.requires_grad)
    edits.append((head.weight, tied.data))
    undo.append(lambda: setattr(head, "weight", tied))
