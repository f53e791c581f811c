"""A long table that one searches: a box that filters its rows, headings that sort them, and nothing asked of any network."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from markupsafe import Markup

from otoscope.report.blocks import Table

#: rows that are shown at once, and without scripts
SHOWN = 60


@dataclass(frozen=True, eq=False)
class Index(Table):
    """A table of any length with a search box. All rows are in the page; the first ``SHOWN`` that match are shown.

    ``name``: letters, digits and dashes; unique in the report. ``hint``: what one may type, "vowel decoder".
    """

    kind: ClassVar[str] = "index"
    name: str = "index"
    hint: str = ""

    @property
    def rows(self) -> list[list[Any]]:
        """Row after row; numbers rounded to three digits, since they are many."""
        return [[_plain(value) for value in row] for row in zip(*self.columns.values())]

    @property
    def first(self) -> dict[str, list[Any]]:
        """The columns of the first rows, for readers without scripts."""
        return {name: list(values)[:SHOWN] for name, values in self.columns.items()}

    def data(self) -> Markup:
        """The rows as JSON that may stand inside a ``script`` element."""
        text = json.dumps(self.rows, ensure_ascii=False, separators=(",", ":"))
        for letter in "<>&":
            text = text.replace(letter, f"\\u{ord(letter):04x}")
        return Markup(text)


def _plain(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return None if not np.isfinite(value) else round(float(value), 3)
    if isinstance(value, np.integer):
        return int(value)
    return value
