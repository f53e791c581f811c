"""What the pages about a dictionary's features are made of: plain data, which ``feature_site`` turns into files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from otoscope.audio.clip import Span


class Share(NamedTuple):
    """One label of a feature.

    ``share``: part of the feature's labelled active frames that carry it. ``base``: part of all labelled frames that do.
    ``reach``: part of the label's frames in which the feature is active.
    """

    label: str
    share: float
    base: float
    reach: float


@dataclass(frozen=True)
class Moment:
    """A few seconds of a recording around a frame in which the feature is active.

    Attributes:
        sound: stem of the files of sound and picture; moments may share them.
        seconds: how long the sound is.
        at: the moment, seconds of the sound.
        value: the feature's strength there.
        recording, speaker: where it is from.
        start: second of the recording at which the sound starts.
        curve: (second of the sound, strength) of every frame.
        phones, words: with their times in the sound.
    """

    sound: str
    seconds: float
    at: float
    value: float
    recording: str
    start: float
    curve: Sequence[tuple[float, float]]
    speaker: str | None = None
    phones: Sequence[Span] = ()
    words: Sequence[Span] = ()

    @property
    def play_from(self) -> float:
        """A quarter of a second before the moment, so that it is heard and not missed."""
        return max(0.0, self.at - 0.25)

    @property
    def said(self) -> list[tuple[str, bool]]:
        """(word, whether it is said at the moment)."""
        return [(word.text, word.start <= self.at < word.end) for word in self.words]

    @property
    def phone(self) -> str | None:
        """The phone at the moment."""
        return next((p.text for p in self.phones if p.start <= self.at < p.end), None)


class Neighbour(NamedTuple):
    """Another feature and the cosine of both decoder directions."""

    feature: int
    cosine: float


class SteeredText(NamedTuple):
    """A transcript under steering.

    ``strength``: in spreads. ``changed``: words changed per word of the unsteered transcript, and ``random``: the mean of that
    for random directions of the same length. ``parts``: (same, gained or lost; words).
    """

    strength: float
    changed: float
    random: float | None
    parts: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Steering:
    """What adding the feature's direction does to the transcript of one recording."""

    recording: str
    plain: str
    rows: Sequence[SteeredText]


@dataclass(frozen=True)
class FeatureRow:
    """A feature in the list.

    Attributes:
        feature: its number.
        density: share of frames in which it is active.
        mean, strongest: its strength over active frames.
        labels: kind of label -> its most frequent ones.
        effect: words changed by steering at the largest positive strength; None where it was not steered.
    """

    feature: int
    density: float
    mean: float
    strongest: float
    labels: Mapping[str, Sequence[Share]]
    effect: float | None = None


@dataclass(frozen=True)
class FeaturePage:
    """All that is shown of one feature."""

    row: FeatureRow
    top: Sequence[Moment]
    random: Sequence[Moment]
    near: Sequence[Neighbour]
    opposite: Sequence[Neighbour]
    steering: Sequence[Steering] = ()


@dataclass(frozen=True)
class FeatureSite:
    """All features of a dictionary in a list, some with pages.

    Attributes:
        title, subtitle: of the list.
        rows: every feature.
        pages: of those that have one.
        facts: name -> what is said of the dictionary and the recordings.
        info: of the run, for how to make the same again.
        notes: what must not be missed.
        spread: unit of the steering strengths, in units of the activations.
    """

    title: str
    subtitle: str
    rows: Sequence[FeatureRow]
    pages: Sequence[FeaturePage]
    facts: Mapping[str, str]
    info: Mapping[str, Any]
    notes: Sequence[str] = field(default_factory=tuple)
    spread: float = 1.0

    @property
    def kinds(self) -> list[str]:
        """Kinds of labels, in the order of their columns."""
        return list(dict.fromkeys(kind for row in self.rows for kind in row.labels))


def in_words(row: FeatureRow) -> str:
    """The feature in one sentence."""
    if row.density == 0:
        return "Never active in these recordings."
    said = []
    for kind, shares in row.labels.items():
        if shares:
            what = f"outside any {kind}" if shares[0].label == "(none)" else f"in {kind} {shares[0].label}"
            said.append(f"{100 * shares[0].share:.0f}% of that {what}")
    return f"Active in {percent(row.density)} of all frames{'; ' + ', '.join(said) if said else ''}."


def percent(share: float) -> str:
    """A share for reading, with two digits that count."""
    return f"{100 * share:.2g}%" if share < 0.995 else "100%"
