"""Random guessing: the chance level that every method has to beat, found in the same way as its own scores.

Drawn from the case's seed and name, so that the same case always gets the same guesses. It looks at nothing, so one arm
is as good as another and it enters the comparison once.
"""

from __future__ import annotations

import zlib

import numpy as np
from jaxtyping import Float

from otoscope.methods.localise.case import Case
from otoscope.methods.localise.registry import method


@method("random", arms=("repair", "circuit"), summary="random guessing: the level of chance")
def random_guess(case: Case) -> Float[np.ndarray, "item place"]:
    """Uniform scores."""
    rng = np.random.default_rng([case.seed, zlib.crc32(case.name.encode())])
    return rng.random((case.n_items, len(case.places)))
