"""How the width of a connector is divided into blocks of rows."""

from __future__ import annotations

#: blocks that a connector is divided into
BLOCKS = 8


def rows_of(width: int) -> list[list[int]]:
    """The rows of each block: equal numbers, the last one what is left."""
    size = -(-width // BLOCKS)
    return [list(range(a, min(a + size, width))) for a in range(0, width, size)]
