"""What a report is made of. Each block is plain data; ``templates/blocks.html`` has one macro per ``kind``.

To add a block: a dataclass here with a ``kind``, added to ``Block``, and a macro of that name there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from otoscope.audio.clip import Clip
from otoscope.report.drawing import Drawing
from otoscope.runs import Claim


@dataclass(frozen=True)
class Section:
    """A heading that the table of contents lists, and a paragraph under it."""

    kind: ClassVar[str] = "section"
    title: str
    text: str = ""


@dataclass(frozen=True)
class Note:
    """A paragraph that must not be missed: a notice, a limit, a warning."""

    kind: ClassVar[str] = "note"
    text: str
    tone: Literal["info", "warning"] = "info"


@dataclass(frozen=True, eq=False)
class Sound:
    """A clip with its player and waveform. ``id`` is what figures name to be linked to it."""

    kind: ClassVar[str] = "sound"
    id: str
    """Letters, digits and dashes; unique in the report."""
    label: str
    """"clean", "corrupt", ..."""
    clip: Clip
    text: str | None = None
    """What the model heard; the clip's own transcript is shown beside it."""
    span: tuple[float, float] | None = None
    """Seconds; gets a button of its own, because the changed part is often too short to catch."""
    span_name: str = "changed span"
    """What the button says that it plays."""


@dataclass(frozen=True, eq=False)
class Sounds:
    """Clips side by side where the page is wide enough."""

    kind: ClassVar[str] = "sounds"
    items: Sequence[Sound]


@dataclass(frozen=True, eq=False)
class Figure:
    """A drawing with its title and caption. ``sound``: id of the Sound that a click on its time panels plays."""

    kind: ClassVar[str] = "figure"
    drawing: Drawing
    title: str
    caption: str = ""
    """What is shown, n, what the interval is over, which controls."""
    sound: str | None = None


@dataclass(frozen=True)
class Token:
    """One token of the line: its text, its time in the sound if known (seconds), its value if it has one."""

    text: str
    start: float | None = None
    end: float | None = None
    value: float | None = None
    role: Literal["", "answer", "foil", "suspect"] = ""


@dataclass(frozen=True)
class Tokens:
    """The transcript as the model wrote it, token by token, coloured by a signed value; a click plays the token."""

    kind: ClassVar[str] = "tokens"
    name: str
    """File stem of its CSV."""
    tokens: Sequence[Token]
    label: str
    """What the value is, with its unit: "logit difference, pad − bad (nats)"."""
    title: str = ""
    sound: str | None = None
    limit: float | None = None
    """Value of the full colour; default the largest."""


@dataclass(frozen=True)
class Claims:
    """The claims with their verdicts."""

    kind: ClassVar[str] = "claims"
    claims: Sequence[Claim]


@dataclass(frozen=True)
class Marked:
    """Text for a cell of a table, some words of which stand out; ``parts`` are (text, whether it does)."""

    parts: Sequence[tuple[str, bool]]

    def __str__(self) -> str:
        return " ".join(text for text, _ in self.parts)


@dataclass(frozen=True, eq=False)
class Table:
    """A small table; column -> values. Numbers are shown with 4 significant digits; text may be ``Marked``."""

    kind: ClassVar[str] = "table"
    columns: Mapping[str, Sequence[Any]]
    title: str = ""


@dataclass(frozen=True, eq=False)
class Detail:
    """One finding that opens at a click: a badge and a title, then its reason, its span to hear, and its tables."""

    kind: ClassVar[str] = "detail"
    id: str
    """Letters, digits and dashes; unique in the report."""
    title: str
    badge: str
    tone: Literal["supported", "refuted", "inconclusive"] = "inconclusive"
    text: str = ""
    sound: str | None = None
    """Id of the Sound that ``span`` (seconds) lies in; a button plays it."""
    span: tuple[float, float] | None = None
    tables: Sequence[Table] = ()
    open: bool = False


@dataclass(frozen=True)
class Reproduce:
    """How to get the same numbers again, from ``run.info``."""

    kind: ClassVar[str] = "reproduce"
    info: Mapping[str, Any]
    notes: Sequence[str] = field(default_factory=tuple)


Block = Section | Note | Sound | Sounds | Figure | Tokens | Claims | Table | Detail | Reproduce
