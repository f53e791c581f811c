"""An intervention to take along: a small file that is put onto a plain model in one line, and taken off as easily.

A fix is a list of edits at sites. Each is one of

    scale    x -> factor * x                                        for some heads of a site
    add      x -> x + strength * v                                  everywhere at a site
    neuron   x -> x + strength * clip(r . x + b, 0, 1) * w          everywhere at a site

The last is one neuron more: it reads a direction ``r`` and writes a direction ``w``, and does nothing where it does not
fire. ``fix.json`` holds the edits, the model they were found on, their scores and what they were found with;
``fix.safetensors`` holds the directions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from otoscope.engine.intervene import Intervention, add, intervening, scale
from otoscope.engine.model import Model
from otoscope.errors import ModelError, OtoscopeError
from otoscope.models.adapter import Adapter
from otoscope.models.load import adapter_class
from otoscope.runs.files import write_bytes

FORMAT = 1
_FILE, _WEIGHTS = "fix.json", "fix.safetensors"
#: operation -> the fields it must have, and those that name a direction
_FIELDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "scale": (("heads", "factor"), ()),
    "add": (("strength",), ("vector",)),
    "neuron": (("bias", "strength"), ("read", "write")),
}


@dataclass(frozen=True, eq=False)
class Fix:
    """Edits of a model, and where they come from.

    Attributes:
        name: what it is for.
        family: of the models it fits.
        weights: hash of the weights it was found on (:meth:`otoscope.Model.weights_hash`, float32).
        edits: ``{"op", "site", ...}``; directions are named by their key in ``vectors``.
        vectors: ``[d_model]`` each.
        begin_suppress: what the generation config must not start a text with while the fix is on; None leaves it as it is.
        scores, found_with: plain data for the reader.
    """

    name: str
    family: str
    weights: str
    edits: tuple[dict[str, Any], ...]
    vectors: Mapping[str, Tensor] = field(default_factory=dict)
    begin_suppress: tuple[int, ...] | None = None
    scores: Mapping[str, Any] = field(default_factory=dict)
    found_with: Mapping[str, Any] = field(default_factory=dict)

    def interventions(self) -> list[Intervention]:
        """The edits as the engine takes them.

        Raises:
            ModelError: an unknown operation, or a field or direction that is missing.
        """
        return [_intervention(edit, self.vectors) for edit in self.edits]

    def save(self, folder: Path) -> Path:
        """Write ``fix.json`` and ``fix.safetensors`` into ``folder``; returns the former.

        Raises:
            RunError: it cannot be written.
        """
        made = {
            "format": FORMAT, "name": self.name, "family": self.family, "weights": self.weights, "edits": list(self.edits),
            "begin_suppress": None if self.begin_suppress is None else list(self.begin_suppress),
            "scores": dict(self.scores), "found_with": dict(self.found_with),
        }  # fmt: skip
        write_bytes(folder / _WEIGHTS, save({k: v.detach().float().contiguous() for k, v in self.vectors.items()}))
        write_bytes(folder / _FILE, (json.dumps(made, indent=1, ensure_ascii=False) + "\n").encode())
        return folder / _FILE


def read_fix(path: str | Path) -> Fix:
    """A fix from its folder, or from the ``fix.json`` in it.

    Raises:
        ModelError: it is missing, damaged, or of another format.
    """
    folder = Path(path)
    folder = folder.parent if folder.name == _FILE else folder
    try:
        found = json.loads((folder / _FILE).read_text("utf-8"))
        vectors = load_file(folder / _WEIGHTS)
    except (OSError, ValueError, SafetensorError) as problem:
        raise ModelError(
            f"'{path}' holds no fix that can be read: expected {_FILE} and {_WEIGHTS}, as `otoscope fix --out` writes them."
        ) from problem
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ModelError(f"'{path}' is no fix of format {FORMAT}: write it again with this version of otoscope.")
    try:
        begin = found["begin_suppress"]
        made = Fix(
            found["name"], found["family"], found["weights"], tuple(found["edits"]), vectors,
            None if begin is None else tuple(int(t) for t in begin), found["scores"], found["found_with"],
        )  # fmt: skip
        made.interventions()
    except (KeyError, TypeError, ValueError) as problem:
        raise ModelError(f"'{path}' is damaged ({problem}): copy the fix again.") from problem
    return made


class Applied:
    """A fix in force; ends with :meth:`remove`, or with its ``with`` block."""

    def __init__(self, adapter: Adapter, fix: Fix, restore: Callable[[], None] = lambda: None):
        self.fix = fix
        self._stack = ExitStack()
        self._stack.callback(restore)
        self._stack.enter_context(intervening(adapter, None, fix.interventions()))
        config = getattr(adapter.hf, "generation_config", None)
        if fix.begin_suppress is not None and config is not None:
            before = config.begin_suppress_tokens
            config.begin_suppress_tokens = list(fix.begin_suppress)
            self._stack.callback(setattr, config, "begin_suppress_tokens", before)

    def remove(self) -> None:
        """Take the fix off; the model is as it was. Does nothing the second time."""
        self._stack.close()

    def __enter__(self) -> Applied:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


def apply(target: Any, fix: Fix | str | Path, *, any_weights: bool = False) -> Applied:
    """Put a fix onto a model: ``otoscope.apply(pipe, "runs/fix")``.

    It acts on every forward from now on: on ``generate``, on batches and beams, and in a pipeline.

    Args:
        target: a transformers model, a transformers pipeline, or a :class:`otoscope.Model`.
        fix: a fix, or the folder that holds one.
        any_weights: put it onto other weights of the same family and width as well, for which it was not tested.

    Returns:
        what is in force; keep it to take the fix off.

    Raises:
        ModelError: another family, other weights, or edits that do not fit the model.
    """
    made = fix if isinstance(fix, Fix) else read_fix(fix)
    model, restore = _model(target)
    try:
        _check(model, made, any_weights)
        return Applied(model.adapter, made, restore)
    except OtoscopeError:
        restore()
        raise


def _check(model: Model, made: Fix, any_weights: bool) -> None:
    if model.family != made.family:
        raise ModelError(
            f"the fix '{made.name}' is for the family '{made.family}', and {model.name} is '{model.family}'."
        )
    if not any_weights and model.adapter.dtype == torch.float32 and model.weights_hash() != made.weights:
        raise ModelError(
            f"the fix '{made.name}' was found on other weights than those of {model.name}: find one for these with "
            "`otoscope fix`, or give any_weights=True to put it on untested."
        )
    made.interventions()
    for edit in made.edits:
        width = model.stacks[str(edit["site"]).split(".")[0]].d_model if "." in str(edit["site"]) else 0
        for key in _FIELDS[edit["op"]][1]:
            if made.vectors[edit[key]].shape != (width,):
                raise ModelError(
                    f"the fix '{made.name}' holds directions of {made.vectors[edit[key]].shape[0]} numbers, and {edit['site']} "
                    f"of {model.name} has {width}: it is for a model of another size."
                )


def _model(target: Any) -> tuple[Model, Callable[[], None]]:
    """The model of a target, and what gives a bare model its own attention back."""
    if isinstance(target, Model):
        return target, lambda: None
    hf: Any = target if isinstance(target, torch.nn.Module) else getattr(target, "model", None)
    config = getattr(hf, "config", None)
    if not isinstance(hf, torch.nn.Module) or config is None:
        raise ModelError(
            f"a fix goes onto a transformers model or pipeline, or an otoscope.Model, not onto a {type(target).__name__}."
        )
    name = getattr(config, "_name_or_path", "") or type(hf).__name__
    own, training = getattr(config, "_attn_implementation", None), hf.training
    model = Model(adapter_class(config.model_type, name)(hf, name))

    def restore() -> None:
        hf.train(training)
        choose = getattr(hf, "set_attn_implementation", None)
        if own and callable(choose):
            choose(own)

    return model, restore


def _intervention(edit: Mapping[str, Any], vectors: Mapping[str, Tensor]) -> Intervention:
    op, site = edit.get("op"), str(edit.get("site"))
    if op not in _FIELDS:
        raise ModelError(f"a fix cannot '{op}': expected one of {', '.join(_FIELDS)}.")
    plain, directions = _FIELDS[op]
    missing = [key for key in (*plain, *directions) if key not in edit]
    missing += [edit[key] for key in directions if key in edit and edit[key] not in vectors]
    if missing:
        raise ModelError(f"the edit '{op}' at '{site}' lacks {', '.join(map(str, missing))}: copy the fix again.")
    if op == "scale":
        return scale(site, float(edit["factor"]), heads=edit["heads"])
    if op == "add":
        return add(site, vectors[edit["vector"]], float(edit["strength"]))
    read, write = vectors[edit["read"]], float(edit["strength"]) * vectors[edit["write"]]
    return neuron(site, read, float(edit["bias"]), write)


def neuron(site: str, read: Tensor, bias: float, write: Tensor) -> Intervention:
    """One neuron more: ``x + clip(read . x + bias, 0, 1) * write`` (``[d_model]`` each)."""

    def change(x: Tensor, _: Tensor) -> Tensor:
        fires = (x @ read.to(x) + bias).clamp(0, 1)
        return x + fires[..., None] * write.to(x)

    return Intervention(site, change, name="neuron")
