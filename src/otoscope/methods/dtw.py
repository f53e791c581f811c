"""Dynamic time warping: the cheapest monotone path through a cost matrix."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def dtw(cost: Float[np.ndarray, "row column"]) -> tuple[Int[np.ndarray, " step"], Int[np.ndarray, " step"], float]:
    """The path from the first to the last corner that visits the least total cost.

    Every step moves one row down, one column right, or both, so both returned index arrays never decrease
    (Sakoe & Chiba 1978). One pass over rows: with S the running sum of a row,
    ``c[j] = S[j] + min_{k <= j} (enter[k] - S[k - 1])``, where ``enter`` is the better way down into a cell, so a row is
    a running minimum instead of a loop over its columns.

    Returns:
        Rows and columns of the path's cells, and the path's cost.
    """
    matrix = np.asarray(cost, dtype=np.float64)
    n_rows, n_columns = matrix.shape
    total = np.empty((n_rows, n_columns))
    total[0] = np.cumsum(matrix[0])
    for i in range(1, n_rows):
        above = total[i - 1]
        enter = np.minimum(above, np.concatenate(([np.inf], above[:-1])))
        running = np.cumsum(matrix[i])
        total[i] = running + np.minimum.accumulate(enter - (running - matrix[i]))

    i, j = n_rows - 1, n_columns - 1
    path = [(i, j)]
    while i or j:
        left = total[i, j - 1] if j else np.inf
        up = total[i - 1, j] if i else np.inf
        both = total[i - 1, j - 1] if i and j else np.inf
        # among equals: stay in the row, as OpenAI's and transformers' implementations do
        if both < up and both < left:
            i, j = i - 1, j - 1
        elif up < both and up < left:
            i -= 1
        elif left < np.inf:
            j -= 1
        else:
            i -= 1
        path.append((i, j))
    rows, columns = np.array(path[::-1]).T
    return rows, columns, float(total[-1, -1])


def entries(rows: Int[np.ndarray, " step"], columns: Int[np.ndarray, " step"]) -> Int[np.ndarray, " row"]:
    """The first column in which a path visits each row."""
    return columns[np.diff(rows, prepend=-1).astype(bool)]
