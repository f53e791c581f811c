"""Record what flows through a model: run it once and keep the values at the named sites."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from otoscope.errors import SiteError
from otoscope.models.adapter import Adapter
from otoscope.models.inputs import Inputs
from otoscope.models.site import HEAD_POINTS, PATTERN_POINTS, POINTS, Site, check, expand

if TYPE_CHECKING:
    from otoscope.engine.intervene import Intervention


class Cache(Mapping[str, Tensor]):
    """Values by site name; ``cache["encoder.2.resid_post"]`` or ``cache[Site(...)]``. An index picks a head or neuron."""

    def __init__(self, values: dict[Site, Tensor]):
        self._values = values

    def __getitem__(self, site: str | Site) -> Tensor:
        site = Site.parse(site)
        if site.whole not in self._values:
            kept = ", ".join(str(s) for s in list(self._values)[:6])
            raise SiteError(f"'{site}' was not captured: this cache holds {kept or 'nothing'}; name it when capturing.")
        return pick(self._values[site.whole], site)

    def __contains__(self, site: object) -> bool:
        return isinstance(site, str | Site) and Site.parse(site).whole in self._values

    def __iter__(self) -> Iterator[str]:
        return (str(site) for site in self._values)

    def __len__(self) -> int:
        return len(self._values)

    def sites(self) -> list[Site]:
        """The sites held, in the order of computing."""
        return list(self._values)

    def item(self, index: int) -> Cache:
        """The values of one item of the batch, still with a batch dimension."""
        return Cache({site: value[index : index + 1] for site, value in self._values.items()})


def pick(value: Tensor, site: Site) -> Tensor:
    """The head or neuron of ``site`` in the value of the whole site."""
    if site.index is None:
        return value
    if site.point in PATTERN_POINTS:
        return value[:, site.index]
    return value[:, :, site.index] if site.point in HEAD_POINTS else value[..., site.index]


@dataclass(frozen=True)
class Output:
    """What a run gives back: logits ``[batch, pos, vocab]`` and the captured values."""

    logits: Float[Tensor, "batch pos vocab"]
    cache: Cache


class _Enough(Exception):
    """Raised inside a forward once the last wanted site has been seen."""


def resolve_sites(adapter: Adapter, sites: str | Site | Iterable[str | Site]) -> list[Site]:
    """Sites from names and patterns, in the order of computing, without repetition."""
    wanted = [sites] if isinstance(sites, str | Site) else list(sites)
    found = [s for w in wanted for s in expand(w, adapter.stacks, adapter.name)]
    return in_order(adapter, {check(s, adapter.stacks, adapter.name).whole for s in found})


def in_order(adapter: Adapter, sites: Iterable[Site]) -> list[Site]:
    """Sites sorted as the model computes them."""
    return sorted(sites, key=lambda s: (adapter.order.index(s.stack), s.layer, POINTS.index(s.point)))


@contextmanager
def recording(adapter: Adapter, sites: Sequence[Site], *, stop: bool = False) -> Iterator[dict[Site, Tensor]]:
    """Fill the yielded dictionary with values while the model runs; several calls (generation) join along positions.

    With ``stop``, the forward ends as soon as the last site has been seen.
    """
    values: dict[Site, Tensor] = {}
    with ExitStack() as stack:
        for i, site in enumerate(sites):

            def visit(value: Tensor, site: Site = site, last: bool = i == len(sites) - 1) -> None:
                if site not in values:
                    values[site] = value
                elif site.point in PATTERN_POINTS:
                    raise SiteError(
                        f"'{site}' changes its shape at every generated token: capture it on the whole text."
                    )
                else:
                    values[site] = torch.cat((values[site], value), 1)
                if stop and last:
                    raise _Enough

            for handle in adapter.tap(site).attach(visit):
                stack.callback(handle.remove)
        yield values


def capture(
    adapter: Adapter,
    inputs: Inputs,
    sites: str | Site | Iterable[str | Site],
    interventions: Sequence[Intervention] = (),
    *,
    grad: bool = False,
) -> Output:
    """Run the model and keep the values at ``sites`` (names, patterns, or several).

    Args:
        adapter: the model.
        inputs: a batch.
        sites: what to keep.
        interventions: changes in force during the run; captured values are those after the change.
        grad: keep the graph, so that ``torch.autograd.grad`` reaches the captured values.

    Raises:
        SiteError: the model has no such site.
    """
    from otoscope.engine.intervene import check_tokens, intervening

    wanted = resolve_sites(adapter, sites)
    check_tokens(adapter, inputs, interventions)
    with (
        torch.set_grad_enabled(grad),
        intervening(adapter, inputs, interventions),
        recording(adapter, wanted) as values,
    ):
        logits = adapter.forward(inputs)
    return Output(logits, Cache({site: values[site] for site in wanted}))


def capture_until(
    adapter: Adapter, inputs: Inputs, sites: Sequence[Site], interventions: Sequence[Intervention] = ()
) -> Cache:
    """Values at ``sites`` by a forward that ends at the last of them."""
    from otoscope.engine.intervene import check_tokens, intervening

    wanted = in_order(adapter, set(sites))
    check_tokens(adapter, inputs, interventions)
    with torch.no_grad(), intervening(adapter, inputs, interventions), recording(adapter, wanted, stop=True) as values:
        try:
            adapter.forward(inputs)
        except _Enough:
            pass
    return Cache({site: values[site] for site in wanted})
