"""Attribution patching as a method under test: exact patching's answer to first order, from one run with slopes.

    estimate = sum over the place of (donor - base) * d metric / d base

is what the metric would gain if the donor's value were put there (Nanda 2023; Syed, Rager & Conmy 2023, arXiv
2310.10348; :mod:`otoscope.methods.attribution` for single positions). A place is as suspect as its estimate is large; in
the circuit arm, as the metric would *fall*, so that a place whose loss would help comes last. A place with equal values in
both runs scores exactly 0.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from torch import Tensor

from otoscope.methods.localise.case import Case
from otoscope.methods.localise.registry import method
from otoscope.models.site import Site


@method("attribution", arms=("repair", "pairs", "circuit"), summary="attribution patching: difference times slope")
def attribution(case: Case) -> Float[np.ndarray, "item place"]:
    """Difference times slope in the base run."""
    return np.stack([estimates(case, i, case.slopes(i)) for i in range(case.n_items)])


def estimates(case: Case, i: int, slopes: Mapping[Site, Tensor]) -> Float[np.ndarray, " place"]:
    """Scores of one item from slopes at every whole site, ``[1, pos, ...]``: the estimated loss of the metric in the
    circuit arm, the size of the estimated change in the others."""
    base, donor = case.base_values(i), case.donor_values(i)
    products = {site: (donor[site] - base[site]).double() * slopes[site] for site in sites_of(case)}
    change = np.array([float(place.of(products[place.site]).sum()) for place in case.places])
    # 0 - x, so that a place that is equal in both runs scores 0 and not -0
    return 0.0 - change if case.arm == "circuit" else np.abs(change)


def sites_of(case: Case) -> list[Site]:
    """Every whole site that a place is a part of, the logits included, each once."""
    return list(dict.fromkeys(place.site for place in case.places))
