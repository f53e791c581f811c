"""Integrated gradients: attribution patching with the slope averaged on the way from base to donor.

    estimate = sum over the place of (donor - base) * mean over steps of d metric / d value at that step

A slope at one end says little where the metric saturates between the two runs; the mean over the way is exact for a single
place that is moved alone (Sundararajan, Taly & Yan 2017), and for circuits more faithful than the slope at one end (Hanna,
Pezzelle & Belinkov 2024, EAP-IG on the inputs, arXiv 2403.17806). The way leads through whole runs: with the weights, or
what enters the model, so far from base to donor. Steps are the midpoints of equal parts.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

from otoscope.methods.localise.attribution import estimates, sites_of
from otoscope.methods.localise.case import Case
from otoscope.methods.localise.registry import method

#: points on the way at which slopes are taken
STEPS = 5


@method(
    "integrated-gradients",
    arms=("repair", "circuit"),
    summary=f"difference times the slope's mean over {STEPS} steps from base to donor",
    costly=True,
)
def integrated_gradients(case: Case) -> Float[np.ndarray, "item place"]:
    """Difference times mean slope."""
    rows = []
    for i in range(case.n_items):
        runs = [case.slopes(i, (step + 0.5) / STEPS) for step in range(STEPS)]
        mean = {site: torch.stack([run[site] for run in runs]).mean(0) for site in sites_of(case)}
        rows.append(estimates(case, i, mean))
    return np.stack(rows)
