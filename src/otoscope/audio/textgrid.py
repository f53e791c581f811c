"""Praat TextGrids, long and short, as the Montreal Forced Aligner writes them: words and phones for a Clip."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from otoscope.audio.clip import TIME_SLACK, Clip, Span
from otoscope.errors import AudioError

#: What aligners write where nobody speaks.
SILENCES = frozenset({"", "sil", "sp", "spn", "<eps>", "<sil>", "<s>", "</s>", "[noise]", "<unk>"})

#: The values of a TextGrid in their order. The long format only adds keys and counters (``intervals [3]:``) around them.
_VALUE = re.compile(
    r"""(?P<skip>\[\d*\]|[A-Za-z_]\w*\??)
    |"(?P<text>(?:[^"]|"")*)"
    |(?P<flag><\w+>)
    |(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)""",
    re.VERBOSE,
)


def read_textgrid(path: str | os.PathLike[str]) -> dict[str, tuple[Span, ...]]:
    """The interval tiers of a TextGrid, by name: their labelled intervals in seconds, silences left out.

    UTF-8 and UTF-16 (with byte order mark) are read; point tiers are skipped. Raises ``AudioError`` when the file is
    missing, not a TextGrid, or ends early.
    """
    path = Path(path)
    values = _values(_text(path))
    try:
        if next(values) != "ooTextFile" or next(values) != "TextGrid":
            raise ValueError
        _skip(values, 2)  # start and end of the whole
        count = int(float(next(values))) if next(values) == "<exists>" else 0
        tiers = [_tier(values) for _ in range(count)]
    except (StopIteration, ValueError, AudioError) as error:
        raise AudioError(
            f"The file {path} is not a whole TextGrid; write it again as text, short or long, from Praat or MFA."
        ) from error
    return {name: spans for name, spans in tiers if spans is not None}


def with_textgrid(clip: Clip, path: str | os.PathLike[str]) -> Clip:
    """The clip with the words and phones of a TextGrid (tiers ``words`` and ``phones``, or ``<speaker> - words``).

    ``text`` is filled from the words when the clip has none. Raises ``AudioError`` when there is no such tier, when
    there are several speakers, or when a label ends after the sound.
    """
    tiers = read_textgrid(path)
    words, phones = (_named(tiers, kind, path) for kind in ("words", "phones"))
    if words is None and phones is None:
        names = ", ".join(tiers) or "none"
        raise AudioError(f"The TextGrid {path} has no tier 'words' or 'phones' (it has {names}); rename its tiers.")
    words, phones = (_fitted(spans or (), clip) for spans in (words, phones))
    text = clip.text or " ".join(word.text for word in words) or None
    return clip.replace(words=words, phones=phones, text=text)


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise AudioError(f"There is no readable TextGrid {path} ({error.strerror}); check the path.") from error
    encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return raw.decode(encoding, errors="replace")


def _values(text: str) -> Iterator[str]:
    """Strings, flags and numbers (as text) in their order."""
    for match in _VALUE.finditer(text):
        if match["skip"] is None:
            yield match["text"].replace('""', '"') if match["text"] is not None else match.group()


def _skip(values: Iterator[str], count: int) -> None:
    for _ in range(count):
        next(values)


def _tier(values: Iterator[str]) -> tuple[str, tuple[Span, ...] | None]:
    kind, name = next(values), next(values)
    _skip(values, 2)  # start and end of the tier
    count = int(float(next(values)))
    if kind != "IntervalTier":
        _skip(values, 2 * count)
        return name, None
    spans = []
    for _ in range(count):
        start, end, text = float(next(values)), float(next(values)), next(values).strip()
        if text.lower() not in SILENCES:
            spans.append(Span(max(start, 0.0), end, text))
    return name, tuple(spans)


def _named(tiers: dict[str, tuple[Span, ...]], kind: str, path: str | os.PathLike[str]) -> tuple[Span, ...] | None:
    found = [name for name in tiers if name.lower() == kind or name.lower().endswith(f"- {kind}")]
    if len(found) > 1:
        raise AudioError(f"The TextGrid {path} has {kind} of several speakers ({', '.join(found)}); keep one.")
    return tiers[found[0]] if found else None


def _fitted(spans: tuple[Span, ...], clip: Clip) -> tuple[Span, ...]:
    """Aligners round the end to their frame: what ends up to 20 ms after the sound ends with it."""
    end = clip.duration
    return tuple(
        Span(min(span.start, end), end, span.text) if end < span.end <= end + 0.02 + TIME_SLACK else span
        for span in spans
    )
