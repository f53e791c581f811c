"""The states of a place that count: frames inside the recording, and all tokens; padding of a sound is left out."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from torch import Tensor

from otoscope.methods.localise.case import Case
from otoscope.methods.localise.places import LOGITS, Place
from otoscope.methods.natural import positions


def states(case: Case, i: int, place: Place, value: Float[Tensor, "1 pos ..."]) -> Float[np.ndarray, "pos d"]:
    """A place's part of its whole site's value, channels side by side, in float64.

    Args:
        case: the case.
        i: the item, whose sound says which frames are padding.
        place: the place; one that names positions keeps all of them.
        value: the whole site's value in the base or the donor run.
    """
    part = place.of(value)[0].double().cpu().numpy()
    part = part.reshape(len(part), -1)
    if place.positions is not None or place.site == LOGITS:
        return part
    return part[positions(case.model, place.site, case.inputs(i), 0, 0)]
