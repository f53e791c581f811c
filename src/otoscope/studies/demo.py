"""The demonstration: a handful of spoken minimal pairs, localised in the embedded Whisper."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from otoscope.engine.cost import Cost
from otoscope.studies.patch import Notify, PatchConfig
from otoscope.studies.patch_run import Done, patch_study
from otoscope.tasks.minimal import spoken_pair
from otoscope.tasks.pair import Pair

#: frame and the two words that fill it; the second sound begins with the first one's own samples
SENTENCES = (
    ("I want to buy a {} today", "cat", "dog"),
    ("I want to buy a {} today", "table", "cable"),
    ("We will meet again on {} morning", "Monday", "Sunday"),
    ("We will meet again on {} morning", "Friday", "Tuesday"),
    ("She has a very big {} at home", "house", "mouse"),
    ("She has a very big {} at home", "garden", "table"),
)


def demo_pairs() -> list[Pair]:
    """The pairs, spoken by espeak-ng.

    Raises:
        AudioError: the speech extra is not installed.
    """
    return [
        spoken_pair(frame.format(a), frame.format(b), engine="espeak", join=True).replace(name=f"{a} / {b}")
        for frame, a, b in SENTENCES
    ]


def demo(
    out: Path | None = None,
    model: str = "whisper-tiny.en",
    *,
    progress: Callable[[int, int], None] | None = None,
    announce: Callable[[Cost], None] | None = None,
    notify: Notify = lambda _: None,
) -> Done:
    """Localise the demonstration's pairs; with ``out``, write the report there."""
    config = PatchConfig(width=0.4, encoder_parts=False)
    return patch_study(
        demo_pairs(), model, config, out=out, command="demo", progress=progress, announce=announce, notify=notify
    )
