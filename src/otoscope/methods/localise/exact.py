"""Exact patching: put the donor's value into one place at a time and see how much of the difference that makes up.

With ``m_b``, ``m_d`` and ``m_p`` the metric of the base, the donor and the patched run,

    repair   score = 1 - |m_p - m_d| / |m_b - m_d|   1 where the patch makes the run's answer the healthy one's, exactly
    pairs    score = |m_p - m_b| / |m_b - m_d|       how much of the difference between two sounds passes through the place
    circuit  score = (m_b - m_p) / |m_b - m_d|       how much the metric falls without the place

With a healthy run at hand, the place of a single fault repairs the run wholly: everything before it is healthy, and
everything after it is computed from its value. Without one, a place is named by how much it carries, which need not be
where the fault is.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from otoscope.engine.sweep import NOISE
from otoscope.methods.localise.case import Case
from otoscope.methods.localise.registry import method


@method(
    "exact",
    arms=("repair", "pairs", "circuit"),
    summary="activation patching: one exact patched run per place",
    costly=True,
)
def exact(case: Case) -> Float[np.ndarray, "item place"]:
    """Exact patching of every place; NaN rows where base and donor answer alike."""
    rows = np.full((case.n_items, len(case.places)), np.nan)
    for i in range(case.n_items):
        base, donor = case.base_metric(i), case.donor_metric(i)
        span = abs(base - donor)
        if span <= NOISE:
            continue
        patched = case.patched(i, case.places)
        if case.arm == "repair":
            rows[i] = 1 - np.abs(patched - donor) / span
        else:
            rows[i] = (base - patched if case.arm == "circuit" else np.abs(patched - base)) / span
    return rows
