"""A row: one patched run, where it enters its stack, and which of its positions need computing at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from otoscope.engine.base_run import BaseRun
from otoscope.engine.patch import Patch
from otoscope.models.site import Site

#: points that hold the whole residual stream: where they are the donor's, everything above them is
_STREAM = frozenset({"resid_pre", "resid_mid", "resid_post"})


@dataclass(frozen=True)
class Row:
    """A patched run on its way.

    Attributes:
        patch, site: what is asked, and the whole site it names.
        stack, layer: it enters ``stack`` before ``layer``.
        positions: where it differs from the base from ``first`` on, when it enters; may be empty.
        first: first position that is computed. In a causal stack, the keys and values before it are those of ``source``.
        source: the plain run that this row equals before ``first``: 0 is the base, ``d + 1`` is donor ``d``.
    """

    patch: Patch
    site: Site
    stack: str
    layer: int
    positions: tuple[int, ...]
    first: int = 0
    source: int = 0


def plan(run: BaseRun, patch: Patch) -> Row | int:
    """The row that answers ``patch``, or the plain run that already has (0: the base, ``d + 1``: donor ``d``).

    A patched stream holds the donor's value at the patched positions and the base's elsewhere. In a causal stack,

    * up to the first position where it differs from the base's, the run *is* the base run, and
    * up to the first position where it differs from the donor's, the run *is* the donor's from there on: those positions
      see nothing but each other. That takes a patch of the whole stream, and a stack that sees nothing else which
      differs: a decoder that attends to an encoder needs the same sound on both sides.

    The longer of the two prefixes is taken from the plain run; only what comes after it is computed. "Differs" is
    decided bit by bit, on the values at the patched site (:meth:`BaseRun.equal`).
    """
    site = Site.parse(patch.site).whole
    spec, n = run.adapter.stacks[site.stack], run.n_positions(site)
    patched = np.zeros(n, dtype=bool)
    patched[slice(None) if patch.positions is None else list(patch.positions)] = True
    equal = run.equal(site)[patch.donor] if patch.value is None else np.zeros(n, dtype=bool)
    changed = patched & ~equal
    if not changed.any():
        return 0
    if site.stack == "frontend":
        return Row(patch, site, "encoder", 0, tuple(range(run.stream("encoder", 0).shape[1])))
    layer = site.layer if site.point == "resid_pre" else site.layer + 1
    if not spec.causal:
        return Row(patch, site, site.stack, layer, tuple(np.flatnonzero(patched).tolist()))
    first, source = int(changed.argmax()), 0
    whole = site.point in _STREAM and patch.value is None and patch.parts() == (None, None)
    if whole and run.closed(patch.donor):
        like_donor = patched | equal
        stop = n if like_donor.all() else int(like_donor.argmin())
        if stop > first:
            first, source = stop, patch.donor + 1
    stop = max(run.reading.positions) + 1 if site.stack == run.adapter.order[-1] else n
    if first >= stop:
        return source
    positions = tuple(p for p in np.flatnonzero(patched).tolist() if first <= p < stop)
    return Row(patch, site, site.stack, layer, positions, first, source)
