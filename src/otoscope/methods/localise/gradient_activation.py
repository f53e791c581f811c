"""Gradient times activation: what a place seems to matter in the base run alone, without anything to compare it with.

    score = | sum over the place of value * d metric / d value |

To first order this is what removing the place would change (Simonyan et al. 2014; Ancona et al. 2018 for its kin). It sees
no donor, so it shows what one learns of a fault from the faulty run alone: which places matter, not which are broken.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from otoscope.methods.localise.attribution import sites_of
from otoscope.methods.localise.case import Case
from otoscope.methods.localise.registry import method


@method("gradient-activation", arms=("repair", "pairs", "circuit"), summary="value times slope in the base run alone")
def gradient_activation(case: Case) -> Float[np.ndarray, "item place"]:
    """Value times slope; in the circuit arm with its sign, a place that holds the metric up being more suspect."""
    rows = []
    for i in range(case.n_items):
        base, slopes = case.base_values(i), case.slopes(i, everywhere=True)
        products = {site: base[site].double() * slopes[site] for site in sites_of(case)}
        worth = np.array([float(place.of(products[place.site]).sum()) for place in case.places])
        rows.append(worth if case.arm == "circuit" else np.abs(worth))
    return np.stack(rows)
