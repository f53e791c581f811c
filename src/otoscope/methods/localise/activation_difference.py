"""Activation difference: how far a place's values move between the two runs, whatever that does to the answer.

    score = ||donor - base|| / ||donor||

over the channels and positions of the place, padding left out; 0 where both are 0. No run is made beyond the two, and
nothing says whether the answer depends on the place.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from otoscope.methods.localise.case import Case
from otoscope.methods.localise.registry import method
from otoscope.methods.localise.states import states


@method(
    "activation-difference",
    arms=("repair", "pairs", "circuit"),
    summary="norm of the change of values over their norm",
)
def activation_difference(case: Case) -> Float[np.ndarray, "item place"]:
    """Relative distance of the donor's and the base's values."""
    rows = np.zeros((case.n_items, len(case.places)))
    for i in range(case.n_items):
        base, donor, changed = case.base_values(i), case.donor_values(i), case.changed(i)
        for j, place in enumerate(case.places):
            if changed[place.site]:
                there = states(case, i, place, donor[place.site])
                moved = np.linalg.norm(there - states(case, i, place, base[place.site]))
                # moved away from exactly 0: as far as can be
                rows[i, j] = moved / max(np.linalg.norm(there), np.finfo(float).tiny) if moved else 0.0
    return rows
