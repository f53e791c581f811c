"""Change what flows through a model: replace, add, scale, project out, ablate, at chosen positions, heads and neurons.

An :class:`Intervention` says what to do and where; :func:`intervening` puts a set of them in force for a while, also
during generation with a key/value cache, where positions count from the start of the whole sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from otoscope.errors import SiteError
from otoscope.models.adapter import Adapter
from otoscope.models.inputs import Inputs
from otoscope.models.site import HEAD_POINTS, PATTERN_POINTS, POINTS, Site, check, expand

#: gets the site's value and, aligned with it, the positions it holds; returns the changed value
Change = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Intervention:
    """One change at one site (or at every site that a pattern names).

    Attributes:
        site: where; an index in it (``decoder.1.z.3``) is the same as ``heads=(3,)`` or ``neurons=(3,)``.
        change: what to do with the selected part of the value.
        positions: frames or tokens to change; None for all.
        seconds: a time window instead of positions, for stacks whose positions are time.
        heads: heads to change, for ``z`` and ``pattern`` and their cross kin.
        neurons: channels of the last dimension to change.
        name: for messages and reports.
    """

    site: Site | str
    change: Change
    positions: tuple[int, ...] | None = None
    seconds: tuple[float, float] | None = None
    heads: tuple[int, ...] | None = None
    neurons: tuple[int, ...] | None = None
    name: str = "custom"


def _where(positions: Any, heads: Any, neurons: Any, seconds: Any) -> dict[str, Any]:
    def seq(value: Any) -> tuple[int, ...] | None:
        if value is None:
            return None
        return (int(value),) if isinstance(value, Integral) else tuple(int(v) for v in value)

    return {
        "positions": seq(positions),
        "heads": seq(heads),
        "neurons": seq(neurons),
        "seconds": None if seconds is None else (float(seconds[0]), float(seconds[1])),
    }


def replace_with(
    site: Site | str,
    value: Tensor,
    *,
    positions: Any = None,
    heads: Any = None,
    neurons: Any = None,
    seconds: Any = None,
) -> Intervention:
    """Put ``value`` in place of what is there.

    ``value`` broadcasts to the site's whole value, so a donor's captured tensor fits as it is; or it has as many
    positions as ``positions``; or it is what a cache gives for one head or neuron, where ``site`` names the same one.
    """
    where = _where(positions, heads, neurons, seconds)

    def change(x: Tensor, at: Tensor) -> Tensor:
        new, axis, chosen = _like(site, value.to(x), x), _pos_axis(site), where["positions"]
        if new.ndim < x.ndim or new.shape[axis] == 1:
            return new.expand_as(x)
        given, n = new.shape[axis], x.shape[axis]
        if chosen is not None and given == len(chosen) and (given != n or max(chosen) > int(at[-1])):
            rows = {p: i for i, p in enumerate(chosen)}
            new = new.index_select(axis, torch.tensor([rows.get(p, 0) for p in at.tolist()], device=x.device))
        # generation: the donor covers more of the text than this step
        elif given != n and str(site).startswith("decoder") and int(at[-1]) < given:
            new = new.index_select(axis, at)
        elif given != n:
            raise SiteError(
                f"the value for '{site}' has {given} positions where the model has {n}: use sounds or texts of equal "
                "length, or name as many positions."
            )
        return new.expand_as(x)

    return Intervention(site, change, **where, name="replace")


def _pos_axis(site: Site | str) -> int:
    """Axis of the positions: patterns have their heads before it."""
    return 2 if "pattern" in str(site) else 1


def _like(site: Site | str, value: Tensor, x: Tensor) -> Tensor:
    """One head's or neuron's value, as a cache gives it, with the axis back that the index took away."""
    if str(site).count(".") < 3 or value.ndim != x.ndim - 1 or value.ndim < 2:
        return value
    return value.unsqueeze(x.ndim - 1 if x.ndim == 3 else 3 - _pos_axis(site))


def add(
    site: Site | str, vector: Tensor, strength: float = 1.0, *, positions: Any = None, heads: Any = None,
    neurons: Any = None, seconds: Any = None,
) -> Intervention:  # fmt: skip
    """Add ``strength * vector`` (``[d_model]``, or anything that broadcasts)."""
    return Intervention(
        site, lambda x, _: x + strength * vector.to(x), **_where(positions, heads, neurons, seconds), name="add"
    )


def scale(
    site: Site | str,
    factor: float,
    *,
    positions: Any = None,
    heads: Any = None,
    neurons: Any = None,
    seconds: Any = None,
) -> Intervention:
    """Multiply by ``factor``; 0 removes."""
    return Intervention(site, lambda x, _: x * factor, **_where(positions, heads, neurons, seconds), name="scale")


def project_out(
    site: Site | str, directions: Float[Tensor, "k d"] | Float[Tensor, " d"], *, positions: Any = None, heads: Any = None,
    neurons: Any = None, seconds: Any = None,
) -> Intervention:  # fmt: skip
    """Remove the component along ``directions`` (orthonormalised first) from the last dimension.

    Raises:
        SiteError: the directions are linearly dependent or zero.
    """
    stacked = directions if directions.ndim == 2 else directions[None]
    basis, upper = torch.linalg.qr(stacked.double().T)
    if (
        len(stacked) > stacked.shape[1]
        or (upper.diagonal().abs() < 1e-9 * upper.diagonal().abs().max().clamp(min=1e-30)).any()
    ):
        raise SiteError(
            f"the directions to project out of '{site}' are linearly dependent or zero: give independent ones."
        )

    def change(x: Tensor, _: Tensor) -> Tensor:
        b = basis.to(x)
        return x - (x @ b) @ b.T

    return Intervention(site, change, **_where(positions, heads, neurons, seconds), name="project_out")


def mean_ablate(
    site: Site | str,
    reference: Tensor,
    *,
    positions: Any = None,
    heads: Any = None,
    neurons: Any = None,
    seconds: Any = None,
) -> Intervention:
    """Replace by the mean of ``reference`` over its items and positions.

    ``reference`` is a captured value of the same site, ``[batch, pos, ...]`` (``[batch, head, pos, key]`` for a pattern);
    cut the frames of padding off it first.
    """
    mean = reference.mean(dim=(0, _pos_axis(site)), keepdim=True)
    return replace(replace_with(site, mean, **_where(positions, heads, neurons, seconds)), name="mean_ablate")


def resample_ablate(
    site: Site | str, reference: Tensor, seed: int = 0, *, positions: Any = None, heads: Any = None, neurons: Any = None,
    seconds: Any = None,
) -> Intervention:  # fmt: skip
    """Replace each position by a random one of ``reference``, seeded.

    ``reference`` is a captured value of the same site, as in :func:`mean_ablate`. The draw depends on the seed and the
    position alone, so generation with a cache draws what one pass over the whole text draws.
    """
    axis = _pos_axis(site)
    pool = reference.movedim(axis, 1).flatten(0, 1)

    def change(x: Tensor, at: Tensor) -> Tensor:
        draws = [
            torch.randint(len(pool), (x.shape[0],), generator=torch.Generator().manual_seed(seed * 1_000_003 + int(p)))
            for p in at
        ]
        return pool.to(x)[torch.stack(draws, 1).to(x.device)].movedim(1, axis)

    return Intervention(site, change, **_where(positions, heads, neurons, seconds), name="resample_ablate")


@contextmanager
def intervening(adapter: Adapter, inputs: Inputs | None, interventions: Sequence[Intervention]) -> Iterator[None]:
    """Keep ``interventions`` in force for every forward of the model inside the ``with`` block.

    Args:
        adapter: the model.
        inputs: what will run, needed only where a window is given in seconds.
        interventions: the changes; at one site they act in the order given.

    Raises:
        SiteError: an unknown site, head, neuron, position or time window.
    """
    if not interventions:
        yield
        return
    placed = [(s, one) for one in interventions for s in expand(one.site, adapter.stacks, adapter.name)]
    # hooks fire in the order of attaching, so parts of a layer come before the sums made of them
    placed.sort(key=lambda p: (adapter.order.index(p[0].stack), p[0].layer, POINTS.index(p[0].point)))
    offsets: dict[str, int] = {}
    with ExitStack() as stack:
        for name in {site.stack for site, _ in placed}:
            handle = adapter.stack_module(name).register_forward_pre_hook(_note_offset(offsets, name), with_kwargs=True)
            stack.callback(handle.remove)
        for site, one in placed:
            visit = _visit(adapter, inputs, site, one, offsets)
            for handle in adapter.tap(site.whole).attach(visit):
                stack.callback(handle.remove)
        yield


def check_tokens(adapter: Adapter, inputs: Inputs, interventions: Sequence[Intervention]) -> None:
    """Refuse decoder positions that one run over ``inputs`` never reaches (while generating, they may still come).

    Raises:
        SiteError: a position lies beyond the tokens.
    """
    n = 1 if inputs.tokens is None else inputs.tokens.shape[1]
    for one in interventions:
        for site in expand(one.site, adapter.stacks, adapter.name):
            if site.stack == "decoder" and max(one.positions or (0,)) >= n:
                raise SiteError(
                    f"'{site}' has no position {max(one.positions or ())}: the positions of these tokens are 0 to {n - 1}."
                )


def _note_offset(offsets: dict[str, int], stack: str) -> Callable[[nn.Module, tuple, dict], None]:
    def hook(_module: nn.Module, _args: tuple, kwargs: dict) -> None:
        past = kwargs.get("past_key_values")
        offsets[stack] = past.get_seq_length() if past is not None else 0

    return hook


def _visit(
    adapter: Adapter, inputs: Inputs | None, site: Site, one: Intervention, offsets: dict[str, int]
) -> Callable[[Tensor], Tensor | None]:
    check(site, adapter.stacks, adapter.name)
    positions, heads, neurons = _selection(adapter, inputs, site, one)

    def visit(value: Tensor) -> Tensor | None:
        pos_axis = 2 if site.point in PATTERN_POINTS else 1
        head_axis = 1 if site.point in PATTERN_POINTS else 2
        n, offset = value.shape[pos_axis], offsets.get(site.stack, 0)
        at = torch.arange(offset, offset + n, device=value.device)
        mask: Tensor | None = None
        if positions is not None:
            if adapter.stacks[site.stack].frame_rate and max(positions) >= n:
                raise SiteError(f"'{site}' has no position {max(positions)}: its positions are 0 to {n - 1}.")
            mask = _along(torch.isin(at, torch.tensor(positions, device=value.device)), pos_axis, value.ndim)
            if not mask.any():
                return None
        for chosen, axis in ((heads, head_axis), (neurons, value.ndim - 1)):
            if chosen is not None:
                flags = torch.zeros(value.shape[axis], dtype=torch.bool, device=value.device)
                flags[list(chosen)] = True
                part = _along(flags, axis, value.ndim)
                mask = part if mask is None else mask & part
        try:
            changed = one.change(value, at)
        except RuntimeError as error:
            raise SiteError(
                f"'{one.name}' does not fit '{site}', whose value here has the shape {tuple(value.shape)}: "
                f"{str(error).splitlines()[0]}"
            ) from error
        if changed.shape != value.shape:
            raise SiteError(
                f"'{one.name}' made the shape {tuple(changed.shape)} of the value at '{site}', which must keep its shape "
                f"{tuple(value.shape)}."
            )
        return changed if mask is None else torch.where(mask, changed, value)

    return visit


def _along(flags: Tensor, axis: int, ndim: int) -> Tensor:
    return flags.view([-1 if i == axis else 1 for i in range(ndim)])


def _selection(
    adapter: Adapter, inputs: Inputs | None, site: Site, one: Intervention
) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None, tuple[int, ...] | None]:
    """Positions, heads and neurons of an intervention at one site, checked."""
    spec = adapter.stacks[site.stack]
    positions, heads, neurons = one.positions, one.heads, one.neurons
    if site.index is not None:
        heads, neurons = ((site.index,), neurons) if site.point in HEAD_POINTS else (heads, (site.index,))
    if one.seconds is not None:
        if positions is not None:
            raise SiteError(f"the change at '{site}' names positions and seconds: give one of the two.")
        if not spec.frame_rate:
            raise SiteError(f"the positions of '{site}' are tokens, not time: name positions instead of seconds.")
        if inputs is None:
            raise SiteError(f"a window in seconds at '{site}' needs to know the sound: pass inputs= as well.")
        positions = tuple(adapter.clock(site.stack, max(inputs.n_samples, default=0), site.layer).frames(*one.seconds))
    if heads is not None:
        if site.point not in HEAD_POINTS:
            raise SiteError(f"'{site}' has no heads: name z, pattern, cross_z or cross_pattern.")
        if not heads or min(heads) < 0:
            raise SiteError(f"heads {heads} at '{site}' are not usable: expected numbers from 0 to {spec.n_heads - 1}.")
        for head in heads:
            check(Site(site.stack, site.layer, site.point, head), adapter.stacks, adapter.name)
    if neurons is not None:
        width = spec.channels(site.point)
        bad = [n for n in neurons if not 0 <= n < width]
        if site.point in PATTERN_POINTS or bad or not neurons:
            last = "keys, not neurons" if site.point in PATTERN_POINTS else f"{width} neurons"
            raise SiteError(f"'{site}' has no neurons {bad or neurons}: its last dimension has {last}.")
    if positions is not None and (not positions or min(positions) < 0):
        raise SiteError(f"positions {positions} at '{site}' are not usable: expected numbers from 0 up.")
    return positions, heads, neurons
