"""CKA difference: whether a place still tells the positions apart as it did, whatever that does to the answer.

    score = 1 - CKA(base, donor)

by unbiased linear CKA (:mod:`otoscope.methods.similarity`), padding left out. Every item's frames are a set of samples of
their own; the few tokens of a decoder are pooled over the items into one. A place that is equal in both runs scores 0,
one with fewer than 4 samples NaN. CKA knows no scale: a head that is merely amplified looks the same to it.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

from otoscope.methods.localise.case import Case
from otoscope.methods.localise.places import Place
from otoscope.methods.localise.registry import method
from otoscope.methods.localise.states import states
from otoscope.methods.similarity import cka


@method("cka-difference", arms=("repair", "pairs", "circuit"), summary="1 - unbiased CKA of the values in the two runs")
def cka_difference(case: Case) -> Float[np.ndarray, " place"]:
    """Unlikeness of the donor's and the base's values, over all items at once."""
    return np.array([_unlike(case, place) for place in case.places])


def _unlike(case: Case, place: Place) -> float:
    items = range(case.n_items)
    pairs = [(place.of(case.base_values(i)[place.site]), place.of(case.donor_values(i)[place.site])) for i in items]
    if all(torch.equal(base, donor) for base, donor in pairs):
        return 0.0
    base = [states(case, i, place, case.base_values(i)[place.site]) for i in items]
    donor = [states(case, i, place, case.donor_values(i)[place.site]) for i in items]
    if place.site.stack not in case.model.stacks or not case.model.stacks[place.site.stack].frame_rate:
        base, donor = [np.concatenate(base)], [np.concatenate(donor)]
    return 1.0 - cka(base, donor)
