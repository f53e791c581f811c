"""How the decoder's rows lie: antipodal pairs, near duplicates, how close the nearest is, and whether classes cluster.

All cosines are between the rows of the decoder of features that are active at all. ``antipodal``: share with a row at a
cosine below -0.9 (two features for one signed direction, which ReLU forces). ``duplicates``: share with another row above
0.9. ``nearest``: mean cosine to the nearest other row; random rows have what the same number of random directions has.
``clustering``: mean cosine of two features of one class less that of two features of different classes.
Weights alone: there is nothing to resample, so there are no intervals.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

#: rows whose cosine is beyond this are the same direction, up to sign
CLOSE = 0.9


class Geometry(NamedTuple):
    """See the module; NaN where there are fewer than two rows, or classes."""

    antipodal: float
    duplicates: float
    nearest: float
    clustering: float


def geometry(
    decoder: Float[np.ndarray, "feature d"],
    chosen: Bool[np.ndarray, " feature"] | None = None,
    classes: Int[np.ndarray, " feature"] | None = None,
) -> Geometry:
    """Geometry of the decoder.

    Args:
        decoder: one row per feature.
        chosen: features to look at (those that are alive); all by default. Rows of length 0 are left out.
        classes: class of each feature, -1 for none.
    """
    norms = np.linalg.norm(decoder, axis=1)
    kept = np.flatnonzero((norms > 0) & (True if chosen is None else chosen))
    nan = float("nan")
    if len(kept) < 2:
        return Geometry(nan, nan, nan, nan)
    cosines = unit_rows(decoder[kept]) @ unit_rows(decoder[kept]).T
    np.fill_diagonal(cosines, np.nan)
    nearest = np.nanmax(cosines, axis=1)
    antipodal = np.nanmin(cosines, axis=1) < -CLOSE
    cluster = nan
    if classes is not None:
        known = np.flatnonzero(classes[kept] >= 0)
        part, own = cosines[np.ix_(known, known)], classes[kept][known]
        same = own[:, None] == own[None]
        np.fill_diagonal(same, False)
        other = own[:, None] != own[None]
        if same.any() and other.any():
            cluster = float(part[same].mean() - part[other].mean())
    return Geometry(float(antipodal.mean()), float((nearest > CLOSE).mean()), float(nearest.mean()), cluster)


def neighbours(
    decoder: Float[np.ndarray, "feature d"], n: int = 5
) -> tuple[Int[np.ndarray, "feature n"], Float[np.ndarray, "feature n"]]:
    """The ``n`` nearest other rows of each feature, nearest first, and their cosines."""
    rows = unit_rows(decoder)
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, -np.inf)
    order = np.argsort(-cosines, axis=1)[:, :n]
    return order, np.take_along_axis(cosines, order, axis=1)


def unit_rows(rows: Float[np.ndarray, "row d"]) -> Float[np.ndarray, "row d"]:
    """Rows at length 1; those of length 0 stay."""
    rows = np.asarray(rows, np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1.0)
