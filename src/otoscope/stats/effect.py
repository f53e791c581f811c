"""Effect sizes: how large, beside whether. Formulas: Cohen (1988), Hedges (1981), Cliff (1993)."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln


def _clean(values: ArrayLike) -> NDArray[Any]:
    x = np.asarray(values, dtype=float).ravel()
    return x[~np.isnan(x)]


def cohen_d(a: ArrayLike, b: ArrayLike | None = None) -> float:
    """Standardised mean difference (no unit).

    Two samples ``a [n]``, ``b [m]``: (mean a - mean b) / pooled standard deviation. One sample of paired differences
    (b omitted): mean / standard deviation, also called d_z. NaN when it is not defined (too few values, no variance).
    """
    x = _clean(a)
    if b is None:
        spread = x.std(ddof=1) if len(x) > 1 else 0.0
        return float(x.mean() / spread) if spread > 0 else float("nan")
    y = _clean(b)
    freedom = len(x) + len(y) - 2
    if len(x) == 0 or len(y) == 0 or freedom < 1:
        return float("nan")
    spread = np.sqrt((((x - x.mean()) ** 2).sum() + ((y - y.mean()) ** 2).sum()) / freedom)
    return float((x.mean() - y.mean()) / spread) if spread > 0 else float("nan")


def hedges_g(a: ArrayLike, b: ArrayLike | None = None) -> float:
    """Cohen's d without its upward bias at small n: times the exact J(f) = G(f/2) / (sqrt(f/2) G((f-1)/2))."""
    freedom = len(_clean(a)) - 1 if b is None else len(_clean(a)) + len(_clean(b)) - 2
    if freedom < 2:
        return float("nan")
    correction = np.exp(gammaln(freedom / 2) - gammaln((freedom - 1) / 2)) / np.sqrt(freedom / 2)
    return cohen_d(a, b) * float(correction)


def cliffs_delta(a: ArrayLike, b: ArrayLike) -> float:
    """P(a > b) - P(a < b) over all pairs of one value each, in [-1, 1]; NaN when a side is empty."""
    x, y = _clean(a), np.sort(_clean(b))
    if len(x) == 0 or len(y) == 0:
        return float("nan")
    above = np.searchsorted(y, x, side="left").sum()
    below = (len(y) - np.searchsorted(y, x, side="right")).sum()
    return float((above - below) / (len(x) * len(y)))
